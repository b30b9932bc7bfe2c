"""The process of one training: opens the model, trains it, and tells the server what came of it.

It writes JSON lines to the descriptor that it is given: any number of {"progress": {...}}, then one {"trained":
{"artefact": FILE NAME, "metrics": {...}}} or {"failed": REASON}, the latter with exit code 1. Standard output and
standard error are the model's own, which the server reads as lines for people.

What it imports needs nothing beyond the standard library, so that a package is trained in its own environment.
Bound: ten progress lines a second.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .dialect import ReadOptions
from .errors import DatasetError, MissingPackageError, PackageError, TrainingError
from .models import Model
from .os_process import die_with_parent, one_thread_per_library
from .packages import FILES, open_package
from .training_data import Dataset
from .training_result import TrainingResult, train_model
from .training_run import Progress
from .user_code import model_failure
from .user_models import default_folder

REPORT_INTERVAL_S = 0.1
METRICS_FILE = "metrics.json"


class _OutcomeWriter:
    """Writes the lines that the server reads."""

    def __init__(self, descriptor: int) -> None:
        os.set_inheritable(descriptor, False)  # what the model starts must not hold it
        self._lines = os.fdopen(descriptor, "w", buffering=1)
        self._last_report_s = float("-inf")

    def progress(self, progress: Progress) -> None:
        """Limits the rate, but never drops the last step."""
        now_s = time.monotonic()
        if progress.step == progress.steps or now_s - self._last_report_s >= REPORT_INTERVAL_S:
            self._last_report_s = now_s
            self._write({"progress": progress.as_json()})

    def trained(self, result: TrainingResult) -> None:
        self._write({"trained": {"artefact": result.artefact.name, "metrics": result.metrics}})

    def failed(self, reason: str) -> None:
        self._write({"failed": reason})

    def _write(self, value: dict[str, Any]) -> None:
        self._lines.write(json.dumps(value) + "\n")


@dataclass(frozen=True)
class _Opened:
    """A model, and the folder of its file."""

    model: Model
    folder: Path | None


def write_metrics(path: Path, model: Model, seed: int, dataset: Dataset | None, metrics: dict[str, float]) -> None:
    """Writes the document that is kept beside the artefact. It holds no time and no path, so that it is repeatable."""
    data = None if dataset is None else {"examples": len(dataset), "sha256": dataset.digest()}
    value = {"model": model.name, "seed": seed, "dataset": data, "metrics": metrics}
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")


def _parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Trains one model. The server starts this; by hand, use try_model.")
    parser.add_argument("model")
    parser.add_argument("--outcome", type=int, required=True, metavar="DESCRIPTOR", help="where the JSON lines go")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dataset", type=Path, help="folder, or file of records, with the examples")
    parser.add_argument("--reading", type=json.loads, metavar="JSON", help="how a file is read")
    parser.add_argument("--models-dir", type=Path, default=default_folder(), help="folder of the user's own models")
    parser.add_argument("--package", type=Path, help="folder of the package that the model is")
    parser.add_argument("--out", type=Path, required=True, help="existing folder for the artefact and metrics.json")
    parser.add_argument("--die-with-parent", type=int, metavar="PID", help="exit when process PID does")
    return parser.parse_args(words)


def _open(arguments: argparse.Namespace) -> _Opened:
    """Raises TrainingError, and PackageError for a package that is no model."""
    if arguments.package is not None:
        opened = open_package(arguments.package, arguments.model)
        return _Opened(opened.model, arguments.package / FILES)
    # Not at the top: a package's environment may lack what the predefined models import.
    from .models import registry
    from .user_models import discover

    predefined = registry()
    if arguments.model in predefined:
        return _Opened(predefined[arguments.model], None)
    model = discover(arguments.models_dir, predefined).models.get(arguments.model)
    if model is None:
        raise TrainingError(f"model {arguments.model!r} no longer exists: was its file changed?")
    return _Opened(model, Path(inspect.getfile(type(model))).parent)


def main(words: Sequence[str]) -> int:
    arguments = _parse(words)
    if arguments.die_with_parent:
        die_with_parent(arguments.die_with_parent)
    out, file = _OutcomeWriter(arguments.outcome), None
    try:
        opened = _open(arguments)
        model = opened.model
        if model.reproducible:
            one_thread_per_library()
        file = inspect.getsourcefile(type(model)) if opened.folder else None
        options = ReadOptions.of_json(arguments.reading)
        dataset = Dataset.open(arguments.dataset, options) if arguments.dataset else None
        result = train_model(model, arguments.out, arguments.seed, dataset, out.progress, opened.folder)
        write_metrics(arguments.out / METRICS_FILE, model, arguments.seed, dataset, result.metrics)
    except (MissingPackageError, DatasetError, TrainingError, PackageError, OSError) as error:
        out.failed(str(error))
        return 1
    except BaseException as error:  # sys.exit, too
        failure = model_failure(error, file)
        print(failure.traceback, file=sys.stderr)  # the model's author finds it in the log
        out.failed(failure.message)
        return 1
    out.trained(result)
    return 0
