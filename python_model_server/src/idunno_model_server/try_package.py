"""Tries a package without a cluster, for `idunno model test`: makes a model of it, loads it, and has it answer inputs.

Standard output gets one line of JSON: {"load_s", "answers": [{"input", "answer" or "error", "ms"}]}, or {"failed",
"traceback"} and exit code 1. What the model's own code prints goes to standard error.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from .errors import MemoryShortageError, ModelFailure, ModelLoadError, PackageError, RowError
from .execution import Execution, open_model
from .json_codec import loads
from .os_process import one_thread_per_library
from .packages import open_package, require_requirements
from .statistics import InferTimes
from .user_code import row_reason


def try_package(folder: Path, name: str, files: list[Path]) -> dict[str, Any]:
    """Raises PackageError, ModelLoadError, MemoryShortageError, ModelFailure, and OSError for an input."""
    require_requirements(folder, f"To try the model here, install this for {sys.executable}")
    package = open_package(folder, name)
    start = time.perf_counter()
    execution = open_model(package.model, package.manifest)
    load_s = time.perf_counter() - start
    inputs = [(str(path), path.read_bytes()) for path in files]
    canary = package.model.canary()
    if canary is not None:
        inputs.insert(0, ("canary", canary))
    return {"load_s": round(load_s, 3), "answers": [_answer(execution, title, row) for title, row in inputs]}


def _answer(execution: Execution, title: str, row: bytes) -> dict[str, Any]:
    start = time.perf_counter()
    (answer,) = execution.answer([row], InferTimes())
    ms = round((time.perf_counter() - start) * 1000, 3)
    if isinstance(answer, RowError):
        return {"input": title, "error": row_reason(answer).decode(), "ms": ms}
    return {"input": title, "answer": loads(answer), "ms": ms}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m idunno_model_server.try_package", description=__doc__)
    parser.add_argument("folder", type=Path, help="folder with manifest.json and files/")
    parser.add_argument("name", help="the model's name")
    parser.add_argument("inputs", type=Path, nargs="*", help="files, each of which is an input")
    arguments = parser.parse_args()
    one_thread_per_library()
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    failed: dict[str, Any]
    try:
        result = try_package(arguments.folder, arguments.name, arguments.inputs)
    except ModelFailure as failure:
        failed = {"failed": failure.message, "traceback": failure.traceback}
    except (PackageError, ModelLoadError, MemoryShortageError, OSError) as error:
        failed = {"failed": str(error), "traceback": ""}
    else:
        print(json.dumps(result), file=out, flush=True)
        return 0
    print(json.dumps(failed), file=out, flush=True)
    return 1


if __name__ == "__main__":
    sys.exit(main())
