"""What a model's own code raises, turned into something that can be sent and kept.

A model may raise anything, also SystemExit, KeyboardInterrupt or StopIteration, which would end the server or confuse
the event loop; and its messages may be empty, huge, or full of control characters.

Bounds: a message has MESSAGE_CHARACTERS_MAX, a row's reason ROW_REASON_CHARACTERS_MAX, a traceback FRAMES_MAX frames
and TRACEBACK_CHARACTERS_MAX, of which the last are kept, because they name the exception.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import errno
import traceback
from pathlib import Path

from .errors import ModelFailure, RowError

MESSAGE_CHARACTERS_MAX = 200
ROW_REASON_CHARACTERS_MAX = 500
TRACEBACK_CHARACTERS_MAX = 4000
FRAMES_MAX = 20
NO_REASON = "the model gave no reason"

_PACKAGE = Path(__file__).parent
_CALLERS = frozenset(
    map(str, [*_PACKAGE.glob("*.py"), _PACKAGE / "models/base.py", _PACKAGE / "models/batch_model.py"])
)
_CALLER_FOLDERS = (*asyncio.__path__, *concurrent.futures.__path__)
_OUT_OF_MEMORY_TYPES = frozenset(("OutOfMemoryError", "ResourceExhaustedError"))
_OUT_OF_MEMORY_WORDS = (
    "out of memory",
    "resource_exhausted",
    "allocate memory",
    "alloc_failed",
    "bad_alloc",
    "bad allocation",
)


def model_failure(error: BaseException, file: str | None) -> ModelFailure:
    """Describes an exception. `file` is the model's own, whose lines are named rather than those of a library."""
    if isinstance(error, ModelFailure):
        return error
    kind = type(error).__name__
    text = _text(error, MESSAGE_CHARACTERS_MAX)
    place = location(error, file)
    message = (f"{kind}: {text}" if text else kind) + (f" ({place})" if place else "")
    return ModelFailure(message, traceback_of(error), out_of_memory=is_out_of_memory(error))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: Python's, or a device's, as torch, CuPy, JAX, TensorFlow and onnxruntime report it."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, MemoryError) or type(error).__name__ in _OUT_OF_MEMORY_TYPES:
        return True
    if not isinstance(error, RuntimeError) and "onnxruntime" not in type(error).__module__:
        return False
    text = _text(error, 2000).lower()
    return any(words in text for words in _OUT_OF_MEMORY_WORDS)


def row_reason(error: RowError) -> bytes:
    """Why a row failed; never empty, because an empty reason would say that the row was answered."""
    return (_text(error, ROW_REASON_CHARACTERS_MAX) or NO_REASON).encode()


def location(error: BaseException, file: str | None) -> str:
    """The innermost line in the model's own file, or else in a library's, of the exception or of what led to it."""
    for raised in (error, error.__cause__, error.__context__):
        frames = traceback.extract_tb(raised.__traceback__) if raised else traceback.StackSummary()
        own = [frame for frame in frames if frame.filename == file] or _outside_callers(frames)
        if own:
            return f"{Path(own[-1].filename).name}, line {own[-1].lineno}"
    return ""


def traceback_of(error: BaseException) -> str:
    """The traceback from the model's first frame on, without the server's frames that called it."""
    described = traceback.TracebackException.from_exception(error, limit=-FRAMES_MAX)
    part: traceback.TracebackException | None = described
    while part:
        part.stack = traceback.StackSummary.from_list(_outside_callers(part.stack))
        part = part.__cause__ or part.__context__
    text = "".join(described.format())
    if len(text) > TRACEBACK_CHARACTERS_MAX:
        text = "..." + text[-TRACEBACK_CHARACTERS_MAX:]
    return printable(text, keep="\n").rstrip("\n")


def printable(text: str, keep: str = "") -> str:
    """Escapes control characters and lone surrogates: a message must not move the cursor of who reads it."""
    if text.isprintable():
        return text
    return "".join(c if c in keep or c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def _outside_callers(frames: traceback.StackSummary) -> list[traceback.FrameSummary]:
    """The frames from the first one on that does not only lead to the model's code."""
    for index, frame in enumerate(frames):
        if frame.filename not in _CALLERS and not frame.filename.startswith(_CALLER_FOLDERS):
            return frames[index:]
    return []


def _text(error: BaseException, characters_max: int) -> str:
    try:
        text = str(error)
    except Exception:
        return "its message cannot be read"
    # Escapes are longer than what they stand for.
    return printable(text[:characters_max].strip())[:characters_max]
