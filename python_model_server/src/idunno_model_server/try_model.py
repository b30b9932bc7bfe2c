"""Tries one model without a server: `python -m idunno_model_server.try_model MODEL [--dataset PATH] [FILE...]`.

It does what a cluster will: trains, trains again and compares the bytes, loads, asks the canary, and answers the named
files, or the first examples of the data set.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import sys
import tempfile
from pathlib import Path

from .errors import DatasetError, MissingPackageError, RowError
from .models import Model, registry
from .plugins import default_folder, discover
from .process import one_thread_per_library
from .repository import load_and_check
from .train import METRICS_FILE
from .training_data import Dataset
from .training_process import Order, TrainingError, train_in_process

ANSWERS = 3


def train_apart(arguments: argparse.Namespace, out: Path) -> Path:
    """Trains in a process of its own, as the server does. Raises TrainingError."""
    out.mkdir()
    order = Order(arguments.model, arguments.seed, arguments.dataset, arguments.models_dir, out)
    trained = asyncio.run(train_in_process(order, lambda progress: print(f"progress: {json.dumps(progress)}")))
    return out / trained["artefact"]


def try_model(model: Model, arguments: argparse.Namespace) -> None:
    model.require_sources()
    with tempfile.TemporaryDirectory() as folder:
        artefact = train_apart(arguments, Path(folder) / "one")
        again = train_apart(arguments, Path(folder) / "two")
        if artefact.read_bytes() != again.read_bytes():
            raise ValueError("trained twice, two artefacts: take every random choice from run.seed")
        print((artefact.parent / METRICS_FILE).read_text(), end="")
        print(f"artefact: {artefact.stat().st_size} bytes, the same when trained again")
        runner = load_and_check(model, artefact)
        print(f"canary: {runner.answer(model.canary()).decode()}")
        if arguments.files:
            inputs = [(str(path), path.read_bytes()) for path in arguments.files]
        else:
            examples = Dataset.open(arguments.dataset) if arguments.dataset else []
            inputs = [(f"label {row.label}", row.content) for row in itertools.islice(examples, ANSWERS)]
        for name, content in inputs:
            try:
                print(f"{name}: {runner.answer(content).decode()}")
            except RowError as error:
                print(f"{name}: error: {error}")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m idunno_model_server.try_model", description="Train, check and ask one model without a server."
    )
    parser.add_argument("model")
    parser.add_argument("files", type=Path, nargs="*", help="inputs; without any, the data set's first three examples")
    parser.add_argument("--dataset", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--models-dir", type=Path, default=default_folder())
    arguments = parser.parse_intermixed_args()
    one_thread_per_library()
    models = registry()
    found = discover(arguments.models_dir, models)
    models |= found.models
    for broken in found.broken:
        print(broken, file=sys.stderr)
    if arguments.model not in models:
        print(f"unknown model {arguments.model!r}: there are {', '.join(models)}", file=sys.stderr)
        return 1
    try:
        try_model(models[arguments.model], arguments)
    except (TrainingError, MissingPackageError, DatasetError, RowError, ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
