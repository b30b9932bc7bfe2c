"""One process of a runner, as the server sees it: from its start to its end.

The end of the process fails what it was asked, with a reason that has its last lines. Before that is told, everything
that it started has ended, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..devices import CPU
from ..errors import RunnerError
from ..execution import Opening
from ..inference_pool import TensorAnswers
from ..models.description import ModelDescription
from ..process_memory import MIB
from ..sandbox import Sandbox
from ..statistics import InferTimes
from .carried_errors import error_of_json
from .cgroups import Cgroups, RunnerGroup
from .frames import READ_AHEAD_BYTES, Frame, FrameError, Part, read_frame, write_frame
from .output_tail import OutputTail
from .process_family import MARK, Family, ProcessEntry, private_bytes, process_table, read_bytes

SUMMARY_CHARACTERS_MAX = 300
STOP_S_MAX = 5.0
OUTPUT_S_MAX = 1.0
PROGRESS_S = 1.0
_SECONDS = ("load_s", "canary_s")
START = Path(__file__).with_name("start_child.py")


@dataclass(frozen=True)
class RunnerLimits:
    """What runners may take."""

    threads: int
    """Rows that run at once, for a model that does not declare its concurrency."""
    answer_bytes_max: int = 1024 * MIB
    idle_start_s_max: float = 300.0
    """How long a model may take to load without using the processor, reading anything or writing a line."""
    start_s_max: float = 7200.0
    cancelled_s_max: float = 60.0
    """How long the batches of a request that nobody waits for may run, beyond what the model declares for a row."""


class RunnerProcess:
    """See the module. Owned by the event loop."""

    def __init__(
        self,
        title: str,
        limits: RunnerLimits,
        family: Family,
        process: asyncio.subprocess.Process,
        sandbox: Sandbox,
        group: RunnerGroup | None,
    ) -> None:
        self.title = title
        self.family = family
        self.has_answered = False
        self.opening = Opening()
        self.device: str | None = None
        """What the loaded model runs on, as its process sees it; None if it is not loaded."""
        self.memory_bytes = 0
        """Of the whole family, as of the last look at it."""
        prefix = f"{title}: " if title else ""
        self.output = OutputTail(lambda line: print(f"{prefix}{line}", file=sys.stderr, flush=True))
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Why it ended."""
        self._limits = limits
        self._process = process
        self._sandbox = sandbox
        self._group = group
        self._numbers = itertools.count(1)
        self._pending: dict[int, asyncio.Future[Frame]] = {}
        self._cancelled: dict[int, asyncio.TimerHandle] = {}
        self._opened: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
        self._told_to_end: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._memory_bytes_max: int | None = None
        self._row_timeout_s = 0.0
        self._writer: asyncio.StreamWriter
        self._attending: asyncio.Task[None]

    @classmethod
    async def start(
        cls,
        title: str,
        python: Path,
        limits: RunnerLimits,
        sandbox: Sandbox,
        variables: Mapping[str, str],
        cgroups: Cgroups,
    ) -> RunnerProcess:
        """`variables` come before those of this process. Raises RunnerError if no process can be started."""
        if not os.access(python, os.X_OK):
            raise RunnerError(f"cannot start {python}: it is no program that this user may run")
        try:
            ours, theirs = socket.socketpair()
            output_read, output_write = os.pipe()
        except OSError as error:
            raise RunnerError(f"cannot start a process: {error}") from None
        mark = secrets.token_hex(8)
        words = [str(python), "-P", str(START), str(theirs.fileno()), str(os.getpid()), str(limits.threads)]
        try:
            process = await asyncio.create_subprocess_exec(
                *sandbox.command(words),
                cwd=sandbox.scratch,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output_write,
                stderr=output_write,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
                env={**environment_of(sandbox, python), **variables, MARK: mark, "PYTHONUNBUFFERED": "1"},
            )
        except OSError as error:
            ours.close()
            os.close(output_read)
            raise RunnerError(f"cannot start {python}: {error}") from None
        finally:
            theirs.close()
            os.close(output_write)
        group = cgroups.new(mark)
        if group is not None:
            group.add(process.pid)
        runner = cls(title, limits, Family(process.pid, mark), process, sandbox, group)
        reader, runner._writer = await asyncio.open_connection(sock=ours, limit=READ_AHEAD_BYTES)
        reading = asyncio.create_task(runner._read_frames(reader))
        output = asyncio.create_task(runner.output.read(output_read))
        runner._attending = asyncio.create_task(runner._attend(reading, output))
        return runner

    async def open(self, source: dict[str, Any]) -> ModelDescription:
        """Opens a model, as `child` describes it. Raises RunnerError, and what CARRIED lists."""
        write_frame(self._writer, {"do": "open", **source})
        last, last_s = self._progress(process_table()), time.monotonic()
        start_s = last_s
        while not (await asyncio.wait({self._opened}, timeout=PROGRESS_S))[0]:
            now_s, progress = time.monotonic(), self._progress(await asyncio.to_thread(process_table))
            if progress != last:
                last, last_s = progress, now_s
            if now_s - last_s > self._limits.idle_start_s_max:
                await self.kill(f"it made no progress for {self._limits.idle_start_s_max:.0f} s while it was loaded")
            elif now_s - start_s > self._limits.start_s_max:
                await self.kill(f"it was not loaded within {self._limits.start_s_max:.0f} s")
        head = self._opened.result().head
        if head["do"] == "refused":
            raise error_of_json(head["error"])
        try:
            about = ModelDescription.of_json(head["model"])
        except (KeyError, TypeError, ValueError) as error:
            raise RunnerError(f"its description of the model cannot be read: {error}") from None
        self.opening = _opening(self._opened.result())
        device = head.get("device")
        self.device = device if isinstance(device, str) else None
        if about.limits.memory_mib is not None and self.device == CPU:
            self._memory_bytes_max = about.limits.memory_mib * MIB
            await asyncio.to_thread(self._limit_memory, self._memory_bytes_max)
        self._row_timeout_s = about.limits.row_timeout_s or 0.0
        return about

    def _limit_memory(self, bytes_max: int) -> None:
        """The kernel's limit is there for what is too fast to be looked at. It counts files that are mapped, too."""
        if self._group is not None:
            self._group.limit_memory(bytes_max + sum(map(_size, self._sandbox.needs.read)))

    def _progress(self, table: dict[int, ProcessEntry]) -> tuple[int, int, int]:
        pids = self.family.members(table)
        return sum(table[pid].cpu_ticks for pid in pids), sum(map(read_bytes, pids)), self.output.bytes_read

    async def infer(self, tensor: Part, rows: int, parameters: dict[str, Any] | None) -> TensorAnswers:
        """Raises ModelFailure and RunnerError. Cancelling this tells the runner."""
        number = next(self._numbers)
        answer: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
        self._pending[number] = answer
        try:
            if self.ended.done() or self._told_to_end.done():
                raise RunnerError(await asyncio.shield(self.ended))
            write_frame(self._writer, {"do": "infer", "id": number, "parameters": parameters}, [tensor])
            frame = await answer
        except asyncio.CancelledError:
            self._cancel(number)
            raise
        finally:
            self._pending.pop(number, None)
        if frame.head["do"] == "failed":
            raise error_of_json(frame.head["error"])
        self.has_answered = True
        return _answers(frame, rows)

    def _cancel(self, number: int) -> None:
        """Nobody waits for this request any more. If it goes on for long, the model hangs."""
        write_frame(self._writer, {"do": "cancel", "id": number})
        seconds = self._limits.cancelled_s_max + self._row_timeout_s
        reason = f"it went on for {seconds:.0f} s with rows that nobody waited for"
        loop = asyncio.get_running_loop()
        self._cancelled[number] = loop.call_later(seconds, self.tell_to_end, reason)

    @property
    def requests(self) -> int:
        """Those that run."""
        return len(self._pending)

    def tell_to_end(self, reason: str) -> None:
        """Has it killed. `ended` tells when it is gone."""
        if not self._told_to_end.done():
            self._told_to_end.set_result(reason)

    async def kill(self, reason: str) -> str:
        """Kills it with everything that it started. Returns the reason that is told."""
        self.tell_to_end(reason)
        return await asyncio.shield(self.ended)

    async def stop(self) -> None:
        """Lets running requests finish, and asks it to end, which lets it clean up; kills it if it does not."""
        if self._pending:
            await asyncio.wait(self._pending.values(), timeout=self._limits.cancelled_s_max + self._row_timeout_s)
        if not self.ended.done():
            write_frame(self._writer, {"do": "end"})
            await asyncio.wait({self.ended}, timeout=STOP_S_MAX)
            await self.kill("it was unloaded")

    def look(self, table: dict[int, ProcessEntry], leaders: set[int]) -> None:
        """Looks at its memory. `leaders` are those of all families."""
        self.memory_bytes = private_bytes(self.family.members(table, leaders))
        limit = self._memory_bytes_max
        if limit is not None and self.memory_bytes > limit:
            used_mib = self.memory_bytes // MIB
            self.tell_to_end(f"it used {used_mib} MiB of memory, and declares memory_mib = {limit // MIB}")

    def _kill_all(self) -> bool:
        """Kills all its processes. Returns whether the kernel had done so for lack of memory."""
        if self._group is None:
            self.family.kill()
            return False
        was_out_of_memory = self._group.was_out_of_memory()
        self._group.kill()
        self.family.kill()  # it also reaps them
        self._group.remove()
        return was_out_of_memory

    async def _read_frames(self, reader: asyncio.StreamReader) -> str | None:
        """Reads what it answers. Returns why it must be ended, or None at the end."""
        try:
            while (frame := await read_frame(reader, self._limits.answer_bytes_max)) is not None:
                self._take(frame)
        except (FrameError, KeyError, TypeError) as error:
            return f"its answer cannot be read: {error}"
        return None

    def _take(self, frame: Frame) -> None:
        if frame.head["do"] in ("opened", "refused"):
            if not self._opened.done():
                self._opened.set_result(frame)
            return
        number = int(frame.head["id"])
        timer = self._cancelled.pop(number, None)
        if timer is not None:
            timer.cancel()
        waiting = self._pending.get(number)
        if waiting is not None and not waiting.done():
            waiting.set_result(frame)

    async def _attend(self, reading: asyncio.Task[str | None], output: asyncio.Task[None]) -> None:
        """Waits for the end, whatever brings it about, and tells of it."""
        exited = asyncio.create_task(self._process.wait())
        causes: list[asyncio.Future[Any]] = [exited, reading, self._told_to_end]
        await asyncio.wait(causes, return_when=asyncio.FIRST_COMPLETED)
        reason = reading.result() if reading.done() else None
        if self._told_to_end.done():
            reason = self._told_to_end.result()
        elif reason is None:  # the socket is closed a little before the process is gone
            await asyncio.wait({exited}, timeout=STOP_S_MAX)
        was_killed = not exited.done()
        was_out_of_memory = await asyncio.to_thread(self._kill_all)
        code = await exited
        await asyncio.wait({output}, timeout=OUTPUT_S_MAX)
        for task in (reading, output):
            task.cancel()
        for timer in self._cancelled.values():
            timer.cancel()
        with contextlib.suppress(Exception):
            self._writer.close()
        if reason is None:
            reason = "it closed its connection" if was_killed else _why(code)
        if was_out_of_memory:
            limit = self._memory_bytes_max
            declared = "" if limit is None else f": it declares memory_mib = {limit // MIB}"
            reason = f"the kernel ended it for lack of memory{declared}"
        lines = self.output.summary(SUMMARY_CHARACTERS_MAX)
        whole = f"{reason}; its last lines: {lines}" if lines else reason
        self.ended.set_result(whole)
        for waiting in [self._opened, *self._pending.values()]:
            if not waiting.done():
                waiting.set_exception(RunnerError(whole))
        self._opened.exception()  # it may be that nobody asks


