"""Opens untrusted image files. Any decoder error becomes a short RowError."""

from __future__ import annotations

import functools
import io
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from .errors import RowError

if TYPE_CHECKING:
    from PIL import Image as PillowImage

MAX_PIXELS = 64 * 1024 * 1024
"""About 190 MB decoded. A file of a few kilobytes can announce more pixels than fit into memory."""

# Decoders inside Pillow or its bundled libraries. EPS is left out because it starts an external interpreter.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
ERROR_CHARACTERS_MAX = 120


def image_files(folder: Path) -> list[Path]:
    """The files of a folder whose suffix is that of an image, sorted."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)


@functools.cache
def _pillow() -> ModuleType:
    """Pillow without its own decompression-bomb check, which only warns below twice its limit. MAX_PIXELS is exact."""
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None
    return Image


def open_image(content: bytes | memoryview, mode: str) -> PillowImage.Image:
    """Decodes a whole image file to a Pillow mode, "RGB" or "L". Raises RowError."""
    pillow = _pillow()
    if not len(content):
        raise RowError("empty file")
    try:
        image = pillow.open(io.BytesIO(content), formats=FORMATS)
    except MemoryError:  # the machine's fault, not the row's
        raise
    except Exception:
        raise RowError("not an image file") from None
    pixels = image.width * image.height
    if pixels > MAX_PIXELS:
        raise RowError(f"image has {pixels} pixels, at most {MAX_PIXELS} are allowed")
    try:
        image.load()  # decodes all pixels, and so detects a truncated file
        converted: PillowImage.Image = image if image.mode == mode else image.convert(mode)
        return converted
    except MemoryError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:ERROR_CHARACTERS_MAX]
        raise RowError(f"damaged image: {reason}") from None


def gradient(side: int, mode: str, image_format: str) -> bytes:
    """A small generated image file for canaries, the same bytes every time."""
    buffer = io.BytesIO()
    _pillow().linear_gradient("L").resize((side, side)).convert(mode).save(buffer, image_format)
    return buffer.getvalue()
