"""Opens untrusted image files. Whatever a decoder says about hostile bytes becomes one short, plain RowError."""

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
"""About 190 MB decoded. A few kilobytes can announce more pixels than the machine has memory for."""

# Decoders inside Pillow or its bundled libraries. EPS is left out on purpose: it starts an external interpreter.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
ENDINGS = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
ERROR_CHARACTERS_MAX = 120


def image_files(folder: Path) -> list[Path]:
    """The files of a folder that are images by their names, sorted."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in ENDINGS)


@functools.cache
def _pillow() -> ModuleType:
    """Pillow with its own bomb check switched off: it only warns below twice its limit. Ours is exact."""
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None
    return Image


def open_image(content: bytes | memoryview, mode: str) -> PillowImage.Image:
    """Decodes a whole image file into the given Pillow mode ("RGB", "L"). Raises RowError."""
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
        image.load()  # reads the pixels, and so finds a truncated file
        return image if image.mode == mode else image.convert(mode)
    except MemoryError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:ERROR_CHARACTERS_MAX]
        raise RowError(f"damaged image: {reason}") from None


def gradient(side: int, mode: str, image_format: str) -> bytes:
    """A small generated image file, the same bytes every time: what the canaries are made of."""
    buffer = io.BytesIO()
    _pillow().linear_gradient("L").resize((side, side)).convert(mode).save(buffer, image_format)
    return buffer.getvalue()
