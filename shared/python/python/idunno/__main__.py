"""The command line: `idunno`, or `python -m idunno`."""

import os
import signal
import sys

from . import _native
from ._local import bundled


def main() -> None:
    """Runs the command line with this program's arguments, and ends with its exit code."""
    # The command line handles signals itself. Python's handler would hide those that should end it.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if "local" in sys.argv:
        # The command line looks for other programs beside its own, which is Python's here.
        daemon = bundled("idunnod")
        if daemon is not None:
            os.environ.setdefault("IDUNNO_PROGRAMS", str(daemon.parent))
    sys.stdout.flush()
    # Nothing of Python is needed afterwards: threads of the command line may still wait for a disk.
    os._exit(_native.main(["idunno", *sys.argv[1:]]))


if __name__ == "__main__":
    main()
