"""One core for both faces of the package.

What is done is written once, as a generator whose steps are native operations, or functions that may wait for a disk.
[`drive`] runs the steps for blocking code, [`adrive`] for coroutines.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, TypeVar

from ._native import Operation

if TYPE_CHECKING:
    import asyncio

T = TypeVar("T")
Step = Operation | Callable[[], Any]
Steps = Generator[Step, Any, T]


def drive(steps: Steps[T]) -> T:
    """Runs steps to their end, and waits for each."""
    step = _first(steps)
    while not isinstance(step, _End):
        try:
            value = wait(step) if isinstance(step, Operation) else step()
        except BaseException as error:
            step = _after_error(steps, error)
        else:
            step = _after(steps, value)
    return step.value  # type: ignore[no-any-return]


async def adrive(steps: Steps[T]) -> T:
    """The same for a coroutine: the event loop goes on meanwhile."""
    import asyncio  # Only programs that use coroutines pay for it.

    step = _first(steps)
    while not isinstance(step, _End):
        try:
            value = await awaited(step) if isinstance(step, Operation) else await asyncio.to_thread(step)
        except BaseException as error:
            step = _after_error(steps, error)
        else:
            step = _after(steps, value)
    return step.value  # type: ignore[no-any-return]


def wait(operation: Operation) -> Any:
    """Waits for an operation, which ends if the wait is interrupted."""
    try:
        operation.wait()
    except BaseException:
        operation.cancel()
        raise
    return operation.result()


async def awaited(operation: Operation) -> Any:
    """Awaits an operation, which ends if the coroutine is cancelled."""
    await until_done(operation)
    return operation.result()


async def until_done(operation: Operation, *, is_cancelled: bool = True) -> None:
    """Awaits the end of an operation; `is_cancelled` says whether it ends with the coroutine."""
    import asyncio

    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def wake() -> None:
        # A loop that has ended refuses; nobody awaits this then.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(_set, done)

    operation.when_done(wake)
    try:
        await done
    except asyncio.CancelledError:
        if is_cancelled:
            operation.cancel()
        raise


def _set(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)


class _End:
    def __init__(self, value: Any) -> None:
        self.value = value


def _first(steps: Steps[Any]) -> Step | _End:
    return _after(steps, None)


def _after(steps: Steps[Any], value: Any) -> Step | _End:
    try:
        return steps.send(value)
    except StopIteration as end:
        return _End(end.value)


def _after_error(steps: Steps[Any], error: BaseException) -> Step | _End:
    try:
        return steps.throw(error)
    except StopIteration as end:
        return _End(end.value)
