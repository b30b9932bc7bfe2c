"""Array artefacts: the same content gives the same bytes, and other files are refused."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors import SafetensorError
from safetensors.numpy import save_file

from idunno_model_server.array_artefact import load_arrays, save_arrays
from idunno_model_server.errors import ModelLoadError

LABELS = ("cat", "a dog\nor two", "Österreich")
SAVE = """
import sys
from pathlib import Path
import numpy as np
from idunno_model_server.array_artefact import save_arrays
arrays = {name: np.arange(6.0).reshape(2, 3) for name in sys.argv[2:]}
save_arrays(Path(sys.argv[1]), arrays, ["x", "y"])
"""


def test_arrays_and_labels_are_restored(tmp_path: Path) -> None:
    weights = np.arange(6, dtype="f8").reshape(2, 3)
    save_arrays(tmp_path / "model", {"weights": weights.T, "bias": np.zeros(2)}, LABELS)
    loaded = load_arrays(tmp_path / "model")
    assert loaded.labels == LABELS
    assert loaded.arrays["weights"].dtype == np.dtype("f4")
    assert np.array_equal(loaded.arrays["weights"], weights.T)
    loaded.require_shapes({"weights": (3, 2), "bias": (2,)})
    with pytest.raises(ModelLoadError, match=r"expected \{'weights': \(3, 2\)\}"):
        loaded.require_shapes({"weights": (3, 2)})


def test_bytes_do_not_depend_on_the_process_or_the_order(tmp_path: Path) -> None:
    digests = set()
    for number, names in enumerate((["a", "b", "c"], ["c", "a", "b"], ["a", "b", "c"])):
        path = tmp_path / str(number)
        subprocess.run([sys.executable, "-c", SAVE, str(path), *names], check=True)
        digests.add(hashlib.sha256(path.read_bytes()).hexdigest())
    assert len(digests) == 1


def test_other_files_are_refused(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"no artefact")
    with pytest.raises(SafetensorError):
        load_arrays(other)
    save_file({"a": np.zeros(2, "f4")}, other)
    with pytest.raises(ModelLoadError, match="float32 arrays with labels"):
        load_arrays(other)
    save_file({"a": np.zeros(2, "i4")}, other, metadata={"labels": "[]"})
    with pytest.raises(ModelLoadError, match="float32 arrays with labels"):
        load_arrays(other)
