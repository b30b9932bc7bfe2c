"""What the cluster gives bit by bit: the rows of a job, events."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Generic, TypeVar

from ._errors import TimeoutError
from ._native import Operation, Stream
from ._steps import until_done
from ._types import Event, Row

T = TypeVar("T")


class _Reader(Generic[T]):
    """The documents of a stream, which come in chunks."""

    def __init__(self, stream: Stream, parse: Callable[[bytes], list[T]]) -> None:
        self._stream, self._parse = stream, parse
        # The rest of a chunk, or the operation that gives the next one. It is one attribute, so that a signal always
        # finds one of the two: whatever is interrupted, nothing is lost and nothing comes twice.
        self._at: Iterator[T] | Operation = iter(())

    def _started(self) -> Operation:
        if not isinstance(self._at, Operation):
            self._at = self._stream.next()
        return self._at

    def _take(self, operation: Operation) -> bool:
        """Takes the next chunk, which has come. Whether there is one."""
        try:
            lines = operation.result()
        except Exception:
            self._at = iter(())
            raise
        self._at = iter(self._parse(lines) if lines is not None else ())
        return lines is not None


class _Documents(_Reader[T], Iterator[T]):
    """For blocking code."""

    def __iter__(self) -> _Documents[T]:
        return self

    def __next__(self) -> T:
        try:
            while True:
                if not isinstance(self._at, Operation):
                    for document in self._at:
                        return document
                operation = self._started()
                operation.wait()
                if not self._take(operation):
                    raise StopIteration
        except KeyboardInterrupt as interrupt:
            raise self._interrupted(interrupt) from None

    def _interrupted(self, interrupt: KeyboardInterrupt) -> KeyboardInterrupt:
        return interrupt


class Results(_Documents[Row]):
    """The rows of a job. After Ctrl-C the iteration may go on: no row is lost."""

    def __init__(self, stream: Stream, interrupted: Callable[[], KeyboardInterrupt]) -> None:
        super().__init__(stream, rows_of)
        self._explained = interrupted

    def _interrupted(self, interrupt: KeyboardInterrupt) -> KeyboardInterrupt:
        return self._explained()


class Events(_Documents[Event]):
    """Events as they happen, without an end. After Ctrl-C or an error the iteration may go on: no event is lost."""

    def __init__(self, stream: Stream) -> None:
        super().__init__(stream, events_of)

    def get(self, timeout: float | None = None) -> Event:
        """The next event. Raises `TimeoutError` if none has come after `timeout` seconds."""
        if not isinstance(self._at, Operation):
            for event in self._at:
                return event
        if not self._started().wait(timeout):
            raise TimeoutError(f"no event within {timeout} s")
        return next(self)


class _AsyncDocuments(_Reader[T], AsyncIterator[T]):
    """For coroutines."""

    def __aiter__(self) -> _AsyncDocuments[T]:
        return self

    async def __anext__(self) -> T:
        while True:
            if not isinstance(self._at, Operation):
                for document in self._at:
                    return document
            operation = self._started()
            await until_done(operation, is_cancelled=False)
            if not self._take(operation):
                raise StopAsyncIteration


class AsyncResults(_AsyncDocuments[Row]):
    """The rows of a job. A step that is cancelled may be taken again: no row is lost."""

    def __init__(self, stream: Stream) -> None:
        super().__init__(stream, rows_of)


class AsyncEvents(_AsyncDocuments[Event]):
    """Events as they happen, without an end. A step that is cancelled may be taken again: no event is lost."""

    def __init__(self, stream: Stream) -> None:
        super().__init__(stream, events_of)


def rows_of(lines: bytes) -> list[Row]:
    """The rows of a chunk: one JSON object a line.

    >>> rows_of(b'{"query":0,"output":1}\\n{"query":1,"error":"no"}\\n')
    [{'query': 0, 'output': 1}, {'query': 1, 'error': 'no'}]
    """
    # JSON has no line ends within a value. Read as one list, the lines take half the time.
    rows: list[Row] = json.loads(b"[" + lines.rstrip(b"\n").replace(b"\n", b",") + b"]")
    return rows


def events_of(lines: bytes) -> list[Event]:
    """The events of a chunk, without the fields that name their kind.

    >>> events_of(b'{"apiVersion":"idunno/v1","kind":"Event","at_ms":9,"subject":"member","text":"m2 is dead"}\\n')
    [{'at_ms': 9, 'subject': 'member', 'text': 'm2 is dead'}]
    """
    documents = [json.loads(line) for line in lines.splitlines()]
    return [{"at_ms": event["at_ms"], "subject": event["subject"], "text": event["text"]} for event in documents]
