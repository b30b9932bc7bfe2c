"""Parameters of an infer call that the model itself reads, such as those of `add-job --param k=v`.

A model declares them; what a call gives is checked against that before any row runs, and the model sees a complete set.
Texts are taken for every type, because whoever passes `k=v` on need not know the types.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .errors import ParameterError

Value = str | int | float | bool

# The protocol's own, which no model can have for itself; the scheduling ones are accepted and ignored.
RESERVED = frozenset(
    ("binary_data_output", "priority", "timeout", "sequence_id", "sequence_start", "sequence_end"),
)
TYPE_NAMES = {bool: "true or false", int: "an integer", float: "a number", str: "a text"}
TEXT_CHARACTERS_MAX = 4096


@dataclass(frozen=True)
class Parameter:
    """One parameter. Its type is the default's: bool, int, float or str."""

    default: Value
    description: str = ""
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] | None = None
    """The texts that are allowed; all where there is none."""

    def wanted(self) -> str:
        """In words, what a value must be."""
        words = TYPE_NAMES[type(self.default)]
        if self.choices is not None:
            return f"one of {', '.join(self.choices)}"
        if self.low is not None and self.high is not None:
            return f"{words} from {self.low} to {self.high}"
        if self.low is not None:
            return f"{words} of at least {self.low}"
        return words if self.high is None else f"{words} of at most {self.high}"

    def parse(self, value: Any) -> Value:
        """Raises ValueError where the value does not fit."""
        kind = type(self.default)
        if isinstance(value, str) and kind is not str:
            parsed: Value = {"true": True, "false": False}[value] if kind is bool else kind(value)
        elif type(value) is kind:
            parsed = value
        elif kind is float and type(value) is int:
            parsed = float(value)
        else:
            raise ValueError
        if isinstance(parsed, str):
            fits = len(parsed) <= TEXT_CHARACTERS_MAX and (self.choices is None or parsed in self.choices)
        else:  # a NaN fits nowhere
            fits = (self.low is None or parsed >= self.low) and (self.high is None or parsed <= self.high)
            fits = fits and parsed == parsed and abs(parsed) != float("inf")
        if not fits:
            raise ValueError
        return parsed

    def as_json(self) -> dict[str, Any]:
        value = {"type": type(self.default).__name__, "default": self.default, "description": self.description}
        bounds = {"low": self.low, "high": self.high, "choices": self.choices}
        return value | {name: bound for name, bound in bounds.items() if bound is not None}


def resolve(model: str, declared: Mapping[str, Parameter], given: Mapping[str, Any]) -> dict[str, Value]:
    """A value for every declared parameter. Raises ParameterError that names the parameter and what it must be."""
    for name in given:
        if name not in declared:
            known = f"it has {', '.join(sorted(declared))}" if declared else "it has none"
            raise ParameterError(f"model {model} has no parameter {name!r}: {known}")
    values = {name: parameter.default for name, parameter in declared.items()}
    for name, value in given.items():
        try:
            values[name] = declared[name].parse(value)
        except (ValueError, KeyError, OverflowError):
            shown = repr(value)[:80]
            wanted = declared[name].wanted()
            raise ParameterError(f"parameter {name!r} of model {model} must be {wanted}, not {shown}") from None
    return values
