"""Threads of a model's own, for one that declares its concurrency.

`load` and `predict_batch` are called on `concurrency` threads; with 1, which libraries need that keep a context per
thread (CUDA, sqlite), always on the same one. If `predict` is asynchronous, they are called on one thread with an event
loop, on which at most `concurrency` batches run at once. One more thread than that decodes and encodes meanwhile.

The threads end once nobody holds this object: whoever replaces a model need not know which requests still use it.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
import weakref
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from .errors import OutputError
from .outputs import collect, collect_async

T = TypeVar("T")


class ModelThreads:
    """See the module."""

    def __init__(self, name: str, concurrency: int, *, is_async: bool) -> None:
        self.concurrency = concurrency
        self.calls = ThreadPoolExecutor(concurrency + 1, thread_name_prefix=f"{name}-calls")
        """Decode, wait for the model, encode."""
        self._model = _ModelLoop(name, concurrency) if is_async else _ModelPool(name, concurrency)

    def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """Calls a function of the model, and raises what it raises."""
        return self._model.run(function, *arguments)

    def predict(self, function: Callable[[list[Any]], Any], decoded: list[Any]) -> list[Any]:
        """Calls `predict_batch` and collects its outputs. Raises what it raises, and OutputError for a wrong number."""
        return self._model.predict(function, decoded)


def predict(function: Callable[[list[Any]], Any], decoded: list[Any]) -> list[Any]:
    """Calls `predict_batch` on this thread, where a generator also does its work while it is read.

    Raises OutputError for a wrong number of outputs.
    """
    result = function(decoded)
    if inspect.iscoroutine(result):
        result.close()
        raise OutputError("predict returned a coroutine: declare predict itself as async def")
    return collect(result, len(decoded))


class _ModelPool:
    """Threads for functions that block."""

    def __init__(self, name: str, concurrency: int) -> None:
        self._pool = ThreadPoolExecutor(concurrency, thread_name_prefix=name)

    def run(self, function: Callable[..., T], *arguments: Any) -> T:
        return self._pool.submit(function, *arguments).result()

    def predict(self, function: Callable[[list[Any]], Any], decoded: list[Any]) -> list[Any]:
        return self.run(predict, function, decoded)


class _ModelLoop:
    """One thread with an event loop."""

    def __init__(self, name: str, concurrency: int) -> None:
        self._slots = threading.BoundedSemaphore(concurrency)
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=_run_loop, args=(self._loop,), name=name, daemon=True).start()
        weakref.finalize(self, self._loop.call_soon_threadsafe, self._loop.stop)

    def run(self, function: Callable[..., T], *arguments: Any) -> T:
        async def call() -> T:
            return function(*arguments)

        return self._wait_for(call)

    def predict(self, function: Callable[[list[Any]], Any], decoded: list[Any]) -> list[Any]:
        async def call() -> list[Any]:
            return await collect_async(function(decoded), len(decoded))

        with self._slots:
            return self._wait_for(call)

    def _wait_for(self, call: Callable[[], Awaitable[T]]) -> T:
        """Runs a coroutine on the loop. What it raises must not reach the loop, which SystemExit would end."""

        async def guarded() -> tuple[list[T], BaseException | None]:
            try:
                return [await call()], None
            except BaseException as error:
                return [], error

        results, error = asyncio.run_coroutine_threadsafe(guarded(), self._loop).result()
        if error is not None:
            try:
                raise error
            finally:
                del error  # with its traceback it would be a cycle, which keeps the arrays of the attempt
        return results[0]


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    while True:
        try:
            loop.run_forever()
            break
        except BaseException:  # noqa: S112 - a task that the model itself started raised SystemExit
            continue
    loop.close()
