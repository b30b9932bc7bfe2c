"""What this machine can do at most, and how near the store's figures come to it: the bounds of scripts/bench.py.

A bound counts only the work that no store with the same promises can leave out, as if all cores did nothing else: each
byte is encrypted where it leaves a process and decrypted where it enters another, hashed once where it must be
checked, copied through a socket, and written. What the disk takes for it alone may be the longer part, and then it is
the bound.

The bounds of small files are those of the moment: for minutes after many files were deleted, ext4 makes new ones slowly
wherever it looks for a place among those. A ratio above 1 says that this was so while the machine was measured: wait,
and run it again.
"""

import json
import subprocess
from pathlib import Path

COPIES = 4
"""The members that hold a file once it is put."""

GIB = 1 << 30
SMALL_BYTES = 20_000


def measure_machine(options, folder):
    """The rates of tests/machine/main.rs, measured in this folder."""
    scratch = folder / "machine"
    scratch.mkdir()
    command = [Path(options.programs, "machine"), "--scratch", scratch]
    done = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def store_bounds(machine, *, encrypted):
    """The most that the store's four figures can be, and what bounds each."""
    put = {
        "processors": _transfer_s(machine, GIB, transfers=COPIES, hashes=COPIES + 1, encrypted=encrypted),
        "disk": COPIES * GIB / 1e6 / machine["disk_write_mb_s"],
    }
    transfer = _transfer_s(machine, GIB, transfers=1, hashes=1, encrypted=encrypted)
    # The holder reads what its put wrote past the page cache. The local file may go past it, too, or into it.
    get_past_cache = {"processors": transfer, "disk": GIB / 1e6 / machine["disk_copy_mb_s"]}
    get_into_cache = {
        "processors": transfer + GIB / 1e6 / machine["cached_write_mb_s"],
        "disk": GIB / 1e6 / machine["disk_read_mb_s"],
    }
    get = min(get_past_cache, get_into_cache, key=lambda seconds: max(seconds.values()))
    small_put = {
        "processors": _transfer_s(machine, SMALL_BYTES, transfers=COPIES, hashes=COPIES + 1, encrypted=encrypted)
        + COPIES / machine["files_created_s"],
        "disk": COPIES / machine["files_durable_s"],
    }
    small_get = {
        "processors": _transfer_s(machine, SMALL_BYTES, transfers=1, hashes=1, encrypted=encrypted)
        + 1 / machine["files_created_s"]
    }
    return {
        "put_1gib_mb_s": _bound(put, GIB / 1e6),
        "get_1gib_mb_s": _bound(get, GIB / 1e6),
        "put_20kb_files_s": _bound(small_put, 1),
        "get_20kb_files_s": _bound(small_get, 1),
    }


def _transfer_s(machine, size, *, transfers, hashes, encrypted):
    """Seconds of all cores for so many transfers of these bytes, and for hashing them so often."""
    megabytes = size / 1e6
    ciphers_s = 2 * transfers * megabytes / machine["aes_gcm_mb_s"] if encrypted else 0.0
    return ciphers_s + hashes * megabytes / machine["blake3_mb_s"] + transfers * megabytes / machine["loopback_mb_s"]


def _bound(seconds, amount):
    """The rate that the slowest part allows: {"rate", "of"}."""
    slowest = max(seconds, key=seconds.get)
    return {"rate": round(amount / seconds[slowest], 1), "of": slowest}


RATIOS = {
    "put": "put_1gib_mb_s",
    "get": "get_1gib_mb_s",
    "small_put": "put_20kb_files_s",
    "small_get": "get_20kb_files_s",
}
"""The entry of each ratio, and the figure that it is of."""


def ratios(figures, bounds):
    """{"put": {"ratio"}, ...}: each figure of the store over its bound."""
    return {entry: {"ratio": round(figures[name] / bounds[name]["rate"], 4)} for entry, name in RATIOS.items()}


def table(figures, bounds):
    """The figures beside their bounds, as lines for people."""
    rows = [("figure", "found", "bound", "ratio", "bound by")]
    for name in RATIOS.values():
        found, bound = figures[name], bounds[name]
        rows.append((name, f"{found:.0f}", f"{bound['rate']:.0f}", f"{found / bound['rate']:.2f}", bound["of"]))
    return "\n".join(f"{row[0]:<18} {row[1]:>8} {row[2]:>8} {row[3]:>6}  {row[4]}" for row in rows)
