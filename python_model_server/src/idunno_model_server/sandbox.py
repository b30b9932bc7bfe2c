"""What a process that runs a model's code may use of the machine beside its memory and the processors.

`Sandbox` says what belongs to one process; `rules` adds what every process needs, and decides. `confine` enforces it,
as far as the kernel can (`Isolation`).

Invariants: nothing at or below a hidden folder can be read but what the sandbox itself names; nothing can be written
but the scratch folder, devices, and shared memory, whose names cannot be listed.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from . import confine
from .devices import VISIBLE

READ = confine.EXECUTE | confine.READ_FILE | confine.READ_DIR
WRITE = confine.known_rights(sys.maxsize) & ~(confine.MAKE_CHAR | confine.MAKE_BLOCK)
OPEN_DEVICE = confine.READ_FILE | confine.WRITE_FILE | confine.READ_DIR | confine.TRUNCATE | confine.IOCTL_DEV
SHARE = confine.READ_FILE | confine.WRITE_FILE | confine.TRUNCATE | confine.MAKE_REG | confine.REMOVE_FILE
"""Without READ_DIR: the names of shared memory are random, and who does not know one does not find it."""

PROGRAMS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/opt", "/nix/store", "/gnu/store")
"""With libraries."""
KERNEL = ("/proc", "/sys")
"""What the kernel tells anybody. The memory, environment and files of a process outside it does not."""
DRIVERS_AND_CACHES = ("/run/opengl-driver", "/var/cache/fontconfig", "/var/lib/ghostscript")
SETTINGS = Path("/etc")
"""Of this, what everybody may read."""
NAME_SERVERS = ("/run/systemd/resolve", "/run/resolvconf", "/run/NetworkManager")
"""Where /etc/resolv.conf may lead."""
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - no temporary file is made there by us
DEVICES = tuple(f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom"))
GPUS = ("nvidia*", "dri", "kfd", "dxg")
"""Files and folders in /dev."""
OURS = (Path("/etc/idunno"), Path("/opt/idunno"))
"""Where installations have settings, the secret, and the model server's environment."""

_PYTHON = ("PYTHONPATH", "PYTHONHOME", "PYTHONHASHSEED", "VIRTUAL_ENV")
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
PASSED_ON = frozenset(
    ("PATH", "LANG", "LANGUAGE", "TZ", "LD_LIBRARY_PATH", "LD_PRELOAD", "IDUNNO_MODEL_DATA", *_PYTHON),
)
"""The variables that a model's process inherits: what libraries read."""
FAMILIES_PASSED_ON = (
    *("LC_", "CUDA_", "NVIDIA_", "NCCL_", "HIP_", "HSA_", "ROCR_", "OMP_", "OPENBLAS_", "MKL_", "KMP_", "MALLOC_"),
    *("PYTORCH_", "TORCH_", "TF_CPP_", "TF_ENABLE_", "XLA_", "JAX_"),
)
NETWORK_PASSED_ON = frozenset(
    ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", *_PROXIES, *map(str.upper, _PROXIES)),
)

Listing = Callable[[Path], Iterable[Path]]


@dataclass(frozen=True)
class Needs:
    """What a model's process uses of its own."""

    read: tuple[Path, ...] = ()
    """Files, and folders with all below."""
    network: bool = False


@dataclass(frozen=True)
class Sandbox:
    """What one process may use."""

    needs: Needs
    python: tuple[Path, ...]
    """Where its interpreter and libraries are."""
    scratch: Path
    """The folder that it may write to. Temporary files and caches go there."""
    hidden: tuple[Path, ...] = ()
    """Folders of others, to which nothing of the system's may lead."""
    gpus: bool = False

    def command(self, words: Sequence[str]) -> list[str]:
        """The command that runs `words`, of which the first is a path, within this."""
        if not sys.platform.startswith("linux"):
            return list(words)
        restrictions = confine.encode(rules(self), network=self.needs.network)
        return [sys.executable, "-I", "-S", confine.__file__, restrictions, *words]

    def variables(self, inherited: Mapping[str, str]) -> dict[str, str]:
        """The environment of its process: what the libraries of models read, and nothing that may be a secret."""
        passed_on = PASSED_ON | NETWORK_PASSED_ON if self.needs.network else PASSED_ON
        kept = {
            name: value for name, value in inherited.items() if name in passed_on or name.startswith(FAMILIES_PASSED_ON)
        }
        if "PYTHONPATH" in kept:  # it runs in another folder
            kept["PYTHONPATH"] = os.pathsep.join(map(str, _absolute(kept["PYTHONPATH"])))
        return {**kept, "HOME": str(self.scratch), "TMPDIR": str(self.scratch)}


