"""All runners of this server: starts their processes, looks at their memory, and ends what they left behind."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from .process_family import Families, process_table
from .runner_process import RunnerLimits, RunnerProcess

LOOK_S = 1.0
NO_VARIABLES: Mapping[str, str] = MappingProxyType({})


class RunnerHost:
    """Owned by the event loop."""

    def __init__(self, limits: RunnerLimits, families: Families) -> None:
        self.limits = limits
        self._families = families
        self._living: set[RunnerProcess] = set()
        self._looking: asyncio.Task[None] | None = None

    async def start(self, title: str, python: Path, variables: Mapping[str, str] = NO_VARIABLES) -> RunnerProcess:
        """Raises RunnerError."""
        if self._looking is None:
            self._looking = asyncio.create_task(self._look())
        process = await RunnerProcess.start(title, python, self.limits, variables)
        self._living.add(process)
        self._families.add(process.family)
        process.ended.add_done_callback(lambda _reason: self._forget(process))
        return process

    def _forget(self, process: RunnerProcess) -> None:
        self._living.discard(process)
        self._families.discard(process.family)

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            if not self._living:
                continue
            try:
                table = await asyncio.to_thread(process_table)
                leaders = self._families.leaders()
                for process in list(self._living):
                    process.look(table, leaders)
                self._families.sweep(table)
            except Exception as error:  # of this look: the next one may succeed
                print(f"cannot look at the runners: {error!r}", file=sys.stderr, flush=True)

    async def close(self) -> None:
        """Ends all that still run."""
        if self._looking is not None:
            self._looking.cancel()
        await asyncio.gather(*(process.stop() for process in list(self._living)))
