"""Runs the rows of infer calls on a fixed number of threads, off the event loop.

Each thread takes one row after the other, from decoding to the encoded answer. Pillow and onnxruntime let go of the
interpreter lock, so one thread decodes while another is inside the network: that is the overlap, without hand-over
queues. Rows go one at a time because a row's answer must not depend on its neighbours, and because a batch inside
the image models was measured slower per row than single rows.

Calls are served in order of arrival; when one call runs out of rows, freed threads go on with the next.

Bounds: `calls_max` calls at once, waiting ones included; a further one is refused with 503.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from .errors import ApiError, RowError
from .models import Runner
from .protocol import Row
from .statistics import CallTimes


class _Call:
    """One call's rows and outcomes. Threads share it: `deque.popleft` is atomic, each row has its own slot."""

    def __init__(self, runner: Runner, rows: list[Row]) -> None:
        self._runner = runner
        self._pending = deque(enumerate(rows))
        self._arrived_ns = time.perf_counter_ns()
        self._started_ns: int | None = None
        self.outputs = [b""] * len(rows)
        self.errors = [b""] * len(rows)

    def drain(self) -> CallTimes:
        """Takes rows until none is left. An exception of the model ends the whole call."""
        times = CallTimes()
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

    def _answer(self, index: int, content: Row, times: CallTimes) -> None:
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
        """Rows that run are finished, the others are not begun."""
        self._pending.clear()


class InferencePool:
    """The threads, and the door to them."""

    def __init__(self, threads: int, calls_max: int) -> None:
        self._threads = threads
        self._calls_max = calls_max
        self._calls = 0
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="inference")

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Holds one of the `calls_max` places. Taken before the body is read, so that bodies are bounded too."""
        if self._calls >= self._calls_max:
            raise ApiError(503, f"{self._calls} infer calls are running or waiting already", retry_after_s=1)
        self._calls += 1
        try:
            yield
        finally:
            self._calls -= 1

    async def infer(self, runner: Runner, rows: list[Row]) -> tuple[list[bytes], list[bytes], CallTimes]:
        """Outputs, errors and times. Cancelling it stops the call after the rows that are running."""
        call = _Call(runner, rows)
        loop = asyncio.get_running_loop()
        workers = min(self._threads, len(rows))
        drains = [loop.run_in_executor(self._pool, call.drain) for _ in range(workers)]
        try:
            parts = await asyncio.gather(*drains)
        except BaseException:
            call.cancel()
            raise
        total = CallTimes()
        for part in parts:
            total.queue_ns += part.queue_ns
            for name, ns in part.compute_ns.items():
                total.compute_ns[name] += ns
        return call.outputs, call.errors, total

    def close(self) -> None:
        """Waits for rows that run."""
        self._pool.shutdown(wait=True, cancel_futures=True)
