"""Runs the rows of infer requests on a fixed number of threads, off the event loop.

Each thread takes one row after the other, from decoding to the encoded answer. Pillow and onnxruntime release the
interpreter lock, so one thread decodes while another runs the network; no queues between stages are needed. Rows run
one at a time because an answer must not depend on the other rows, and because batching inside the image models was
measured to be slower per row.

Requests are served in order of arrival; when one has no rows left to start, idle threads move on to the next.

Bounds: `requests_max` requests at once, including those that wait; more are refused with 503.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from .errors import ApiError, RowError
from .models import Runner
from .open_inference import Row
from .statistics import InferTimes


@dataclass(frozen=True)
class InferResult:
    """One output and one error per row. One of the two is empty: the error if the row was answered, else the output."""

    outputs: list[bytes]
    errors: list[bytes]
    times: InferTimes


class _RowQueue:
    """One request's rows and outcomes. Threads share it: `deque.popleft` is atomic, and each row has its own slot."""

    def __init__(self, runner: Runner, rows: Sequence[Row]) -> None:
        self._runner = runner
        self._pending = deque(enumerate(rows))
        self._arrived_ns = time.perf_counter_ns()
        self._started_ns: int | None = None
        self.outputs = [b""] * len(rows)
        self.errors = [b""] * len(rows)

    def drain(self) -> InferTimes:
        """Takes rows until none is left. An exception in the model ends the whole request."""
        times = InferTimes()
        if self._started_ns is None:
            self._started_ns = time.perf_counter_ns()
            times.queue_ns = self._started_ns - self._arrived_ns
        while self._pending:
            try:
                index, content = self._pending.popleft()
            except IndexError:  # another thread took the last one
                break
            try:
                self._answer(index, content, times)
            except BaseException:
                self.cancel()
                raise
        return times

    def _answer(self, index: int, content: Row, times: InferTimes) -> None:
        start = time.perf_counter_ns()
        try:
            decoded = self._runner.decode(content)
        except RowError as error:
            self.errors[index] = str(error).encode()
            times.compute_ns["compute_input"] += time.perf_counter_ns() - start
            return
        decoded_at = time.perf_counter_ns()
        predicted = self._runner.predict(decoded)
        predicted_at = time.perf_counter_ns()
        self.outputs[index] = self._runner.encode(predicted)
        times.compute_ns["compute_input"] += decoded_at - start
        times.compute_ns["compute_infer"] += predicted_at - decoded_at
        times.compute_ns["compute_output"] += time.perf_counter_ns() - predicted_at

    def cancel(self) -> None:
        """Running rows finish; no further row starts."""
        self._pending.clear()


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

    async def infer(self, runner: Runner, rows: Sequence[Row]) -> InferResult:
        """Answers all rows. Cancelling this ends the request once the rows that are running have finished."""
        queue = _RowQueue(runner, rows)
        loop = asyncio.get_running_loop()
        workers = min(self._threads, len(rows))
        drains = [loop.run_in_executor(self._pool, queue.drain) for _ in range(workers)]
        try:
            parts = await asyncio.gather(*drains)
        except BaseException:
            queue.cancel()
            raise
        total = InferTimes()
        for part in parts:
            total.add(part)
        return InferResult(queue.outputs, queue.errors, total)

    def close(self) -> None:
        """Waits for running rows."""
        self._pool.shutdown(wait=True, cancel_futures=True)
