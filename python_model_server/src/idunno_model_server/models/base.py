"""The interface of a model, predefined or a user's own.

Every model keeps two invariants, because a retried query must give the same row byte for byte:
- training with the same dataset and seed writes the same bytes (on one kind of CPU);
- an answer depends on its row alone, never on the rows beside it. The server therefore passes rows one at a time; for
  the image models that is also the fastest way, since a batch inside the network gains nothing on a CPU.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import orjson

from ..parameters import Parameter, Value

if TYPE_CHECKING:
    import numpy as np

    from ..training_data import Dataset
    from ..training_run import TrainingRun

TOP = 5
PROBABILITY_DIGITS = 6
TOP_PARAMETERS = MappingProxyType({"labels": Parameter(TOP, "how many labels an answer lists", low=1, high=TOP)})
"""For models that answer with `encode_top`."""

DatasetUse = Literal["required", "optional", "none"]


class Runner(ABC):
    """A loaded model. Its methods are called from several threads at once, with one row each."""

    parameters: Mapping[str, Value] = MappingProxyType({})
    """The request's parameters: a value for each one that the model declares."""

    def with_parameters(self, parameters: Mapping[str, Value]) -> Self:
        """This runner for one request: a shallow copy that shares what was loaded."""
        runner = copy.copy(self)
        runner.parameters = parameters
        return runner

    @abstractmethod
    def decode(self, content: bytes | memoryview) -> Any:
        """Converts one input to what `predict` takes. Raises RowError for an input that cannot be read."""

    @abstractmethod
    def predict(self, decoded: Any) -> Any:
        """Runs the model on one decoded input. An exception here is the model's fault and fails the request."""

    @abstractmethod
    def encode(self, predicted: Any) -> bytes:
        """The answer as JSON in UTF-8."""

    def answer(self, content: bytes | memoryview) -> bytes:
        """Decodes, predicts and encodes."""
        return self.encode(self.predict(self.decode(content)))


class Model(ABC):
    """Trains an artefact and loads one. Stateless; constructed once, without arguments, when the server starts."""

    name: ClassVar[str]
    """1 to 64 letters, digits, dots, underscores and hyphens."""
    description: ClassVar[str]
    """One line for people."""
    platform: ClassVar[str] = "python"
    """The runtime that the protocol's metadata names."""
    suffix: ClassVar[str] = ".bin"
    """The suffix of the artefact's file name, with the dot."""
    dataset: ClassVar[DatasetUse] = "required"
    """Whether `train` gets a dataset: always, if the request names one, or never (the model brings its own data)."""
    parameters: ClassVar[Mapping[str, Parameter]] = MappingProxyType({})
    """Parameters that infer requests may set. The runner finds the values in `self.parameters`."""

    def require_sources(self) -> None:  # noqa: B027 - most models read nothing but their dataset
        """Raises MissingPackageError if packages that training needs are not installed."""

    @abstractmethod
    def train(self, dataset: Dataset | None, run: TrainingRun) -> Mapping[str, float]:
        """Trains or converts, writes `run.artefact`, and returns metrics. Runs in a process of its own."""

    @abstractmethod
    def load(self, artefact: Path) -> Runner:
        """Opens an artefact. Any exception means that the file is not an artefact of this model."""

    @abstractmethod
    def canary(self) -> bytes:
        """A small input that a loaded model must answer before it counts as ready."""


def encode_top(probabilities: Sequence[float] | np.ndarray, labels: Sequence[str], count: int = TOP) -> bytes:
    """`{"top5":[{"index","label","probability"}, ...]}`, most probable first; ties go to the lower index.

    Sorts the exact probabilities and rounds afterwards, so that the first label is the model's arg max.
    """
    import numpy as np

    values = np.asarray(probabilities, "f8")
    top = np.argsort(-values, kind="stable")[:count]
    rows = [
        {"index": int(i), "label": labels[i], "probability": round(float(values[i]), PROBABILITY_DIGITS)} for i in top
    ]
    return orjson.dumps({"top5": rows})
