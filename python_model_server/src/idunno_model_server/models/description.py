"""What a model declares of itself, apart from its code, which may be in another process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..parameters import Parameter, parameter_of_json
from .base import DatasetUse, DeviceUse, Model
from .batch_model import BatchModel


@dataclass(frozen=True)
class Limits:
    """How it is to be called. The fields are attributes of `Model`."""

    batch_max: int
    concurrency: int | None
    device: DeviceUse
    memory_mib: int | None
    row_timeout_s: float | None


@dataclass(frozen=True)
class ModelDescription:
    """The fields are attributes of `Model`."""

    name: str
    description: str
    platform: str
    dataset: DatasetUse
    parameters: Mapping[str, Parameter]
    limits: Limits
    trains: bool = True
    """Whether it has a `train` of its own. A BatchModel may have none."""
    reproducible: bool = True

    @classmethod
    def of(cls, model: Model) -> ModelDescription:
        kind = type(model)
        limits = Limits(kind.batch_max, kind.concurrency, kind.device, kind.memory_mib, kind.row_timeout_s)
        texts = (model.name, model.description, model.platform, model.dataset)
        return cls(*texts, dict(model.parameters), limits, kind.train is not BatchModel.train, kind.reproducible)

    @classmethod
    def of_json(cls, value: Mapping[str, Any]) -> ModelDescription:
        """What `as_json` wrote."""
        parameters = {name: parameter_of_json(parameter) for name, parameter in value["parameters"].items()}
        texts = (value["name"], value["description"], value["platform"], value["dataset"])
        return cls(*texts, parameters, Limits(**value["limits"]), bool(value["trains"]), bool(value["reproducible"]))

    def as_json(self) -> dict[str, Any]:
        parameters = {name: parameter.as_json() for name, parameter in self.parameters.items()}
        limits = asdict(self.limits)
        texts = {name: getattr(self, name) for name in ("name", "description", "platform", "dataset")}
        flags = {"trains": self.trains, "reproducible": self.reproducible}
        return {**texts, **flags, "parameters": parameters, "limits": limits}
