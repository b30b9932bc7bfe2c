"""The GPUs of this machine, as nvidia-smi reports them, and which of them a model runs on.

A GPU counts if nvidia-smi, as this server's user, can open it, and CUDA_VISIBLE_DEVICES does not hide it. Where there
is no nvidia-smi, none is known, and each runner sees whatever it can (`devices`).

Bounds: nvidia-smi gets ASK_S_MAX, since it can hang with a device; a reading is used for READING_S by who only looks.
"""

from __future__ import annotations

import asyncio
import csv
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from .devices import ASSIGNED, CPU, FIRST_GPU, VISIBLE
from .errors import MemoryShortageError, ModelLoadError
from .models.description import Limits
from .runners.process_family import Families, family_process

PROGRAM = "nvidia-smi"
QUERY = ("--query-gpu=index,uuid,name,memory.total,memory.used", "--format=csv,noheader,nounits")
ASK_S_MAX = 5.0
READING_S = 5.0


@dataclass(frozen=True)
class Place:
    """Where a runner runs."""

    device: str
    """"cpu" or "cuda:INDEX", with the index that nvidia-smi has."""
    variables: Mapping[str, str]
    """Of its process."""


ANYWHERE = Place(CPU, {})
"""Wherever it finds itself, for a server that knows of no GPU."""
ON_CPU = Place(CPU, {VISIBLE: ""})


@dataclass(frozen=True)
class Gpu:
    """A device as of one moment."""

    index: int
    """In the order of the PCI bus."""
    uuid: str
    name: str
    memory_mib: int
    memory_used_mib: int
    reason: str = ""
    """Why models cannot use it."""

    @property
    def free_mib(self) -> int:
        return self.memory_mib - self.memory_used_mib

    def place(self) -> Place:
        """For a process that sees this device alone, as its first. An index would depend on how CUDA counts."""
        variables = {VISIBLE: self.uuid, "CUDA_DEVICE_ORDER": "PCI_BUS_ID", ASSIGNED: FIRST_GPU}
        return Place(f"cuda:{self.index}", variables)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class Gpus:
    """Owned by the event loop."""

    def __init__(self, families: Families) -> None:
        self._families = families
        self._read: list[Gpu] = []
        self._read_s: float | None = None
        self._asking = asyncio.Lock()

    async def read(self, age_s_max: float = READING_S) -> list[Gpu]:
        """What was read last, unless that is older than `age_s_max`. What nvidia-smi cannot tell is as it was."""
        async with self._asking:
            if self._read_s is None or time.monotonic() - self._read_s > age_s_max:
                self._read = await self._ask()
                self._read_s = time.monotonic()
            return self._read

    async def _ask(self) -> list[Gpu]:
        program = shutil.which(PROGRAM)
        if program is None:
            return []
        options = {"stdout": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.DEVNULL}
        try:
            async with family_process(self._families, program, *QUERY, env=os.environ, **options) as process:
                async with asyncio.timeout(ASK_S_MAX):
                    said, _ = await process.communicate()
        except (OSError, TimeoutError) as error:
            print(f"cannot ask {program} for the GPUs: {error or 'it did not answer'}", file=sys.stderr, flush=True)
            return self._read
        return visible(parse(said.decode(errors="replace")), os.environ) if process.returncode == 0 else []


def parse(text: str) -> list[Gpu]:
    """What nvidia-smi prints. A device that does not tell its memory (`[N/A]`) has none that is known, and counts as
    unusable."""
    found = []
    for words in csv.reader(text.splitlines(), skipinitialspace=True):
        if len(words) != 5 or not words[0].isdigit():
            continue
        index, uuid, name, total, used = words
        known = total.isdigit() and used.isdigit()
        reason = "" if known else f"{PROGRAM} does not tell its memory"
        found.append(Gpu(int(index), uuid, name, int(total) if known else 0, int(used) if known else 0, reason))
    return found


def visible(gpus: Sequence[Gpu], environment: Mapping[str, str]) -> list[Gpu]:
    """With the reason at those that CUDA_VISIBLE_DEVICES hides from this server, and so from its runners."""
    text = environment.get(VISIBLE)
    if text is None:
        return list(gpus)
    named = [word.strip() for word in text.split(",")]
    if any(word.startswith("MIG-") for word in named):
        return []  # parts of a device, which are not known here: the runners share what the server was given

    def is_named(gpu: Gpu) -> bool:
        return any(word == str(gpu.index) or (word.startswith("GPU-") and gpu.uuid.startswith(word)) for word in named)

    hidden = f"{VISIBLE} hides it"
    return [gpu if is_named(gpu) or gpu.reason else replace(gpu, reason=hidden) for gpu in gpus]


def places(gpus: Sequence[Gpu], limits: Limits) -> list[Place]:
    """Where a model that wants a GPU runs: on all that have the memory that it declares free, or else on the CPU if it
    can do without. Raises ModelLoadError and MemoryShortageError."""
    usable = [gpu for gpu in gpus if not gpu.reason]
    needed_mib = limits.memory_mib or 0
    fitting = [gpu for gpu in usable if gpu.free_mib >= needed_mib]
    if fitting:
        return [gpu.place() for gpu in fitting]
    if limits.device == "auto":
        return [ON_CPU]
    if not usable:
        why = ", ".join(f"GPU {gpu.index}: {gpu.reason}" for gpu in gpus)
        raise ModelLoadError(f'the model declares device = "cuda", but no GPU can be used: {why}')
    freest = max(usable, key=lambda gpu: gpu.free_mib)
    raise MemoryShortageError(
        f"it needs {needed_mib} MiB of a GPU's memory, and the freest, {freest.index} ({freest.name}), has "
        f"{freest.free_mib} MiB free"
    )
