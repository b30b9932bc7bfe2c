"""All runners of this server: starts their processes, looks at their memory, and ends what they left behind."""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from ..errors import RunnerError
from ..sandbox import Needs, Sandbox, interpreter_folders, may_see_gpus
from .cgroups import Cgroups
from .process_family import Families, process_table
from .runner_process import RunnerLimits, RunnerProcess

LOOK_S = 1.0
NO_VARIABLES: Mapping[str, str] = MappingProxyType({})


class RunnerHost:
    """Owned by the event loop. Each process has a folder of its own below `scratch`, deleted when it has ended. It sees
    nothing of `hidden` but its own files.
    """

    def __init__(
        self,
        limits: RunnerLimits,
        families: Families,
        scratch: Path,
        hidden: Sequence[Path] = (),
        cgroups: Cgroups | None = None,
    ) -> None:
        shutil.rmtree(scratch, ignore_errors=True)  # of processes that an earlier server started
        scratch.mkdir(parents=True)
        self.limits = limits
        self._scratch = scratch.resolve()
        self._hidden = tuple(folder.resolve() for folder in hidden)
        self._families = families
        self._cgroups = cgroups or Cgroups(None)
        self._living: set[RunnerProcess] = set()
        self._looking: asyncio.Task[None] | None = None
        self._deleting: set[asyncio.Task[None]] = set()

    async def start(
        self, title: str, python: Path, needs: Needs, variables: Mapping[str, str] = NO_VARIABLES
    ) -> RunnerProcess:
        """`variables` are of this process alone. Raises RunnerError."""
        if self._looking is None:
            self._looking = asyncio.create_task(self._look())
        sandbox = self._new_sandbox(python, needs, variables)
        try:
            process = await RunnerProcess.start(title, python, self.limits, sandbox, variables, self._cgroups)
        except BaseException:
            self._delete(sandbox.scratch)
            raise
        self._living.add(process)
        self._families.add(process.family)
        process.ended.add_done_callback(lambda _reason: self._forget(process, sandbox.scratch))
        return process

    def _new_sandbox(self, python: Path, needs: Needs, variables: Mapping[str, str]) -> Sandbox:
        try:
            scratch = Path(tempfile.mkdtemp(dir=self._scratch))
        except OSError as error:
            raise RunnerError(f"cannot make a folder for its files: {error}") from None
        return Sandbox(needs, interpreter_folders(python), scratch, self._hidden, may_see_gpus(variables))

    def _forget(self, process: RunnerProcess, scratch: Path) -> None:
        self._living.discard(process)
        self._families.discard(process.family)
        self._delete(scratch)

    def _delete(self, scratch: Path) -> None:
        deleting = asyncio.create_task(asyncio.to_thread(shutil.rmtree, scratch, ignore_errors=True))
        self._deleting.add(deleting)
        deleting.add_done_callback(self._deleting.discard)

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
        await asyncio.gather(*self._deleting)
