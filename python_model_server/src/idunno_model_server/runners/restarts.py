"""Whether and when a runner that ended is started again. Pure.

One that answered a request since it was started is started again at once: then a row is at fault rather than the model,
and whoever sends rows isolates it. Otherwise the pauses double, and after FAILURES_MAX ends within WINDOW_S it is given
up, until it is asked for again.
"""

from __future__ import annotations

PAUSE_S_MIN = 0.2
PAUSE_S_MAX = 30.0
FAILURES_MAX = 5
WINDOW_S = 600.0


class Restarts:
    """One runner's."""

    def __init__(self) -> None:
        self.count = 0
        """How often it was started again."""
        self._failed_s: list[float] = []

    def ended(self, now_s: float, *, has_answered: bool) -> float | None:
        """The pause in seconds before it is started again; None if it is given up."""
        if has_answered:
            self._failed_s.clear()
            return 0.0
        self._failed_s = [*(failed_s for failed_s in self._failed_s if failed_s > now_s - WINDOW_S), now_s]
        failures = len(self._failed_s)
        return None if failures >= FAILURES_MAX else min(PAUSE_S_MAX, PAUSE_S_MIN * 2 ** (failures - 1))

    def started(self) -> None:
        self.count += 1

    def asked_for(self) -> None:
        """Somebody wants it although it was given up."""
        self._failed_s.clear()
