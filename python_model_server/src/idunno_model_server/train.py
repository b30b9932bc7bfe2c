"""Trains one model in a process of its own: `python -m idunno_model_server.train MODEL --seed N --out DIR`.

The server starts it, so that scikit-learn and onnx (a hundred megabytes and more) never live in the server, and so that
a training that runs out of memory ends itself alone. The last line of output is the artefact's file name; a failure
is one line on the error output and exit code 1.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .errors import MissingPackageError
from .models import registry
from .process import die_with_parent, one_thread_per_library


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m idunno_model_server.train", description="Train one model.")
    parser.add_argument("model", choices=registry())
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="existing folder for the artefact")
    parser.add_argument("--die-with-parent", type=int, metavar="PID", help="end when process PID does")
    arguments = parser.parse_args()
    if arguments.die_with_parent:
        die_with_parent(arguments.die_with_parent)
    one_thread_per_library()
    try:
        artefact = registry()[arguments.model].train(arguments.seed, arguments.out)
    except (MissingPackageError, ValueError, OSError) as error:
        print(f"training {arguments.model} failed: {error}", file=sys.stderr)
        return 1
    print(artefact.name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
