"""A model that answers whole batches, in one class: `setup` once, then `predict` with a list of inputs.

It needs no training: unless the class overrides `train`, its artefact is a list of the digests of its files, so that a
version stands for one state of them, and a member whose files differ does not load it.
"""

from __future__ import annotations

import copy
import hashlib
import inspect
import json
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Self

from ..devices import resolve_device
from ..errors import ModelLoadError
from ..outputs import encode_json
from ..parameters import Value
from .base import DatasetUse, Model, Runner

if TYPE_CHECKING:
    from ..training_data import Dataset
    from ..training_run import TrainingRun


@dataclass(frozen=True)
class SetupContext:
    """What `setup` is given."""

    artefact: Path
    """What `train` wrote."""
    folder: Path
    """The folder of the model's file, for weights beside it. To be read only."""
    device: str
    """"cpu" or "cuda:0"."""


class BatchModel(Model):
    """A model and its own runner. `setup` and `predict` are called on `concurrency` threads of the model's own, by
    default always on the same one; `decode` and `encode` on others, while they run.
    """

    concurrency: ClassVar[int | None] = 1
    suffix: ClassVar[str] = ".json"
    dataset: ClassVar[DatasetUse] = "none"

    options: Mapping[str, Value] = MappingProxyType({})
    """The request's parameters: a value for each one that the class declares in `parameters`."""

    def setup(self, context: SetupContext) -> None:
        """Loads what `predict` needs, once. Any exception means that the version cannot be loaded."""

    @abstractmethod
    def predict(self, inputs: list[Any]) -> Any:
        """One output for each input, in their order: a list, or a generator. May be `async def`.

        At most `batch_max` inputs, each as `decode` returned it. An output may be a RowError, which fails its row
        alone. Any other number of outputs is the model's fault, and fails the batch; running out of memory halves it.
        """

    def decode(self, content: bytes | memoryview) -> Any:
        """Converts one input for `predict`: by default to bytes. Raises RowError for an input that cannot be read."""
        return bytes(content)

    def encode(self, output: Any) -> bytes:
        """One output as JSON in UTF-8: by default whatever JSON can express, arrays included; bytes as they are."""
        return encode_json(output)

    def train(self, dataset: Dataset | None, run: TrainingRun) -> Mapping[str, float]:
        """By default nothing is trained."""
        digests = file_digests(type(self))
        run.artefact.write_text(json.dumps({"files": digests}, indent=1, sort_keys=True) + "\n")
        return {"files": len(digests)}

    def load(self, artefact: Path) -> Runner:
        kind = type(self)
        if kind.train is BatchModel.train:
            _require_same_files(kind, artefact)
        instance = kind()
        folder = Path(inspect.getfile(kind)).parent
        instance.setup(SetupContext(artefact, folder, resolve_device(kind.device)))
        return BatchRunner(instance)


class BatchRunner(Runner):
    """A BatchModel that was set up."""

    def __init__(self, model: BatchModel) -> None:
        self._model = model

    def with_parameters(self, parameters: Mapping[str, Value]) -> Self:
        runner = super().with_parameters(parameters)
        runner._model = copy.copy(self._model)
        runner._model.options = parameters
        return runner

    def decode(self, content: bytes | memoryview) -> Any:
        return self._model.decode(content)

    def predict_batch(self, decoded: list[Any]) -> Any:
        return self._model.predict(decoded)

    def encode(self, predicted: Any) -> bytes:
        return self._model.encode(predicted)


def is_async(kind: type[Model]) -> bool:
    """Whether its `predict` is to run on an event loop."""
    predict = getattr(kind, "predict", None)
    return inspect.iscoroutinefunction(predict) or inspect.isasyncgenfunction(predict)


def file_digests(kind: type[Model]) -> dict[str, str]:
    """The SHA-256 of the class's file; if that is a package's, of every file in its folder, without caches."""
    file = Path(inspect.getfile(kind))
    if file.name != "__init__.py":
        return {file.name: _digest(file)}
    files = (path for path in file.parent.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(file.parent)): _digest(path) for path in sorted(files)}


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _require_same_files(kind: type[Model], artefact: Path) -> None:
    wanted: dict[str, str] = json.loads(artefact.read_bytes())["files"]
    found = file_digests(kind)
    different = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    if different:
        raise ModelLoadError(
            f"{different[0]} is not as it was when this version was made: copy the model's files, or train"
        )
