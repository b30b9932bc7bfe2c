"""The interface of a model, predefined or a user's own.

A retried query must give the same row byte for byte. So an answer depends on its row alone, never on the rows beside
it: a runner that answers whole batches must add up in an order that the batch does not change, or round away the last
bits. Whether a training gives the same bytes again is declared by each model (`reproducible`): all members load what
one of them trained.

A runner answers rows one at a time (`predict`), which for the image models is the fastest way, since a batch inside the
network gains nothing on a CPU; or whole batches (`predict_batch`).
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Self

from ..errors import RowError
from ..json_codec import dumps
from ..parameters import Parameter, Value

if TYPE_CHECKING:
    import numpy as np

    from ..training_data import Dataset
    from ..training_run import TrainingRun

TOP = 5
PROBABILITY_DIGITS = 6
TOP_PARAMETERS = MappingProxyType({"labels": Parameter(TOP, "how many labels an answer lists", low=1, high=TOP)})
"""For models that answer with `encode_top`."""

BATCH_MAX = 64

Row = bytes | memoryview
"""One input, as it came."""
DatasetUse = Literal["required", "optional", "none"]
DeviceUse = Literal["cpu", "cuda", "auto"]


class Runner(ABC):
    """A loaded model. It defines `predict` or `predict_batch`.

    Its methods are called from several threads at once, unless its model declares `concurrency`.
    """

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

    def predict(self, decoded: Any) -> Any:
        """Runs the model on one decoded input. RowError fails the row; any other exception is the model's fault and
        fails the request.
        """
        (output,) = self.predict_batch([decoded])
        if isinstance(output, RowError):
            raise output
        return output

    def predict_batch(self, decoded: list[Any]) -> Any:
        """Runs the model on up to `batch_max` decoded inputs, and returns as many outputs in their order.

        An output may be a RowError, which fails its row alone. Any other number of outputs is the model's fault.
        """
        outputs = []
        for row in decoded:
            try:
                outputs.append(self.predict(row))
            except RowError as error:
                outputs.append(error)
        return outputs

    @abstractmethod
    def encode(self, predicted: Any) -> bytes:
        """The answer as JSON in UTF-8."""

    def answer(self, content: bytes | memoryview) -> bytes:
        """Decodes, predicts and encodes."""
        return self.encode(self.predict(self.decode(content)))

    @classmethod
    def answers_batches(cls) -> bool:
        """Whether whole batches are passed to it, rather than rows one at a time."""
        return cls.predict_batch is not Runner.predict_batch


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
    reproducible: ClassVar[bool] = True
    """Whether training with the same dataset and seed writes the same bytes, on one kind of CPU. Its libraries then
    have one thread each, and sets have the same order. If not, they have the machine's cores."""
    parameters: ClassVar[Mapping[str, Parameter]] = MappingProxyType({})
    """Parameters that infer requests may set. The runner finds the values in `self.parameters`."""

    batch_max: ClassVar[int] = BATCH_MAX
    """The most rows that `predict_batch` takes at once, 1 to 65,536."""
    concurrency: ClassVar[int | None] = None
    """How many threads of its own call `load` and `predict_batch`, 1 to 64; None for the server's, all of them."""
    device: ClassVar[DeviceUse] = "cpu"
    """What it runs on: "cuda" cannot be loaded without a GPU, "auto" takes one if there is one."""
    memory_mib: ClassVar[int | None] = None
    """The memory that a loaded model needs: it is not loaded where less is available. None if not known."""
    row_timeout_s: ClassVar[float | None] = None
    """The longest that one row may take, 1 to 3,600: a call gets as much more time. None if not known."""
    network: ClassVar[bool] = False
    """Whether its process may use the network. A package says so in model.toml instead."""

    def require_sources(self) -> None:  # noqa: B027 - most models read nothing but their dataset
        """Raises MissingPackageError if packages that training needs are not installed."""

    @abstractmethod
    def train(self, dataset: Dataset | None, run: TrainingRun) -> Mapping[str, float]:
        """Trains or converts, writes `run.artefact`, and returns metrics. Runs in a process of its own."""

    @abstractmethod
    def load(self, artefact: Path) -> Runner:
        """Opens an artefact. Any exception means that the file is not an artefact of this model."""

    @abstractmethod
    def canary(self) -> bytes | None:
        """A small input that a loaded model must answer before it counts as ready. None if no input is known."""


class Ranking(NamedTuple):
    """The most probable labels of one row, best first."""

    indices: list[int]
    probabilities: list[float]


def rank(probabilities: np.ndarray) -> list[Ranking]:
    """The TOP most probable labels of each row of a matrix; ties go to the lower index.

    Sorts the exact probabilities and rounds afterwards, so that the first label is the model's arg max.
    """
    import numpy as np

    values = np.asarray(probabilities, "f8")
    top = np.argsort(-values, axis=1, kind="stable")[:, :TOP]
    rounded = np.round(np.take_along_axis(values, top, axis=1), PROBABILITY_DIGITS)
    return list(map(Ranking, top.tolist(), rounded.tolist()))


def encode_ranking(ranking: Ranking, labels: Sequence[str], count: int = TOP) -> bytes:
    """`{"top5":[{"index","label","probability"}, ...]}` with the first `count` labels, most probable first."""
    rows = [
        {"index": index, "label": labels[index], "probability": probability}
        for index, probability in zip(ranking.indices[:count], ranking.probabilities, strict=False)
    ]
    return dumps({"top5": rows})


def encode_top(probabilities: Sequence[float] | np.ndarray, labels: Sequence[str], count: int = TOP) -> bytes:
    """`encode_ranking` of the probabilities of one row."""
    import numpy as np

    (ranking,) = rank(np.asarray(probabilities, "f8")[None])
    return encode_ranking(ranking, labels, count)
