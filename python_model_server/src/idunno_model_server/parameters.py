"""Parameters of an infer request that the model itself reads, such as those of `add-job --param k=v`.

A model declares them. The values of a request are checked against the declarations before any row runs, and the model
gets a complete set. Every type is also accepted as a string, so that `k=v` can be passed on without knowing the types.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .errors import ParameterError

Value = str | int | float | bool

# The protocol's own, which no model may declare.
RESERVED = frozenset(
    ("binary_data_output", "priority", "timeout", "sequence_id", "sequence_start", "sequence_end"),
)
TYPE_NAMES = {bool: "true or false", int: "an integer", float: "a number", str: "a string"}
TEXT_CHARACTERS_MAX = 4096


@dataclass(frozen=True)
class Parameter:
    """One parameter. Its type is the default's: bool, int, float or str."""

    default: Value
    description: str = ""
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] | None = None
    """The allowed strings; None allows all."""

    def constraint(self) -> str:
        """The constraint on a value, in words."""
        words = TYPE_NAMES[type(self.default)]
        if self.choices is not None:
            return f"one of {', '.join(self.choices)}"
        if self.low is not None and self.high is not None:
            return f"{words} from {self.low} to {self.high}"
        if self.low is not None:
            return f"{words} of at least {self.low}"
        return words if self.high is None else f"{words} of at most {self.high}"

    def parse(self, value: object) -> Value:
        """Raises ValueError for a value that is not allowed."""
        try:
            parsed = self._convert(value)
        except (KeyError, OverflowError):
            raise ValueError from None
        if isinstance(parsed, str):
            allowed = len(parsed) <= TEXT_CHARACTERS_MAX and (self.choices is None or parsed in self.choices)
        else:
            allowed = (self.low is None or parsed >= self.low) and (self.high is None or parsed <= self.high)
            allowed = allowed and (isinstance(parsed, int) or math.isfinite(parsed))
        if not allowed:
            raise ValueError
        return parsed

    def _convert(self, value: object) -> Value:
        """To the type of the default. An integer is also a number, but a boolean is not an integer."""
        kind = type(self.default)
        if type(value) is kind:
            return value
        if isinstance(value, str):
            return {"true": True, "false": False}[value] if kind is bool else kind(value)
        if kind is float and type(value) is int:
            return float(value)
        raise ValueError

    def as_json(self) -> dict[str, Any]:
        value = {"type": type(self.default).__name__, "default": self.default, "description": self.description}
        bounds = {"low": self.low, "high": self.high, "choices": self.choices}
        return value | {name: bound for name, bound in bounds.items() if bound is not None}


def parameter_of_json(value: Mapping[str, Any]) -> Parameter:
    """What `as_json` wrote."""
    choices = value.get("choices")
    bounds = {"low": value.get("low"), "high": value.get("high")}
    return Parameter(
        value["default"], value["description"], **bounds, choices=None if choices is None else tuple(choices)
    )


def resolve(model: str, declared: Mapping[str, Parameter], given: Mapping[str, object]) -> dict[str, Value]:
    """A value for every declared parameter. Raises ParameterError naming the parameter and its constraint."""
    for name in given:
        if name not in declared:
            known = ", ".join(sorted(declared)) or "none"
            raise ParameterError(f"model {model} has no parameter {name!r}; known parameters: {known}")
    values = {name: parameter.default for name, parameter in declared.items()}
    for name, value in given.items():
        try:
            values[name] = declared[name].parse(value)
        except ValueError:
            shown = repr(value)[:80]
            constraint = declared[name].constraint()
            raise ParameterError(f"parameter {name!r} of model {model} must be {constraint}, not {shown}") from None
    return values
