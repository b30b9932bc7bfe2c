"""How many calls a server gets at the same time, and when.

Starts with some, adds one for each round that went well, and halves when the server is busy (additive increase,
multiplicative decrease: Chiu and Jain, Analysis of the increase and decrease algorithms, 1989). Waits as long as the
server says.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

IN_FLIGHT_FIRST = 16
HALVED_AGAIN_AFTER_S = 1.0
WAIT_MAX_S = 300.0


class Pace:
    """Shared by all threads that call one server."""

    def __init__(self, in_flight_max: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._max = in_flight_max
        self._limit = min(in_flight_max, IN_FLIGHT_FIRST)
        self._clock = clock
        self._changed = threading.Condition()
        self._active = 0
        self._good = 0
        self._halved_at = float("-inf")
        self._paused_until = float("-inf")

    @property
    def limit(self) -> int:
        return self._limit

    @contextmanager
    def turn(self, deadline: float) -> Iterator[bool]:
        """Waits for a turn until the deadline, a time of the clock; says whether it came."""
        with self._changed:
            came = self._wait(deadline)
            self._active += came
        try:
            yield came
        finally:
            with self._changed:
                self._active -= came
                self._changed.notify()

    def _wait(self, deadline: float) -> bool:
        while True:
            now = self._clock()
            if self._active < self._limit and now >= self._paused_until:
                return True
            if now >= deadline:
                return False
            until = deadline if self._active >= self._limit else min(deadline, self._paused_until)
            self._changed.wait(max(0.0, until - now))

    def went_well(self) -> None:
        with self._changed:
            self._good += 1
            if self._good >= self._limit and self._limit < self._max:
                self._limit, self._good = self._limit + 1, 0
                self._changed.notify()

    def busy(self, wait_s: float) -> None:
        """The server turned a call away, and may be asked again after this long."""
        with self._changed:
            now = self._clock()
            self._good = 0
            if now >= self._halved_at + HALVED_AGAIN_AFTER_S:
                self._limit, self._halved_at = max(1, self._limit // 2), now
            self._paused_until = max(self._paused_until, now + min(wait_s, WAIT_MAX_S))
