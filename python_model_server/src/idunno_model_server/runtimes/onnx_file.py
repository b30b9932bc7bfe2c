"""The runtime `onnx`: any network in an ONNX file.

A row is JSON: the value of the network's input, as nested arrays, or an object with a value for each input. If the
first dimension of every input may vary, and the shapes agree, rows run as one batch; a value has that dimension or
leaves it out. An input of strings takes a row that is not JSON as text. The answer is the value of the output, or an
object of all outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ModelFileError, RowError
from ..json_codec import JSONDecodeError, loads
from ..models.batch_model import BatchModel, SetupContext
from .base import MadeModel, packaged

if TYPE_CHECKING:
    import numpy as np

TYPES = {
    "tensor(float)": "f4",
    "tensor(double)": "f8",
    "tensor(float16)": "f2",
    "tensor(int64)": "i8",
    "tensor(int32)": "i4",
    "tensor(int16)": "i2",
    "tensor(int8)": "i1",
    "tensor(uint64)": "u8",
    "tensor(uint32)": "u4",
    "tensor(uint16)": "u2",
    "tensor(uint8)": "u1",
    "tensor(bool)": "?",
    "tensor(string)": "O",
}
DIGITS = 6
"""Decimal digits of an answer: the last ones depend on the batch."""


class OnnxFile(BatchModel):
    """A network in a package's folder."""

    description = "an ONNX network"
    platform = "onnxruntime_onnx"
    entry: str
    output: str | None = None
    canary_text: str | None = None

    def setup(self, context: SetupContext) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        cuda = context.device != "cpu"
        providers = ["CUDAExecutionProvider"] if cuda else ["CPUExecutionProvider"]
        self.session = ort.InferenceSession(str(context.folder / self.entry), options, providers=providers)
        self.inputs = self.session.get_inputs()
        names = [value.name for value in self.session.get_outputs()]
        if self.output is not None and self.output not in names:
            raise ValueError(f"the network has no output {self.output!r}; its outputs are {', '.join(names)}")
        self.outputs = names if self.output is None else [self.output]
        for value in self.inputs:
            if value.type not in TYPES:
                raise ValueError(f"input {value.name!r} has the type {value.type}, for which JSON has no value")
        shapes = [value.shape for value in self.inputs]
        self.batches = all(shape and not isinstance(shape[0], int) for shape in shapes)
        if all(isinstance(size, int) for shape in shapes for size in shape[1:]):
            self._run_zeros()

    def _run_zeros(self) -> None:
        """Runs the network once, so that one that cannot run is not ready."""
        import numpy as np

        zeros = {}
        for value in self.inputs:
            shape = [size if isinstance(size, int) else 1 for size in value.shape]
            zeros[value.name] = np.full(shape, "") if TYPES[value.type] == "O" else np.zeros(shape, TYPES[value.type])
        self.session.run(self.outputs, zeros)

    def decode(self, content: bytes | memoryview) -> dict[str, np.ndarray]:
        row = bytes(content)
        try:
            value = loads(row)
        except JSONDecodeError as error:
            if [value.type for value in self.inputs] != ["tensor(string)"]:
                raise RowError(f"the row is not JSON: {error}") from None
            value = row.decode(errors="replace")
        if len(self.inputs) == 1 and not (isinstance(value, dict) and self.inputs[0].name in value):
            value = {self.inputs[0].name: value}
        if not isinstance(value, dict):
            names = ", ".join(value.name for value in self.inputs)
            raise RowError(f"the row must be an object with the inputs of the network: {names}")
        return {wanted.name: self._tensor(wanted, value) for wanted in self.inputs}

    def _tensor(self, wanted: Any, row: Mapping[str, Any]) -> np.ndarray:
        """One input of one row, with its first dimension."""
        import numpy as np

        if wanted.name not in row:
            raise RowError(f"the row has no value for the input {wanted.name!r}")
        try:
            tensor = np.array(row[wanted.name], dtype=TYPES[wanted.type])
        except (ValueError, TypeError, OverflowError) as error:
            raise RowError(f"input {wanted.name!r}: {error}") from None
        if tensor.ndim == len(wanted.shape) - 1:
            tensor = tensor[None]
        fits = tensor.ndim == len(wanted.shape) and all(
            not isinstance(size, int) or size == given for size, given in zip(wanted.shape, tensor.shape, strict=True)
        )
        if not fits or (self.batches and tensor.shape[0] != 1):
            shape = [size if isinstance(size, int) else "any" for size in wanted.shape]
            raise RowError(f"input {wanted.name!r} has the shape {list(tensor.shape)}, and the network takes {shape}")
        return tensor

    def predict(self, inputs: list[dict[str, np.ndarray]]) -> list[Any]:
        import numpy as np

        shapes = {tuple(tensor.shape for tensor in row.values()) for row in inputs}
        if not self.batches or len(shapes) > 1:
            return [self._answer(self.session.run(self.outputs, row), None) for row in inputs]
        stacked = {name: np.concatenate([row[name] for row in inputs]) for name in inputs[0]}
        values = self.session.run(self.outputs, stacked)
        if any(len(value) != len(inputs) for value in values):
            return [self._answer(self.session.run(self.outputs, row), None) for row in inputs]
        return [self._answer(values, index) for index in range(len(inputs))]

    def _answer(self, values: Sequence[Any], index: int | None) -> Any:
        """What the outputs are for one row of a batch, or for the only one."""
        found = {}
        for name, value in zip(self.outputs, values, strict=True):
            whole = value[0] if len(value) == 1 else value
            part = whole if index is None else value[index]
            is_float = getattr(getattr(part, "dtype", None), "kind", "") == "f"
            found[name] = part.round(DIGITS) if is_float else part
        return found if len(found) > 1 else next(iter(found.values()))

    def canary(self) -> bytes | None:
        return None if self.canary_text is None else self.canary_text.encode()


def onnx_model(name: str, files: Path, entry: str, settings: Mapping[str, Any]) -> MadeModel:
    try:
        import onnxruntime  # noqa: F401
    except ImportError:
        raise ModelFileError("onnxruntime is not installed in the model's environment") from None
    if (files / entry).stat().st_size == 0:
        raise ModelFileError("it is empty")
    attributes = {
        "__module__": __name__,
        "entry": entry,
        "output": settings.get("output"),
        "canary_text": settings.get("canary"),
    }
    return MadeModel(packaged(type("OnnxFile", (OnnxFile,), attributes), name, files, settings))
