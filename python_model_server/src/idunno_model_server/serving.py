"""What answers for a loaded version: this process for predefined models, a runner for all others."""

from __future__ import annotations

from typing import Any, Protocol

from .errors import ApiError
from .execution import Execution
from .inference_pool import InferencePool, TensorAnswers
from .open_inference import InferRequest


class Serving(Protocol):
    """One loaded version. Owned by the event loop."""

    @property
    def is_ready(self) -> bool: ...

    @property
    def memory_bytes(self) -> int:
        """What its runner has, or by how much it enlarged this process."""

    async def ready(self) -> None:
        """Waits until it can answer. Raises RunnerError."""

    async def infer(self, request: InferRequest, parameters: dict[str, Any] | None) -> TensorAnswers:
        """Answers all rows. Raises ModelFailure, RunnerError and RunnerNotReadyError."""

    async def restart(self, reason: str) -> None:
        """Ends its process at once, whatever that does, and starts it again."""

    async def end(self) -> None:
        """Frees what it has. Requests that run are finished first."""

    def runners(self) -> list[dict[str, Any]]:
        """Its processes, if it has any of its own."""


class InServer:
    """A version that this process answers for."""

    is_ready = True

    def __init__(self, execution: Execution, pool: InferencePool) -> None:
        self.execution = execution
        self._pool = pool

    @property
    def memory_bytes(self) -> int:
        return self.execution.memory_bytes

    async def ready(self) -> None:
        return

    async def infer(self, request: InferRequest, parameters: dict[str, Any] | None) -> TensorAnswers:
        execution = self.execution.with_parameters(parameters) if parameters else self.execution
        return (await self._pool.infer(execution, request.rows)).tensors()

    async def restart(self, reason: str) -> None:
        raise ApiError(409, "this model has no process of its own: the server would have to be restarted")

    async def end(self) -> None:
        return

    def runners(self) -> list[dict[str, Any]]:
        return []
