"""Training in a separate process, both sides: `train_in_process` starts the process, `main` runs in it.

This keeps scikit-learn and onnx, more than a hundred megabytes, out of the server, and a training that runs out of
memory does not take the server down.

The process prints JSON lines: any number of {"progress": {...}}, then one {"trained": {"artefact": FILE NAME,
"metrics": {...}}} or {"failed": REASON}, the latter with exit code 1. What the model's own code prints goes to
standard error, which is the server's.

Bounds: TRAINING_S_MAX per training, LINE_BYTES_MAX per line, ten progress lines a second.
"""

from __future__ import annotations

import argparse
import asyncio
import inspect
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from .data_lock import data_directory
from .dialect import AS_FOUND, ReadOptions
from .errors import DatasetError, MissingPackageError, TrainingError
from .models import Model, registry
from .os_process import die_with_parent, one_thread_per_library
from .runners.process_family import Families, family_process
from .sandbox import Needs, Sandbox, interpreter_folders
from .training_data import Dataset
from .training_result import TrainingResult, train_model
from .training_run import Progress
from .user_code import model_failure
from .user_models import default_folder, discover

TRAINING_S_MAX = 900
LINE_BYTES_MAX = 64 * 1024
REPORT_INTERVAL_S = 0.1
METRICS_FILE = "metrics.json"


@dataclass(frozen=True)
class TrainingRequest:
    """A model to train, on a dataset, into a folder."""

    model: str
    seed: int
    dataset: Path | None
    models_dir: Path
    out_dir: Path
    reading: ReadOptions = AS_FOUND
    network: bool = False
    """Whether the model may use it."""

    def needs(self) -> Needs:
        """Beside the folder for the artefact."""
        dataset = () if self.dataset is None else (self.dataset,)
        return Needs((self.models_dir, data_directory(), *dataset), self.network)

    def arguments(self) -> list[str]:
        """The command line of the training process."""
        words = [self.model, "--seed", str(self.seed), "--out", str(self.out_dir)]
        words += ["--models-dir", str(self.models_dir)]
        if self.dataset is not None:
            words += ["--dataset", str(self.dataset), "--reading", json.dumps(self.reading.as_json())]
        if sys.platform == "linux":
            words += ["--die-with-parent", str(os.getpid())]
        return words


# --- in the server ---


async def train_in_process(
    request: TrainingRequest,
    on_progress: Callable[[Progress], None],
    families: Families,
    hidden: Sequence[Path] = (),
) -> TrainingResult:
    """Runs a training to completion. Its process and all that this started have ended then, also if it is cancelled. It
    sees nothing of `hidden` but what it needs. Raises TrainingError."""
    out_dir = request.out_dir.resolve()
    sandbox = Sandbox(request.needs(), interpreter_folders(Path(sys.executable)), out_dir, tuple(hidden), gpus=True)
    words = sandbox.command([sys.executable, "-m", __name__, *request.arguments()])
    options: dict[str, Any] = {"stdout": asyncio.subprocess.PIPE, "limit": LINE_BYTES_MAX}
    # The order of sets and of dicts with string keys must not differ between runs.
    variables = {**sandbox.variables(os.environ), "PYTHONHASHSEED": "0"}
    async with family_process(families, *words, env=variables, **options) as process:
        if process.stdout is None:
            raise TrainingError("the training process has no standard output")
        try:
            async with asyncio.timeout(TRAINING_S_MAX):
                outcome = await _read_outcome(process.stdout, on_progress)
                await process.wait()
        except TimeoutError:
            raise TrainingError(f"training took longer than {TRAINING_S_MAX} s") from None
    trained = outcome.get("trained")
    if trained is None:
        raise TrainingError(outcome.get("failed") or f"the training process exited with code {process.returncode}")
    return TrainingResult(request.out_dir / trained["artefact"], trained["metrics"])


async def _read_outcome(lines: AsyncIterator[bytes], on_progress: Callable[[Progress], None]) -> dict[str, Any]:
    """The last line; {} if the process ended without one."""
    outcome: dict[str, Any] = {}
    try:
        async for line in lines:
            value = orjson.loads(line)
            progress = value.get("progress")
            if progress is None:
                outcome = value
            else:
                on_progress(Progress(progress["step"], progress["steps"], progress["metrics"]))
    except ValueError as error:
        raise TrainingError(f"unreadable output of the training process: {error}") from None
    return outcome


# --- in the training process ---


class _OutcomeWriter:
    """Writes the lines that the server reads."""

    def __init__(self) -> None:
        # From here on standard output is for these lines alone; a print() in the model's code goes to standard error.
        self._lines = os.fdopen(os.dup(1), "w", buffering=1)
        os.dup2(2, 1)
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


def write_metrics(path: Path, model: Model, seed: int, dataset: Dataset | None, metrics: dict[str, float]) -> None:
    """Writes the document that is kept beside the artefact. It holds no time and no path, so that it is repeatable."""
    data = None if dataset is None else {"examples": len(dataset), "sha256": dataset.digest()}
    value = {"model": model.name, "seed": seed, "dataset": data, "metrics": metrics}
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m idunno_model_server.training_process",
        description="Train one model. The server starts this; to try a model by hand, use try_model.",
    )
    parser.add_argument("model")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dataset", type=Path, help="folder, or file of records, with the examples")
    parser.add_argument(
        "--reading", type=json.loads, metavar="JSON", help="how a file is read: the fields of ReadOptions"
    )
    parser.add_argument("--models-dir", type=Path, default=default_folder(), help="folder of the user's own models")
    parser.add_argument("--out", type=Path, required=True, help="existing folder for the artefact and metrics.json")
    parser.add_argument("--die-with-parent", type=int, metavar="PID", help="exit when process PID does")
    return parser.parse_args()


def main() -> int:
    arguments = _parse_arguments()
    if arguments.die_with_parent:
        die_with_parent(arguments.die_with_parent)
    one_thread_per_library()
    out = _OutcomeWriter()
    models = registry()
    models |= discover(arguments.models_dir, models).models
    model = models.get(arguments.model)
    if model is None:
        out.failed(f"model {arguments.model!r} no longer exists: was its file changed?")
        return 1
    try:
        options = ReadOptions.of_json(arguments.reading)
        dataset = Dataset.open(arguments.dataset, options) if arguments.dataset else None
        result = train_model(model, arguments.out, arguments.seed, dataset, out.progress)
        write_metrics(arguments.out / METRICS_FILE, model, arguments.seed, dataset, result.metrics)
    except (MissingPackageError, DatasetError, TrainingError, OSError) as error:
        out.failed(str(error))
        return 1
    except BaseException as error:  # sys.exit, too
        failure = model_failure(error, inspect.getfile(type(model)))
        print(failure.traceback, file=sys.stderr)  # the model's author finds it in the log
        out.failed(failure.message)
        return 1
    out.trained(result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
