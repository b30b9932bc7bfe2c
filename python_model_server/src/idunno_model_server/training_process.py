"""Training in a process of its own, as the server sees it. `training_child` runs in the process.

This keeps scikit-learn and onnx, more than a hundred megabytes, out of the server, and a training that runs out of
memory does not take the server down. A package is trained by the Python of its own environment.

A training may take as long as it makes progress: it uses the processor, reads something, writes a line or reports a
step. What it started ends with it, however it ends.

Bounds: IDLE_S_MAX without progress, LINE_BYTES_MAX for a line of its outcome.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from .data_lock import data_directory
from .dialect import AS_FOUND, ReadOptions
from .errors import TrainingError
from .runners.output_tail import OutputTail
from .runners.process_family import Families, descendants, family_process, process_table, read_bytes
from .runners.runner_process import OUTPUT_S_MAX, PROGRESS_S, START, environment_of
from .sandbox import Needs, Sandbox, interpreter_folders
from .training_result import TrainingResult
from .training_run import Progress

IDLE_S_MAX = 900.0
LINE_BYTES_MAX = 64 * 1024
STRAY_S = 0.5
SUMMARY_CHARACTERS_MAX = 300
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class TrainingRequest:
    """A model to train, on a dataset, into a folder."""

    model: str
    seed: int
    dataset: Path | None
    models_dir: Path
    out_dir: Path
    reading: ReadOptions = AS_FOUND
    package: Path | None = None
    """The folder of the package that the model is."""
    python: Path = Path(sys.executable)
    reproducible: bool = True
    network: bool = False
    """Whether the model may use it."""

    def sandbox(self, hidden: Sequence[Path]) -> Sandbox:
        """What its process may use: beside the folder for the artefact, what the model is and the dataset."""
        given = [self.package or self.models_dir, data_directory(), *([self.dataset] if self.dataset else [])]
        needs = Needs(tuple(given), self.network)
        return Sandbox(needs, interpreter_folders(self.python), self.out_dir.resolve(), tuple(hidden), gpus=True)

    def arguments(self) -> list[str]:
        """The command line of the training process, but for its descriptor."""
        words = [self.model, "--seed", str(self.seed), "--out", str(self.out_dir)]
        words += ["--models-dir", str(self.models_dir)]
        if self.package is not None:
            words += ["--package", str(self.package)]
        if self.dataset is not None:
            words += ["--dataset", str(self.dataset), "--reading", json.dumps(self.reading.as_json())]
        if sys.platform == "linux":
            words += ["--die-with-parent", str(os.getpid())]
        return words

    def variables(self, sandbox: Sandbox) -> dict[str, str]:
        variables = {**environment_of(sandbox, self.python), "PYTHONUNBUFFERED": "1"}
        if self.reproducible:
            # The order of sets and of dicts with string keys must not differ between runs.
            return {**variables, "PYTHONHASHSEED": "0"}
        return {name: value for name, value in variables.items() if name not in _THREAD_VARIABLES}


@dataclass
class _Outcome:
    """What the process has told so far."""

    on_progress: Callable[[Progress], None]
    reports: int = 0
    last: dict[str, Any] = field(default_factory=dict)

    async def read(self, descriptor: int) -> None:
        """Reads the lines to the end. Raises TrainingError."""
        reader = asyncio.StreamReader(limit=LINE_BYTES_MAX)
        pipe = os.fdopen(descriptor, "rb", buffering=0)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
        try:
            async for line in reader:
                value = orjson.loads(line)
                progress = value.get("progress")
                if progress is None:
                    self.last = value
                else:
                    self.reports += 1
                    self.on_progress(Progress(progress["step"], progress["steps"], progress["metrics"]))
        except ValueError as error:
            raise TrainingError(f"unreadable output of the training process: {error}") from None
        finally:
            transport.close()


async def train_in_process(
    request: TrainingRequest,
    on_progress: Callable[[Progress], None],
    families: Families,
    output: OutputTail,
    hidden: Sequence[Path] = (),
    idle_s_max: float = IDLE_S_MAX,
) -> TrainingResult:
    """Runs a training to completion. Its process and all that this started have ended then, also if it is cancelled. It
    sees nothing of `hidden` but what it needs. `output` gets what the model prints. Raises TrainingError."""
    outcome = _Outcome(on_progress)
    outcome_read, outcome_write = os.pipe()
    output_read, output_write = os.pipe()
    tasks = [asyncio.create_task(outcome.read(outcome_read)), asyncio.create_task(output.read(output_read))]
    sandbox = request.sandbox(hidden)
    words = [str(request.python), "-P", str(START), "train", *request.arguments(), "--outcome", str(outcome_write)]
    words, variables = sandbox.command(words), request.variables(sandbox)
    options: dict[str, Any] = {"stdout": output_write, "stderr": output_write, "pass_fds": (outcome_write,)}
    try:
        async with family_process(families, *words, env=variables, **options) as process:
            for descriptor in (outcome_write, output_write):
                os.close(descriptor)
            await _wait(process, outcome, output, tasks[0], idle_s_max)
        await asyncio.wait(tasks, timeout=OUTPUT_S_MAX)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    trained = outcome.last.get("trained")
    if trained is None:
        raise TrainingError(outcome.last.get("failed") or _why(process.returncode or 0, output))
    return TrainingResult(request.out_dir / trained["artefact"], trained["metrics"])


async def end_strays(families: Families) -> None:
    """Ends what a training left that is in no family: it has left the session, emptied its environment and lost its
    parent. The second look ends what the first one saw."""
    families.sweep(await asyncio.to_thread(process_table))
    await asyncio.sleep(STRAY_S)
    families.sweep(await asyncio.to_thread(process_table))


async def _wait(
    process: asyncio.subprocess.Process,
    outcome: _Outcome,
    output: OutputTail,
    reading: asyncio.Task[None],
    idle_s_max: float,
) -> None:
    """Waits for the end of the process. Raises TrainingError if it makes no progress, or writes what cannot be read."""

    def progress() -> tuple[int, ...]:
        table = process_table()
        pids = [pid for pid in [process.pid, *descendants(process.pid, table)] if pid in table]
        used = sum(table[pid].cpu_ticks for pid in pids), sum(map(read_bytes, pids))
        return (*used, output.bytes_read, outcome.reports)

    exited = asyncio.create_task(process.wait())
    last, last_s = await asyncio.to_thread(progress), time.monotonic()
    while True:
        # Once its outcome is read to the end there is only the process to wait for.
        waiting = {exited} if reading.done() and not reading.exception() else {exited, reading}
        await asyncio.wait(waiting, timeout=PROGRESS_S, return_when=asyncio.FIRST_COMPLETED)
        if reading.done():
            reading.result()
        if exited.done():
            return
        now, now_s = await asyncio.to_thread(progress), time.monotonic()
        if now != last:
            last, last_s = now, now_s
        elif now_s - last_s > idle_s_max:
            raise TrainingError(f"it made no progress for {idle_s_max:.0f} s: see train in the guide")


def _why(code: int, output: OutputTail) -> str:
    ended = f"exited with code {code}"
    if code < 0:
        names = {number.value: number.name for number in signal.Signals}
        ended = f"was ended by {names.get(-code, f'signal {-code}')}"
        ended += ", probably for lack of memory" if -code == signal.SIGKILL else ""
    lines = output.summary(SUMMARY_CHARACTERS_MAX)
    return f"the training process {ended}" + (f"; its last lines: {lines}" if lines else "")
