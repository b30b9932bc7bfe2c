"""Runs the rows of infer requests in batches, on a fixed number of threads, off the event loop.

Each thread takes one batch after the other, from decoding to the encoded answers. Pillow and onnxruntime release the
interpreter lock, so one thread decodes while another runs the network; no queues between stages are needed. A runner
that does not answer batches gets its rows one at a time, which for the image models was measured to be faster per
row.

Requests are served in order of arrival; when one has no rows left to start, idle threads move on to the next. A model
that declares its concurrency has threads of its own, so a slow one does not keep them from others.

Bounds: `requests_max` requests at once, including those that wait; more are refused with 503.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from .bytes_tensor import Tensor
from .errors import ApiError, RowError
from .execution import Execution
from .models.base import Row
from .statistics import InferTimes
from .user_code import row_reason


@dataclass(frozen=True)
class TensorAnswers:
    """The outputs and errors of all rows, by name: of each row, one of the two is empty."""

    tensors: Mapping[str, Tensor]
    times: InferTimes


@dataclass(frozen=True)
class InferResult:
    """One answer per row: its output, or why it failed."""

    answers: list[bytes | RowError]
    times: InferTimes

    def tensors(self) -> TensorAnswers:
        whole = [answer for answer in self.answers if isinstance(answer, bytes)]
        if len(whole) == len(self.answers):
            return TensorAnswers({"output": whole, "error": [b""] * len(whole)}, self.times)
        outputs = [answer if isinstance(answer, bytes) else b"" for answer in self.answers]
        errors = [b"" if isinstance(answer, bytes) else row_reason(answer) for answer in self.answers]
        return TensorAnswers({"output": outputs, "error": errors}, self.times)


class RowQueue:
    """One request's rows and answers. Threads share it: each takes rows that no other has."""

    def __init__(self, execution: Execution, rows: Sequence[Row]) -> None:
        self.execution = execution
        self.rows = rows
        self._next = 0
        self._lock = threading.Lock()
        self._arrived_ns = time.perf_counter_ns()
        self.answers: list[bytes | RowError] = [b""] * len(rows)

    def drain(self) -> InferTimes:
        """Takes rows until none is left. A failure of the model ends the whole request."""
        times = InferTimes()
        while True:
            with self._lock:
                start = self._next
                end = min(start + self.execution.batch.rows, len(self.rows))
                self._next = max(start, end)
            if start == 0:
                times.queue_ns = time.perf_counter_ns() - self._arrived_ns
            if start >= end:
                return times
            try:
                self.answers[start:end] = self.execution.answer(self.rows[start:end], times)
            except BaseException:
                self.cancel()
                raise

    def cancel(self) -> None:
        """Running batches finish; no further one starts."""
        with self._lock:
            self._next = len(self.rows)


class InferencePool:
    """The threads, and the limit on requests."""

    def __init__(self, threads: int, requests_max: int) -> None:
        self._threads = threads
        self._requests_max = requests_max
        self._requests = 0
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="inference")

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Occupies one of the `requests_max` slots. Entered before the body is read, so that it bounds bodies too."""
        if self._requests >= self._requests_max:
            raise ApiError(503, f"{self._requests} infer requests are already running or waiting", retry_after_s=1)
        self._requests += 1
        try:
            yield
        finally:
            self._requests -= 1

    async def infer(self, execution: Execution, rows: Sequence[Row]) -> InferResult:
        """Answers all rows. Cancelling this ends the request once the batches that are running have finished.

        Raises ModelFailure.
        """
        return await self.answer(RowQueue(execution, rows))

    async def answer(self, queue: RowQueue) -> InferResult:
        """The same for rows that can also be cancelled through their queue. Raises ModelFailure."""
        execution, rows = queue.execution, queue.rows
        loop = asyncio.get_running_loop()
        batches = -(-len(rows) // execution.batch.rows)
        if execution.threads is None:
            pool, threads = self._pool, self._threads
        else:
            pool, threads = execution.threads.calls, execution.threads.concurrency + 1
        drains = [loop.run_in_executor(pool, queue.drain) for _ in range(min(threads, batches))]
        try:
            parts = await asyncio.gather(*drains)
        except BaseException:
            queue.cancel()
            raise
        total = InferTimes()
        for part in parts:
            total.add(part)
        return InferResult(queue.answers, total)

    def close(self) -> None:
        """Waits for running rows."""
        self._pool.shutdown(wait=True, cancel_futures=True)
