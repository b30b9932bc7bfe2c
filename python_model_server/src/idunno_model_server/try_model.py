"""Tries one model without a server: `python -m idunno_model_server.try_model MODEL [--dataset PATH] [FILE...]`.

Does what a cluster does: trains the model, twice, and compares the artefacts; loads it and checks its canary; answers
the named files, or else the first examples of the dataset.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from .errors import (
    DatasetError,
    MemoryShortageError,
    MissingPackageError,
    ModelFailure,
    ModelLoadError,
    RowError,
    TrainingError,
)
from .execution import Execution, open_model
from .models import Model, registry
from .os_process import one_thread_per_library
from .runners.output_tail import OutputTail
from .runners.process_family import Families
from .statistics import InferTimes
from .training_child import METRICS_FILE
from .training_data import Dataset
from .training_process import TrainingRequest, train_in_process
from .training_run import Progress
from .user_code import row_reason
from .user_models import default_folder, discover

EXAMPLES_SHOWN = 3


@dataclass(frozen=True)
class _Input:
    """An input, and the title that its answer is printed under."""

    title: str
    content: bytes


def _train(model: Model, arguments: argparse.Namespace, out_dir: Path) -> Path:
    """Trains in a separate process, as the server does, and returns the artefact. Raises TrainingError."""

    def print_progress(progress: Progress) -> None:
        print(f"progress: {json.dumps(progress.as_json())}")

    out_dir.mkdir()
    request = TrainingRequest(
        arguments.model,
        arguments.seed,
        arguments.dataset,
        arguments.models_dir,
        out_dir,
        reproducible=model.reproducible,
        network=type(model).network,
    )
    output = OutputTail(lambda line: print(line, file=sys.stderr, flush=True))
    return asyncio.run(train_in_process(request, print_progress, Families(), output)).artefact


def _inputs(arguments: argparse.Namespace) -> list[_Input]:
    if arguments.files:
        return [_Input(str(path), path.read_bytes()) for path in arguments.files]
    if arguments.dataset is None:
        return []
    examples = itertools.islice(Dataset.open(arguments.dataset), EXAMPLES_SHOWN)
    return [_Input(f"label {example.label}", example.content) for example in examples]


def try_model(model: Model, arguments: argparse.Namespace) -> None:
    model.require_sources()
    with tempfile.TemporaryDirectory() as folder:
        artefact = _train(model, arguments, Path(folder) / "first")
        print((artefact.parent / METRICS_FILE).read_text(), end="")
        said = ""
        if model.reproducible:
            again = _train(model, arguments, Path(folder) / "second")
            if artefact.read_bytes() != again.read_bytes():
                raise TrainingError(
                    "two trainings gave different artefacts: derive every random choice from run.seed, or declare "
                    "reproducible = False"
                )
            said = ", identical when trained again"
        print(f"artefact: {artefact.stat().st_size} bytes{said}")
        execution = open_model(model, artefact)
        canary = model.canary()
        inputs = [*([] if canary is None else [_Input("canary", canary)]), *_inputs(arguments)]
        for item, answer in zip(inputs, _answers(execution, [item.content for item in inputs]), strict=True):
            shown = answer.decode() if isinstance(answer, bytes) else f"error: {row_reason(answer).decode()}"
            print(f"{item.title}: {shown}")


def _answers(execution: Execution, rows: list[bytes]) -> list[bytes | RowError]:
    """In batches of the size that the model declares."""
    size = execution.batch.rows
    starts = range(0, len(rows), size)
    return [answer for start in starts for answer in execution.answer(rows[start : start + size], InferTimes())]


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m idunno_model_server.try_model", description="Train, check and query one model without a server."
    )
    parser.add_argument("model")
    parser.add_argument("files", type=Path, nargs="*", help="inputs; by default the dataset's first three examples")
    parser.add_argument("--dataset", type=Path, help="folder, or file of records, with the examples")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--models-dir", type=Path, default=default_folder(), help="folder of your own models")
    arguments = parser.parse_intermixed_args()
    one_thread_per_library()
    models = registry()
    found = discover(arguments.models_dir, models)
    models |= found.models
    for broken in found.broken:
        print(broken, file=sys.stderr)
    if arguments.model not in models:
        print(f"unknown model {arguments.model!r}; known models: {', '.join(models)}", file=sys.stderr)
        return 1
    try:
        try_model(models[arguments.model], arguments)
    except ModelFailure as failure:
        print(f"{failure.traceback}\n{failure}", file=sys.stderr)
        return 1
    except (
        TrainingError,
        ModelLoadError,
        MemoryShortageError,
        MissingPackageError,
        DatasetError,
        ValueError,
        OSError,
    ) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
