"""A loaded version with a runner on each device that it runs on: on each GPU that has room for it, or on the CPU.

Which device a model wants stands in its code or its settings, so the first runner opens the model before that is known.
If it wants a GPU, that one ends, and others start that see one device each.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from ..errors import RunnerError, RunnerNotReadyError
from ..gpus import ANYWHERE, ON_CPU, Gpus, Place, places
from ..inference_pool import TensorAnswers
from ..models.description import ModelDescription
from ..open_inference import InferRequest
from .supervised_runner import SupervisedRunner

NewRunner = Callable[[Place], SupervisedRunner]
"""Makes a runner that has not started yet."""


class Replicas:
    """See the module. Owned by the event loop."""

    def __init__(self, gpus: Gpus, new_runner: NewRunner) -> None:
        self._gpus = gpus
        self._new_runner = new_runner
        self._runners: list[SupervisedRunner] = []

    async def open(self) -> ModelDescription:
        """Raises START_ERRORS, and leaves nothing behind then."""
        gpus = await self._gpus.read(age_s_max=0)
        first = self._new_runner(ON_CPU if gpus else ANYWHERE)
        self._runners = [first]
        about = await (first.open_unless_on_gpu() if gpus else first.open())
        if first.is_ready:
            return about
        self._runners = [self._new_runner(place) for place in places(gpus, about.limits)]
        try:
            opened = await asyncio.gather(*(runner.open() for runner in self._runners), return_exceptions=True)
            for error in opened:
                if isinstance(error, BaseException):
                    raise error
        except BaseException:
            await self.end()  # those that were opened
            raise
        return about

    @property
    def is_ready(self) -> bool:
        return any(runner.is_ready for runner in self._runners)

    @property
    def memory_bytes(self) -> int:
        return sum(runner.memory_bytes for runner in self._runners)

    async def ready(self) -> None:
        """Waits until one runs, and has those that were given up started again. Raises RunnerError if all fail."""
        failed: BaseException = RunnerError("it was unloaded")
        waiting = {asyncio.ensure_future(runner.ready()) for runner in self._runners}
        try:
            while waiting:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    error = task.exception()
                    if error is None:
                        return
                    failed = error
        finally:
            for task in waiting:
                task.cancel()
        raise failed

    async def infer(self, request: InferRequest, parameters: dict[str, Any] | None) -> TensorAnswers:
        """By the runner that has least to do. Raises ModelFailure, RunnerError, and RunnerNotReadyError."""
        ready = [runner for runner in self._runners if runner.is_ready]
        if not ready:
            raise RunnerNotReadyError(next((runner.reason for runner in self._runners), "it was unloaded"))
        return await min(ready, key=lambda runner: runner.requests).infer(request, parameters)

    async def restart(self, reason: str) -> None:
        """Kills all: nobody knows which of them hangs. What they were asked fails."""
        await asyncio.gather(*(runner.restart(reason) for runner in self._runners))

    async def end(self) -> None:
        """Ends all for good, after the requests that run."""
        await asyncio.gather(*(runner.end() for runner in self._runners))

    def runners(self) -> list[dict[str, Any]]:
        return [runner.as_json() for runner in self._runners]
