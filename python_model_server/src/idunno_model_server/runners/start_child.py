"""Starts a runner in whatever environment this Python has: `python -P start_child.py SOCKET PARENT THREADS`. Or a
training: `python -P start_child.py train ARGUMENT...`.

The package `idunno_model_server` is imported from its folder, without what is installed beside it there: the server's
libraries must not hide those of the model's environment.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path

NAME = "idunno_model_server"


def main() -> None:
    folder = Path(__file__).resolve().parent.parent
    spec = importlib.util.spec_from_file_location(
        NAME, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"{folder} is no package")
    package = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = package
    spec.loader.exec_module(package)
    if sys.argv[1] == "train":
        sys.exit(importlib.import_module(f"{NAME}.training_child").main(sys.argv[2:]))
    child = importlib.import_module(f"{NAME}.runners.child")
    socket, parent, threads = map(int, sys.argv[1:4])
    child.main(socket, parent, threads)


if __name__ == "__main__":
    main()
