"""Runs a program that may use only what rules say: `python -I -S confine.py RESTRICTIONS PROGRAM ARGUMENTS...`.

A process sets the rules for itself and all that it starts, for good; what they do not allow is refused, whatever its
user may do otherwise.

- Landlock has the rules for files, TCP and signals. Its ABI says what can be refused: files from 1 (Linux 5.13), TCP
  from 4 (6.7), signals and abstract sockets from 6 (6.12). Sources: landlock(7), linux/landlock.h.
- seccomp refuses sockets of every family but Unix and netlink to what has no network: Landlock knows TCP alone.
- A process of root keeps what root may do with files, and none of its other privileges.

The program is executed anew, so that nothing of it runs before, neither its interpreter nor what is installed for that.
It inherits a raised OOM score: when memory runs out, the kernel ends it before the server and the member.

This is on the way of every start of a runner, so few modules are imported.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
import sys

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, REMOVE_DIR, REMOVE_FILE = (1 << bit for bit in range(6))
MAKE_CHAR, MAKE_DIR, MAKE_REG, MAKE_SOCK, MAKE_FIFO, MAKE_BLOCK, MAKE_SYM = (1 << bit for bit in range(6, 13))
REFER, TRUNCATE, IOCTL_DEV = (1 << bit for bit in range(13, 16))

ABI_TCP = 4
ABI_SCOPES = 6
OOM_SCORE = 500
"""Of 1,000."""
KEPT_PRIVILEGES = frozenset((0, 1, 2, 3))
"""CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER."""

_FIRST_RIGHTS = (1 << 13) - 1
_LATER_RIGHTS = {2: REFER, 3: TRUNCATE, 5: IOCTL_DEV}
"""By the ABI that they came with."""
_OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
"""What a rule for something other than a folder may have."""
_BIND_AND_CONNECT_TCP = 0b11
_ABSTRACT_SOCKETS_AND_SIGNALS = 0b11

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG = 1
_PATH_BENEATH = 1
_PR_SET_SECCOMP, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 22, 24, 38
_SECCOMP_FILTER = 2
_ARCHITECTURES = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}
"""By machine: the architecture as audit counts it, and the number of the system call `socket`."""
_X32 = 0x40000000
_IO_URING_SETUP = 425


def landlock_abi() -> int:
    """The kernel's; 0 where there is no Landlock."""
    if not sys.platform.startswith("linux"):
        return 0
    return max(0, int(_libc().syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION_FLAG)))


def has_seccomp() -> bool:
    """Whether sockets can be refused here."""
    if not sys.platform.startswith("linux") or os.uname().machine not in _ARCHITECTURES:
        return False
    failed = _libc().prctl(_PR_SET_SECCOMP, _SECCOMP_FILTER, None, 0, 0)  # a kernel that has it looks for the filter
    return bool(failed) and ctypes.get_errno() == errno.EFAULT


def known_rights(abi: int) -> int:
    """All rights of files that an ABI can refuse."""
    return _FIRST_RIGHTS | sum(right for since, right in _LATER_RIGHTS.items() if since <= abi)


def restrict_self(abi: int, rules: list[tuple[str, int]], *, tcp: bool) -> None:
    """Allows this process the rights of each rule at its path and below, TCP if `tcp`, and neither signals nor abstract
    sockets beyond itself and its children: as much of that as the ABI can refuse. A path that cannot be reached gets
    no rule. The process must have one thread, and no new privileges. Raises OSError, and has not restricted it then.
    """
    ruleset = _create_ruleset(abi, tcp=tcp)
    try:
        for path, rights in rules:
            _add_rule(ruleset, path, rights & known_rights(abi))
        _checked("landlock_restrict_self", _libc().syscall(_RESTRICT_SELF, ruleset, 0))
    finally:
        os.close(ruleset)


