"""The baseline for speed: `python -m idunno_model_server.bench_bare MODEL DIR --processes 2 --batch-size 32`.

Bare Python processes share the files of a folder and run the server's decoding and inference on them, without a
server, a network or a scheduler: each takes the next batch of files from a shared counter. The clock runs from the
moment that every process has loaded the model until the last one has no files left.

Rows run one at a time, as in the server, because that is faster; --stacked runs each batch as one tensor.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
from dataclasses import dataclass
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Barrier
from pathlib import Path
from threading import BrokenBarrierError

from .errors import MissingPackageError
from .images import image_files
from .models import Model, Runner, registry
from .os_process import one_thread_per_library
from .repository import load_and_check
from .training_run import train_model

START_S_MAX = 120


@dataclass(frozen=True)
class Workload:
    """The work that the processes share. Each gets a pickled copy."""

    model: Model
    artefact: Path
    files: list[Path]
    batch_size: int
    stacked: bool

    def run_batch(self, runner: Runner, start: int) -> None:
        contents = [path.read_bytes() for path in self.files[start : start + self.batch_size]]
        if self.stacked:
            _run_stacked(runner, contents)
        else:
            for content in contents:
                runner.answer(content)


def _run_stacked(runner: Runner, contents: list[bytes]) -> None:
    """Only for models whose `predict` is an onnxruntime session."""
    import numpy as np

    from .models.imagenet import OnnxRunner

    if not isinstance(runner, OnnxRunner):
        raise TypeError("--stacked works only for the ImageNet models")
    batch = np.concatenate([runner.decode(content) for content in contents])
    for predicted in runner.predict_stacked(batch):
        runner.encode(predicted)


def _work(workload: Workload, next_file: Synchronized[int], barrier: Barrier) -> None:
    """One process: loads, warms up, waits for the others, works, waits again."""
    try:
        runner = load_and_check(workload.model, workload.artefact)
        barrier.wait(START_S_MAX)
        while True:
            with next_file.get_lock():
                start = next_file.value
                next_file.value += workload.batch_size
            if start >= len(workload.files):
                break
            workload.run_batch(runner, start)
        barrier.wait()
    except BaseException:
        barrier.abort()  # otherwise the others would wait for this one forever
        raise


def measure(name: str, files: list[Path], processes: int, batch_size: int, *, stacked: bool) -> float:
    """Seconds from the moment that all processes are ready until all files are answered."""
    model = registry()[name]
    context = multiprocessing.get_context("spawn")  # a fork would share the thread state of the libraries
    barrier = context.Barrier(processes + 1)
    next_file = context.Value("q", 0)
    with tempfile.TemporaryDirectory() as folder:
        artefact = train_model(model, Path(folder)).artefact
        workload = Workload(model, artefact, files, batch_size, stacked)
        workers = [
            context.Process(target=_work, args=(workload, next_file, barrier), daemon=True) for _ in range(processes)
        ]
        for worker in workers:
            worker.start()
        barrier.wait(START_S_MAX)
        start = time.perf_counter()
        barrier.wait()
        seconds = time.perf_counter() - start
        for worker in workers:
            worker.join()
    return seconds


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m idunno_model_server.bench_bare", description="Measure bare processes without any framework."
    )
    parser.add_argument("model", choices=registry())
    parser.add_argument("directory", type=Path, help="folder with the image files")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--stacked", action="store_true", help="run each batch as one tensor instead of row by row")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    arguments = parser.parse_args()
    if arguments.processes < 1 or arguments.batch_size < 1:
        parser.error("--processes and --batch-size must be at least 1")
    one_thread_per_library()
    files = image_files(arguments.directory)
    try:
        seconds = measure(arguments.model, files, arguments.processes, arguments.batch_size, stacked=arguments.stacked)
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
