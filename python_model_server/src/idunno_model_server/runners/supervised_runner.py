"""A loaded version that a runner answers for: started again when it ends, until it is unloaded or given up."""

from __future__ import annotations

import asyncio
import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import Any

from ..devices import UNLESS_ON_GPU
from ..errors import MemoryShortageError, ModelFailure, ModelLoadError, PackageError, RunnerError, RunnerNotReadyError
from ..gpus import ANYWHERE, Place
from ..inference_pool import TensorAnswers
from ..models.description import ModelDescription
from ..open_inference import InferRequest
from ..sandbox import Needs
from .host import RunnerHost
from .restarts import Restarts
from .runner_process import RunnerProcess

START_ERRORS = (ModelFailure, ModelLoadError, MemoryShortageError, PackageError, RunnerError)


class RunnerState(StrEnum):
    """As shown in JSON."""

    RUNNING = "running"
    RESTARTING = "restarting"
    FAILED = "failed"
    """Given up, until somebody loads the version again."""


class SupervisedRunner:
    """See the module. Owned by the event loop."""

    def __init__(
        self,
        host: RunnerHost,
        title: str,
        python: Path,
        source: dict[str, Any],
        needs: Needs,
        place: Place = ANYWHERE,
    ) -> None:
        self.state = RunnerState.RESTARTING
        self.reason = ""
        """Why its last process ended."""
        self.lines: list[str] = []
        """The last lines of that."""
        self.process: RunnerProcess | None = None
        """None while it does not run."""
        self._host = host
        self._title = title
        self._python = python
        self._source = source
        self._needs = needs
        self._place = place
        self._restarts = Restarts()
        self._wanted = asyncio.Event()
        self._settled = asyncio.Event()
        """It runs, or has failed."""
        self._keeping: asyncio.Task[None] | None = None

    async def open(self) -> ModelDescription:
        """Starts it for the first time. Raises START_ERRORS, and leaves nothing behind then."""
        process, about = await self._open_process()
        self._run(process)
        self._keeping = asyncio.create_task(self._keep(process))
        return about

    async def open_unless_on_gpu(self) -> ModelDescription:
        """Starts it for the first time, but not for a model that wants a GPU: then it does not run. Raises
        START_ERRORS, and leaves nothing behind then."""
        process, about = await self._open_process(UNLESS_ON_GPU)
        if process.device is None:
            await process.kill("it wants a GPU")
            return about
        self._run(process)
        self._keeping = asyncio.create_task(self._keep(process))
        return about

    async def check(self) -> ModelDescription:
        """Opens the model without loading it, in a process that ends at once. Raises START_ERRORS."""
        process = await self._start()
        try:
            return await process.open({**self._source, "load": False})
        finally:
            process.tell_to_end("it was checked")

    async def _start(self) -> RunnerProcess:
        return await self._host.start(self._title, self._python, self._needs, self._place.variables)

    async def _open_process(self, load: bool | str = True) -> tuple[RunnerProcess, ModelDescription]:
        process = await self._start()
        try:
            return process, await process.open({**self._source, "load": load})
        except BaseException:
            self.lines = list(process.output.lines)
            process.tell_to_end("it was not loaded")
            raise

    def _run(self, process: RunnerProcess) -> None:
        self.process = process
        self.state = RunnerState.RUNNING
        self._settled.set()
        # Called before whoever waits for an answer hears of the end, and asks again.
        process.ended.add_done_callback(lambda _reason: self._stopped(process))

    def _stopped(self, process: RunnerProcess) -> None:
        if self.process is process:
            self.process = None
            self.reason = process.ended.result()
            self.state = RunnerState.RESTARTING
            self._settled.clear()

    async def _keep(self, process: RunnerProcess) -> None:
        """Starts it again whenever it ends."""
        reason, has_answered = await asyncio.shield(process.ended), process.has_answered
        self.lines = list(process.output.lines)
        while True:
            pause_s = self._down(reason, self._restarts.ended(time.monotonic(), has_answered=has_answered))
            if pause_s is None:
                await self._wanted.wait()
                self._restarts.asked_for()
            else:
                await asyncio.sleep(pause_s)
            try:
                process, _ = await self._open_process()
            except START_ERRORS as error:
                reason, has_answered = str(error), False
                continue
            self._restarts.started()
            self._run(process)
            reason, has_answered = await asyncio.shield(process.ended), process.has_answered
            self.lines = list(process.output.lines)

    def _down(self, reason: str, pause_s: float | None) -> float | None:
        self.reason = reason
        self._wanted.clear()
        if pause_s is None:
            self.state = RunnerState.FAILED
            self._settled.set()
            print(f"{self._title}: given up, because {reason}", file=sys.stderr, flush=True)
        else:
            print(f"{self._title}: starting it again in {pause_s:.1f} s, because {reason}", file=sys.stderr, flush=True)
        return pause_s

    @property
    def is_ready(self) -> bool:
        return self.process is not None

    @property
    def memory_bytes(self) -> int:
        return self.process.memory_bytes if self.process else 0

    @property
    def requests(self) -> int:
        """Those that run."""
        return self.process.requests if self.process else 0

    @property
    def device(self) -> str:
        """With the index that nvidia-smi has, if the server chose it."""
        seen = self.process.device if self.process and self._place is ANYWHERE else None
        return seen or self._place.device

    async def ready(self) -> None:
        """Waits until it runs, and has one that was given up started again. Raises RunnerError if it fails."""
        if self.state is RunnerState.FAILED:
            self.state = RunnerState.RESTARTING
            self._settled.clear()
            self._wanted.set()
        await self._settled.wait()
        if self.state is RunnerState.FAILED:
            raise RunnerError(self.reason)

    async def infer(self, request: InferRequest, parameters: dict[str, Any] | None) -> TensorAnswers:
        """Raises ModelFailure, RunnerError, and RunnerNotReadyError."""
        if self.process is None:
            raise RunnerNotReadyError(self.reason)
        return await self.process.infer(request.tensor(), len(request.rows), parameters)

    async def restart(self, reason: str) -> None:
        """Kills it, and lets it start again. What it was asked fails."""
        if self.process is not None:
            await self.process.kill(reason)

    async def end(self) -> None:
        """Ends it for good, after the requests that run."""
        if self._keeping is not None:
            self._keeping.cancel()
        process, self.process = self.process, None
        self.state = RunnerState.FAILED
        if process is not None:
            await process.stop()

    def as_json(self) -> dict[str, Any]:
        process = self.process
        lines = list(process.output.lines) if process else self.lines
        return {
            "state": self.state,
            "pid": process.family.leader if process else None,
            "device": self.device,
            "memory_bytes": self.memory_bytes,
            "restarts": self._restarts.count,
            "reason": self.reason,
            "last_lines": lines,
        }
