"""The yardstick for speed: `python -m idunno_model_server.bare MODEL DIR --processes 2 --batch-size 32`.

Bare Python processes share the files of a directory and do the server's decoding and inference on them, with no
server, no network and no scheduler: each takes the next batch of file names from a shared counter. The clock starts
when every process has loaded its model, and stops when the last one is out of files.

Rows run one at a time, as in the server, because that is the faster form; --stacked runs each batch as one tensor.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Barrier
from pathlib import Path
from threading import BrokenBarrierError

from .errors import MissingPackageError
from .images import image_files
from .models import Model, Runner, registry
from .process import one_thread_per_library
from .repository import load_and_check
from .trainer import train_model

START_S_MAX = 120


def run_rows(runner: Runner, contents: list[bytes]) -> None:
    for content in contents:
        runner.answer(content)


def run_stacked(runner: Runner, contents: list[bytes]) -> None:
    """Only for models whose `predict` is an onnxruntime session."""
    import numpy as np

    from .imagenet import OnnxRunner

    if not isinstance(runner, OnnxRunner):
        raise TypeError("--stacked works for the ImageNet models only")
    batch = np.concatenate([runner.decode(content) for content in contents])
    for predicted in runner.predict_batch(batch):
        runner.encode(predicted)


def work(
    model: Model, artefact: Path, files: list[Path], batch: int, stacked: bool, taken: Synchronized, gate: Barrier
) -> None:
    """One process: load, warm up, meet the others at the gate, work, meet again."""
    try:
        runner = load_and_check(model, artefact)
        run = run_stacked if stacked else run_rows
        gate.wait(START_S_MAX)
        while True:
            with taken.get_lock():
                start = taken.value
                taken.value += batch
            if start >= len(files):
                break
            run(runner, [path.read_bytes() for path in files[start : start + batch]])
        gate.wait()
    except BaseException:
        gate.abort()  # otherwise the others would wait for this one for ever
        raise


def measure(name: str, files: list[Path], processes: int, batch: int, stacked: bool) -> float:
    """Seconds from the moment all processes are ready until all files are answered."""
    model = registry()[name]
    context = multiprocessing.get_context("spawn")  # a fork would share the libraries' thread state
    gate = context.Barrier(processes + 1)
    taken = context.Value("q", 0)
    with tempfile.TemporaryDirectory() as folder:
        artefact = train_model(model, Path(folder)).artefact
        workers = [
            context.Process(target=work, args=(model, artefact, files, batch, stacked, taken, gate), daemon=True)
            for _ in range(processes)
        ]
        for worker in workers:
            worker.start()
        gate.wait(START_S_MAX)
        start = time.perf_counter()
        gate.wait()
        seconds = time.perf_counter() - start
        for worker in workers:
            worker.join()
    return seconds


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m idunno_model_server.bare", description="Measure bare processes without any framework."
    )
    parser.add_argument("model", choices=registry())
    parser.add_argument("directory", type=Path)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--stacked", action="store_true", help="one tensor a batch, instead of row by row")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.processes < 1 or arguments.batch_size < 1:
        parser.error("--processes and --batch-size must be at least 1")
    one_thread_per_library()
    files = image_files(arguments.directory)
    try:
        seconds = measure(arguments.model, files, arguments.processes, arguments.batch_size, arguments.stacked)
    except (MissingPackageError, BrokenBarrierError) as error:
        print(str(error) or "a process failed; its own message is above", file=sys.stderr)
        return 1
    result = {"files": len(files), "seconds": round(seconds, 3), "qps": round(len(files) / seconds, 2)}
    if arguments.json:
        print(json.dumps(result))
    else:
        print(f"{result['files']} files in {result['seconds']} s: {result['qps']} files/s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
