"""Trains one model in a process of its own: `python -m idunno_model_server.train MODEL --seed N --out DIR`.

The server starts it, so that scikit-learn and onnx (a hundred megabytes and more) never live in the server, and so that
a training that runs out of memory ends itself alone. It prints JSON lines: any number of {"progress": {...}}, and as
the last one {"trained": {"artefact": FILE NAME, "metrics": {...}}}, or {"failed": REASON} with exit code 1. What a
model's own code prints goes to the error output.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from .errors import DatasetError, MissingPackageError
from .models import Model, registry
from .plugins import default_folder, discover
from .process import die_with_parent, one_thread_per_library
from .trainer import train_model
from .training_data import Dataset
from .training_run import Progress

METRICS_FILE = "metrics.json"
REPORT_INTERVAL_S = 0.1


class Reporter:
    """Writes progress, at most ten lines a second, and the last step always."""

    def __init__(self) -> None:
        # The lines are for the server alone: from here on a print() of the model's is no part of them.
        self._lines = os.fdopen(os.dup(1), "w", buffering=1)
        os.dup2(2, 1)
        self._last_s = float("-inf")

    def progress(self, progress: Progress) -> None:
        now_s = time.monotonic()
        if progress.step == progress.steps or now_s - self._last_s >= REPORT_INTERVAL_S:
            self._last_s = now_s
            self.write({"progress": progress.as_json()})

    def write(self, value: dict[str, Any]) -> None:
        self._lines.write(json.dumps(value) + "\n")


def write_metrics(path: Path, model: Model, seed: int, dataset: Dataset | None, metrics: dict[str, float]) -> None:
    """The document that is kept beside the artefact: no time and no place in it, so it is as repeatable."""
    data = None if dataset is None else {"examples": len(dataset), "sha256": dataset.digest()}
    value = {"model": model.name, "seed": seed, "dataset": data, "metrics": metrics}
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")


def place_in(model: Model, error: Exception) -> str:
    """The innermost line of the model's own file that an error came through, or else the innermost of all."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename == inspect.getfile(type(model))]
    frame = (own or frames)[-1]
    return f"{Path(frame.filename).name}, line {frame.lineno}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m idunno_model_server.train", description="Train one model.")
    parser.add_argument("model")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dataset", type=Path, help="folder, .jsonl or .csv file with the examples")
    parser.add_argument("--models-dir", type=Path, default=default_folder(), help="folder of the user's own models")
    parser.add_argument("--out", type=Path, required=True, help="existing folder for the artefact and metrics.json")
    parser.add_argument("--die-with-parent", type=int, metavar="PID", help="end when process PID does")
    arguments = parser.parse_args()
    if arguments.die_with_parent:
        die_with_parent(arguments.die_with_parent)
    one_thread_per_library()
    reporter = Reporter()
    models = registry()
    models |= discover(arguments.models_dir, models).models
    model = models.get(arguments.model)
    if model is None:
        reporter.write({"failed": f"there is no model {arguments.model!r} any more: was its file changed?"})
        return 1
    try:
        dataset = Dataset.open(arguments.dataset) if arguments.dataset else None
        trained = train_model(model, arguments.out, arguments.seed, dataset, reporter.progress)
        write_metrics(arguments.out / METRICS_FILE, model, arguments.seed, dataset, trained.metrics)
    except (MissingPackageError, DatasetError, OSError) as error:
        reporter.write({"failed": str(error)})
        return 1
    except Exception as error:
        traceback.print_exc()  # for the log: the model's author needs all of it
        reporter.write({"failed": f"{type(error).__name__}: {error} ({place_in(model, error)})"})
        return 1
    reporter.write({"trained": {"artefact": trained.artefact.name, "metrics": trained.metrics}})
    return 0


if __name__ == "__main__":
    sys.exit(main())
