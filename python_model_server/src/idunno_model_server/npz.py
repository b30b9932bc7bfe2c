"""Artefacts that are numpy arrays: an .npz without pickles, the same arrays giving the same bytes."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Like numpy.savez, but the entries bear a fixed date instead of the clock's, and all floats have 32 bits."""
    import numpy as np

    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            buffer = io.BytesIO()
            dtype = "<f4" if array.dtype.kind == "f" else array.dtype
            np.lib.format.write_array(buffer, np.ascontiguousarray(array, dtype), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", ZIP_EPOCH), buffer.getvalue())
