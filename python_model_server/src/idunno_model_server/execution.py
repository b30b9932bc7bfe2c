"""How a loaded model is called: in batches of the size that it declares, and on threads of its own if it asks for them.

Whatever a model raises ends here: a RowError fails its row, anything else fails the request as a ModelFailure.

Memory: a batch for which memory runs out is halved until it fits, and so are the next ones, until RECOVERY_BATCHES have
gone well. A batch for which `predict` raises a RowError, instead of returning it, is halved until the row is alone. A
single row for which memory runs out fails the request: with less beside it, or on another machine, it may be
answered.
"""

from __future__ import annotations

import inspect
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from .devices import CPU, resolve_device
from .errors import MemoryShortageError, ModelLoadError, OutputError, RowError
from .json_codec import JSONDecodeError, loads
from .model_threads import ModelThreads, predict
from .models import Model, Runner
from .models.base import Row
from .models.batch_model import is_async
from .parameters import Value, resolve
from .process_memory import MIB, available_bytes, rss_bytes
from .statistics import InferTimes
from .user_code import is_out_of_memory, model_failure

RECOVERY_BATCHES = 32


class BatchSize:
    """The rows of the next batch: `limit`, or less after memory ran out. Threads share it."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._now = limit
        self._good = 0
        self._lock = threading.Lock()

    @property
    def rows(self) -> int:
        return self._now

    def exhausted(self, rows: int) -> None:
        """Memory ran out for a batch of so many rows."""
        with self._lock:
            self._now = max(1, min(self._now, rows // 2))
            self._good = 0

    def succeeded(self) -> None:
        if self._now == self._limit:
            return
        with self._lock:
            self._good += 1
            if self._good >= RECOVERY_BATCHES:
                self._now = min(self._limit, self._now * 2)
                self._good = 0


@dataclass(frozen=True)
class Opening:
    """How a model was opened, for who tries it."""

    load_s: float = 0.0
    canary_s: float = 0.0
    canary: bytes | None = None
    """What it has answered."""


@dataclass(frozen=True)
class Execution:
    """A loaded model, ready to be called."""

    runner: Runner
    file: str | None
    """The model's own, whose lines its failures name."""
    batch: BatchSize
    threads: ModelThreads | None = None
    memory_bytes: int = 0
    """By how much loading it enlarged this process."""
    opening: Opening = Opening()

    def with_parameters(self, parameters: Mapping[str, Value]) -> Execution:
        """For one request. Raises ModelFailure."""
        try:
            return replace(self, runner=self.runner.with_parameters(parameters))
        except BaseException as error:
            raise model_failure(error, self.file) from None

    def answer(self, rows: Sequence[Row], times: InferTimes) -> list[bytes | RowError]:
        """One answer for each row. Raises ModelFailure."""
        try:
            answers = self._answer(rows, times)
        except RowError as error:
            if len(rows) == 1:
                return [error.with_traceback(None)]
        except BaseException as error:
            if len(rows) == 1 or not is_out_of_memory(error):
                raise model_failure(error, self.file) from None
            self.batch.exhausted(len(rows))
        else:
            self.batch.succeeded()
            return answers
        # Out of the handler, which holds the frames of the attempt, and with them its arrays.
        middle = len(rows) // 2
        return self.answer(rows[:middle], times) + self.answer(rows[middle:], times)

    def _answer(self, rows: Sequence[Row], times: InferTimes) -> list[bytes | RowError]:
        runner = self.runner
        start = time.perf_counter_ns()
        errors: dict[int, RowError] = {}
        decoded = []
        for index, row in enumerate(rows):
            try:
                decoded.append(runner.decode(row))
            except RowError as error:
                # Its traceback holds this frame, and with it the request's body, until the cycle is collected.
                errors[index] = error.with_traceback(None)
        decoded_at = time.perf_counter_ns()
        times.add_compute("compute_input", decoded_at - start)
        if not decoded:
            return list(errors.values())
        if self.threads is None:
            outputs = predict(runner.predict_batch, decoded)
        else:
            outputs = self.threads.predict(runner.predict_batch, decoded)
        predicted_at = time.perf_counter_ns()
        times.add_compute("compute_infer", predicted_at - decoded_at)
        answers = [output if isinstance(output, RowError) else self._encode(output) for output in outputs]
        for index, refused in errors.items():  # in ascending order, so each lands where its row was
            answers.insert(index, refused)
        times.add_compute("compute_output", time.perf_counter_ns() - predicted_at)
        return answers

    def _encode(self, output: object) -> bytes | RowError:
        try:
            encoded: object = self.runner.encode(output)
        except RowError as error:
            return error.with_traceback(None)
        if not isinstance(encoded, bytes):
            raise OutputError(f"encode returned {type(encoded).__name__}, not bytes")
        return encoded


def open_model(model: Model, artefact: Path) -> Execution:
    """Loads an artefact, and has it answer the model's canary: alone, and twice in one batch if it answers batches.

    Raises ModelFailure, ModelLoadError, and MemoryShortageError.
    """
    kind = type(model)
    file = inspect.getsourcefile(kind)
    if resolve_device(kind.device) == CPU:
        _require_memory(model)
    before = rss_bytes()
    threads = ModelThreads(model.name, kind.concurrency, is_async=is_async(kind)) if kind.concurrency else None
    start_s = time.perf_counter()
    try:
        runner: object = threads.run(model.load, artefact) if threads else model.load(artefact)
        if not isinstance(runner, Runner):
            raise ModelLoadError(f"load returned {type(runner).__name__}, not a Runner")
        _require_predict(type(runner))
        runner = runner.with_parameters(resolve(model.name, model.parameters, {}))
        canary: object = model.canary()
    except (ModelLoadError, MemoryShortageError):
        raise
    except BaseException as error:
        raise model_failure(error, file) from None
    if canary is not None and not isinstance(canary, bytes):
        raise ModelLoadError(f"canary returned {type(canary).__name__}, not bytes")
    loaded_s = time.perf_counter()
    size = kind.batch_max if type(runner).answers_batches() else 1
    execution = Execution(runner, file, BatchSize(size), threads)
    if canary is not None:
        _require_answer(execution, canary)
    opening = Opening(loaded_s - start_s, time.perf_counter() - loaded_s, canary)
    return replace(execution, memory_bytes=max(0, rss_bytes() - before), opening=opening)


def _require_memory(model: Model) -> None:
    needed = type(model).memory_mib
    available = available_bytes()
    if needed is not None and available is not None and available < needed * MIB:
        raise MemoryShortageError(f"it needs {needed} MiB of memory, and {available // MIB} MiB are available")


def _require_predict(kind: type[Runner]) -> None:
    if kind.predict is Runner.predict and not kind.answers_batches():
        raise ModelLoadError(f"class {kind.__name__} defines neither predict nor predict_batch")


def _require_answer(execution: Execution, canary: bytes) -> None:
    batches = [[canary], [canary, canary]] if execution.batch.rows > 1 else [[canary]]
    for rows in batches:
        for answer in execution.answer(rows, InferTimes()):
            if isinstance(answer, RowError):
                raise ModelLoadError(f"the canary is refused: {answer}")
            try:
                loads(answer)
            except JSONDecodeError as error:
                raise ModelLoadError(f"encode did not return JSON: {error}") from None
