"""What the C library does with the memory that is freed. glibc only; elsewhere these do nothing.

Each batch allocates and frees the same few megabytes. By default glibc returns them to the kernel, which clears them
before it gives them back, page by page: a tenth of the processor time of a text model.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress

_TRIM_THRESHOLD = -1
_MMAP_THRESHOLD = -3

KEPT_BYTES_MAX = 64 << 20
"""What the heap of each thread keeps at its end. Only the main thread's is returned on request."""
HEAP_BYTES_MAX = 32 << 20
"""Larger allocations are the kernel's own, and return to it when they are freed."""


def keep_freed_memory() -> None:
    """Has this process keep what its batches free, for the next ones. Called once, before other threads start."""
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(_TRIM_THRESHOLD, KEPT_BYTES_MAX)
        library.mallopt(_MMAP_THRESHOLD, HEAP_BYTES_MAX)


def return_freed_memory() -> None:
    """Gives the free pages of all heaps back to the kernel: after a model was unloaded, they may be many."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
