"""The baseline for speed: `python -m idunno_model_server.bench_bare MODEL DATA --processes 2 --batch-size 32`.

Bare Python processes share the files of a folder, or the lines of a .jsonl file, and run the server's decoding and
inference on them, without a server, a network or a scheduler: each takes the next batch from a shared counter. The
clock runs from the moment that every process has loaded the model until the last one has nothing left.

The model gets what the server would pass to it: whole batches if it answers them, else one row at a time, which for
photos is faster; --stacked runs each batch of photos as one tensor. Of lines, each process parses its own, and writes
its answers as a job does: JSON lines, with the number of the row.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Barrier
from pathlib import Path
from threading import BrokenBarrierError
from typing import IO

import orjson

from .errors import MissingPackageError, RowError
from .execution import Execution, open_model
from .images import image_files
from .models import Model, Runner, registry
from .os_process import one_thread_per_library
from .statistics import InferTimes
from .training_result import train_model
from .user_code import row_reason

START_S_MAX = 120


@dataclass(frozen=True)
class Batch:
    """Rows, and the number of the first."""

    first: int
    contents: list[bytes]


@dataclass(frozen=True)
class FileBatches:
    """The files of a folder in batches."""

    files: list[Path]
    batch_size: int

    @property
    def rows(self) -> int:
        return len(self.files)

    def read(self, number: int) -> Batch | None:
        """None after the last one."""
        first = number * self.batch_size
        files = self.files[first : first + self.batch_size]
        return Batch(first, [path.read_bytes() for path in files]) if files else None


@dataclass(frozen=True)
class LineBatches:
    """The lines of a .jsonl file in batches, which begin at `offsets`; the last offset is the file's end."""

    file: Path
    offsets: list[int]
    batch_size: int
    rows: int

    @classmethod
    def of(cls, file: Path, batch_size: int) -> LineBatches:
        offsets = []
        rows = 0
        with file.open("rb") as lines:
            position = 0
            for line in lines:
                if rows % batch_size == 0:
                    offsets.append(position)
                rows += 1
                position += len(line)
        return cls(file, [*offsets, position], batch_size, rows)

    def read(self, number: int) -> Batch | None:
        """None after the last one."""
        if number + 1 >= len(self.offsets):
            return None
        start = self.offsets[number]
        with self.file.open("rb") as file:
            file.seek(start)
            lines = file.read(self.offsets[number + 1] - start).splitlines()
        return Batch(number * self.batch_size, [orjson.loads(line)["input"].encode() for line in lines])


@dataclass(frozen=True)
class Workload:
    """The work that the processes share. Each gets a pickled copy."""

    model: Model
    artefact: Path
    batches: FileBatches | LineBatches
    stacked: bool
    results: Path
    """The folder for answers to lines, a file for each process."""

    def run(self, execution: Execution, numbers: Iterator[int]) -> None:
        """Runs the batches of these numbers, until one is past the end."""
        with (self.results / f"{multiprocessing.current_process().name}.jsonl").open("wb") as out:
            for number in numbers:
                batch = self.batches.read(number)
                if batch is None:
                    return
                if self.stacked:
                    _run_stacked(execution.runner, batch.contents)
                else:
                    answers = _answers(execution, batch.contents)
                    if isinstance(self.batches, LineBatches):
                        _write(out, batch.first, answers)


def _answers(execution: Execution, contents: list[bytes]) -> list[bytes | RowError]:
    """Passes them to the model as the server does."""
    size = execution.batch.rows
    times = InferTimes()
    starts = range(0, len(contents), size)
    return [answer for start in starts for answer in execution.answer(contents[start : start + size], times)]


def _write(out: IO[bytes], first: int, answers: list[bytes | RowError]) -> None:
    for query, answer in enumerate(answers, first):
        if isinstance(answer, bytes):
            out.write(b'{"query":%d,"output":%b}\n' % (query, answer))
        else:
            out.write(b'{"query":%d,"error":%b}\n' % (query, orjson.dumps(row_reason(answer).decode())))


def _run_stacked(runner: Runner, contents: list[bytes]) -> None:
    """Only for models whose `predict` is an onnxruntime session."""
    import numpy as np

    from .models.imagenet import OnnxRunner

    if not isinstance(runner, OnnxRunner):
        raise TypeError("--stacked works only for the ImageNet models")
    batch = np.concatenate([runner.decode(content) for content in contents])
    for predicted in runner.predict_stacked(batch):
        runner.encode(predicted)


def _work(workload: Workload, next_batch: Synchronized[int], barrier: Barrier) -> None:
    """One process: loads, warms up, waits for the others, works, waits again."""

    def numbers() -> Iterator[int]:
        while True:
            with next_batch.get_lock():
                number = next_batch.value
                next_batch.value += 1
            yield number

    try:
        execution = open_model(workload.model, workload.artefact)
        barrier.wait(START_S_MAX)
        workload.run(execution, numbers())
        barrier.wait()
    except BaseException:
        barrier.abort()  # otherwise the others would wait for this one forever
        raise


def measure(name: str, batches: FileBatches | LineBatches, processes: int, *, stacked: bool) -> float:
    """Seconds from the moment that all processes are ready until all rows are answered."""
    model = registry()[name]
    context = multiprocessing.get_context("spawn")  # a fork would share the thread state of the libraries
    barrier = context.Barrier(processes + 1)
    next_batch = context.Value("q", 0)
    with tempfile.TemporaryDirectory() as folder:
        artefact = train_model(model, Path(folder)).artefact
        workload = Workload(model, artefact, batches, stacked, Path(folder))
        workers = [
            context.Process(target=_work, args=(workload, next_batch, barrier), daemon=True) for _ in range(processes)
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
    parser.add_argument("data", type=Path, help='folder with image files, or .jsonl file with {"input": TEXT} lines')
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--stacked", action="store_true", help="run each batch as one tensor instead of row by row")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    arguments = parser.parse_args()
    if arguments.processes < 1 or arguments.batch_size < 1:
        parser.error("--processes and --batch-size must be at least 1")
    one_thread_per_library()
    batches: FileBatches | LineBatches
    if arguments.data.suffix == ".jsonl":
        batches, things = LineBatches.of(arguments.data, arguments.batch_size), "rows"
    else:
        batches, things = FileBatches(image_files(arguments.data), arguments.batch_size), "files"
    try:
        seconds = measure(arguments.model, batches, arguments.processes, stacked=arguments.stacked)
    except (MissingPackageError, BrokenBarrierError) as error:
        print(str(error) or "a process failed; its own message is above", file=sys.stderr)
        return 1
    result = {things: batches.rows, "seconds": round(seconds, 3), "qps": round(batches.rows / seconds, 2)}
    if arguments.json:
        print(json.dumps(result))
    else:
        print(f"{batches.rows} {things} in {result['seconds']} s: {result['qps']} {things}/s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