def _create_ruleset(abi: int, *, tcp: bool) -> int:
    """A kernel takes no fields beyond those of its ABI."""
    fields = [known_rights(abi)]
    if abi >= ABI_TCP:
        fields.append(0 if tcp else _BIND_AND_CONNECT_TCP)
    if abi >= ABI_SCOPES:
        fields.append(_ABSTRACT_SOCKETS_AND_SIGNALS)
    attributes = struct.pack(f"={len(fields)}Q", *fields)
    made = _libc().syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0)
    return _checked("landlock_create_ruleset", made)


def _add_rule(ruleset: int, path: str, rights: int) -> None:
    try:
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(opened).st_mode):
            rights &= _OF_FILES
        if rights:
            attributes = struct.pack("=Qi", rights, opened)
            _checked("landlock_add_rule", _libc().syscall(_ADD_RULE, ruleset, _PATH_BENEATH, attributes, 0))
    finally:
        os.close(opened)


def refuse_sockets() -> None:
    """Refuses this process sockets of other families than Unix and netlink, system calls of other architectures, and
    io_uring, whose sockets no filter sees. It must have no new privileges. Raises OSError."""
    architecture, socket_call = _ARCHITECTURES[os.uname().machine]
    load, equal, at_least, end = 0x20, 0x15, 0x35, 0x06  # linux/bpf_common.h
    allow, refuse = 0x7FFF0000, 0x00050000  # with the error number
    number, of_architecture, first_argument = 0, 4, 16  # offsets in struct seccomp_data
    program = [  # operation, jump if true, jump if false, value
        (load, 0, 0, of_architecture),
        (equal, 0, 8, architecture),
        (load, 0, 0, number),
        (at_least, 6, 0, _X32),
        (equal, 5, 0, _IO_URING_SETUP),
        (equal, 0, 5, socket_call),
        (load, 0, 0, first_argument),
        (equal, 3, 0, 1),  # AF_UNIX
        (equal, 2, 0, 16),  # AF_NETLINK
        (end, 0, 0, refuse | errno.EACCES),
        (end, 0, 0, refuse | errno.ENOSYS),
        (end, 0, 0, allow),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
    filter_program = struct.pack("HP", len(program), ctypes.addressof(code))
    _checked("prctl(PR_SET_SECCOMP)", _libc().prctl(_PR_SET_SECCOMP, _SECCOMP_FILTER, filter_program, 0, 0))


def drop_privileges() -> None:
    """Once it executes a program, this process has nothing more of root's than KEPT_PRIVILEGES, and never gets more."""
    for privilege in set(range(64)) - KEPT_PRIVILEGES:
        _libc().prctl(_PR_CAPBSET_DROP, privilege, 0, 0, 0)  # fails for a user who has none, and beyond the last one
    _checked("prctl(PR_SET_NO_NEW_PRIVS)", _libc().prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


def _checked(what: str, result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")
    return result


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def encode(rules: list[tuple[str, int]], *, network: bool) -> str:
    """RESTRICTIONS: a line for the network, then one for each rule. A path with a line end gets no rule."""
    return "\n".join([str(int(network)), *(f"{rights} {path}" for path, rights in rules if "\n" not in path)])


def main() -> None:
    network, *lines = sys.argv[1].split("\n")
    rules = [(path, int(rights)) for rights, _, path in (line.partition(" ") for line in lines)]
    raise_oom_score(OOM_SCORE)
    drop_privileges()
    abi = landlock_abi()
    if abi > 0:
        restrict_self(abi, rules, tcp=network == "1")
    if network == "0" and has_seccomp():
        refuse_sockets()
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606 - without a shell


def raise_oom_score(score: int) -> None:
    """When memory runs out, the kernel ends processes of high scores first. One that is higher already stays."""
    try:
        with open("/proc/self/oom_score_adj", "r+") as file:  # noqa: PTH123 - pathlib is not imported
            if int(file.read()) < score:
                file.seek(0)
                file.write(str(score))
    except OSError:
        return  # no Linux


if __name__ == "__main__":
    main()