def _size(path: Path) -> int:
    """The bytes of a file, or of all files below a folder."""
    try:
        files = path.rglob("*") if path.is_dir() else [path]
        return sum(file.stat().st_size for file in files)
    except OSError:
        return 0


def environment_of(sandbox: Sandbox, python: Path) -> dict[str, str]:
    """The variables for a process of a model. Another Python's must not lead it to other packages."""
    variables = sandbox.variables(os.environ)
    if python != Path(sys.executable):
        for name in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"):
            variables.pop(name, None)
    return variables


def _why(code: int) -> str:
    if code >= 0:
        return f"its process exited with status {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"its process was ended by {name}" + (", probably for lack of memory" if -code == signal.SIGKILL else "")


def _opening(frame: Frame) -> Opening:
    load_s, canary_s = (value if isinstance(value, float) else 0.0 for value in map(frame.head.get, _SECONDS))
    return Opening(load_s, canary_s, bytes(frame.body) or None)


def _answers(frame: Frame, rows: int) -> TensorAnswers:
    """Raises RunnerError for an answer that a runner of ours does not give."""
    try:
        length = int(frame.head["output_bytes"])
        times = InferTimes(int(frame.head["times"]["queue_ns"]))
        for name, ns in frame.head["times"]["compute_ns"].items():
            times.add_compute(name, int(ns))
    except (KeyError, TypeError, ValueError) as error:
        raise RunnerError(f"its answer cannot be read: {error}") from None
    if not 0 <= length <= len(frame.body):
        raise RunnerError(f"its answer to {rows} rows is cut off")
    return TensorAnswers({"output": bytes(frame.body[:length]), "error": bytes(frame.body[length:])}, times)