def rules(
    sandbox: Sandbox,
    children: Listing = lambda folder: sorted(folder.iterdir()),
    everybody_reads: Callable[[Path], bool] = lambda path: _everybody_reads(path),
    devices: Path = Path("/dev"),
) -> list[tuple[str, int]]:
    """The rights of each path."""
    hidden = [*OURS, *sandbox.hidden]
    system = (*PROGRAMS, *KERNEL, *DRIVERS_AND_CACHES, *(NAME_SERVERS if sandbox.needs.network else ()))
    settings = [path for path in _listed(SETTINGS, children) if everybody_reads(path) and not _leads_to(path, hidden)]
    own = (*sandbox.python, *sandbox.needs.read)
    folders = [path for folder in (*map(Path, system), *own) for path in _beside(folder, hidden, children)]
    found = [(str(path), READ) for path in (*folders, *settings)]
    found += [(device, OPEN_DEVICE) for device in DEVICES]
    if sandbox.gpus:
        found += [(str(path), OPEN_DEVICE) for pattern in GPUS for path in sorted(devices.glob(pattern))]
    if not _leads_to(SHARED_MEMORY, hidden):
        found.append((str(SHARED_MEMORY), SHARE))
    return [*found, (str(sandbox.scratch), WRITE)]


def _beside(folder: Path, hidden: Sequence[Path], children: Listing) -> list[Path]:
    """The folder; if something hidden is below it, what it holds beside that."""
    if not _leads_to(folder, hidden):
        return [folder]
    return [child for child in _listed(folder, children) if not _leads_to(child, hidden)]


def _leads_to(path: Path, hidden: Sequence[Path]) -> bool:
    return any(each.is_relative_to(path) for each in hidden)


def _listed(folder: Path, children: Listing) -> list[Path]:
    try:
        return list(children(folder))
    except OSError:
        return []


def _everybody_reads(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    needed = stat.S_IROTH | (stat.S_IXOTH if stat.S_ISDIR(mode) else 0)
    return mode & needed == needed


def may_see_gpus(variables: Mapping[str, str]) -> bool:
    """Whether a process with these variables is to see a GPU."""
    return variables.get(VISIBLE) != ""


def interpreter_folders(python: Path) -> tuple[Path, ...]:
    """Where an interpreter and its libraries are: this one's, or that of an environment made with it."""
    code = Path(__file__).resolve().parent
    base = (Path(sys.base_prefix), Path(sys.base_exec_prefix))
    if python != Path(sys.executable):
        return (python.parent.parent, *base, code)
    return (Path(sys.prefix), *base, code.parent, *_absolute(os.environ.get("PYTHONPATH", "")))


def _absolute(folders: str) -> list[Path]:
    return [Path(folder).absolute() for folder in folders.split(os.pathsep) if folder]


@dataclass(frozen=True)
class Isolation:
    """What can be refused to models on this machine."""

    landlock_abi: int
    seccomp: bool

    @classmethod
    def here(cls) -> Isolation:
        return cls(confine.landlock_abi(), confine.has_seccomp())

    def refused(self) -> dict[str, bool]:
        abi = self.landlock_abi
        return {
            "the files of others": abi > 0,
            "the network": self.seccomp,
            "signals to others": abi >= confine.ABI_SCOPES,
        }

    def as_json(self) -> dict[str, Any]:
        files, network, signals = self.refused().values()
        return {**asdict(self), "files": files, "network": network, "signals": signals}

    def shortcomings(self) -> str | None:
        """What is not refused, for a log; None if all is."""
        allowed = [what for what, is_refused in self.refused().items() if not is_refused]
        if not allowed:
            return None
        has = f"Landlock of ABI {self.landlock_abi}" if self.landlock_abi else "no Landlock"
        return f"this machine's kernel has {has}, and cannot refuse to the code of models: {', '.join(allowed)}"
