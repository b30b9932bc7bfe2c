"""What becomes of memory that batches free, counted in page faults and in resident memory of a process of its own."""

from __future__ import annotations

import json
import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left alone")

BATCHES = 50
BATCH_BYTES = 8 << 20

PROGRAM = f"""
import json, resource, sys, threading
from idunno_model_server.freed_memory import keep_freed_memory, return_freed_memory
from idunno_model_server.process_memory import rss_bytes

if sys.argv[1] == "kept":
    keep_freed_memory()

def batches():
    for _ in range({BATCHES}):
        # Of many blocks, as a batch is: one alone would be the kernel's own.
        blocks = [b"x" * 65_536 for _ in range({BATCH_BYTES} // 65_536)]
        del blocks

def run():
    thread = threading.Thread(target=batches)
    thread.start()
    thread.join()

before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
run()
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
batches()
kept = rss_bytes()
return_freed_memory()
print(json.dumps({{"faults": faults, "returned_bytes": kept - rss_bytes()}}))
"""


def measured(how: str) -> dict[str, int]:
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, check=True, text=True)
    found: dict[str, int] = json.loads(done.stdout)
    return found


def test_what_a_batch_frees_is_there_for_the_next_and_returns_when_asked() -> None:
    kept, by_default = measured("kept"), measured("default")
    pages = BATCH_BYTES // 4096
    assert kept["faults"] < 4 * pages, "each batch got its memory from the kernel"
    assert by_default["faults"] > 3 * kept["faults"], "this C library keeps it by itself: nothing is to be done"
    assert kept["returned_bytes"] > BATCH_BYTES / 2
