"""`idunno.model`: a class or a function of one's own becomes a package, which any member can run.

A package has source code, not pickled objects: what runs is what can be read, and its digest is the model's version.
What is taken of a module is the function or the class, and what it uses of the module by name: imports, other
functions and classes, constants. Modules of one's own beside it are taken whole.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, overload

from ._source import decorated_source, input_kind

Target = TypeVar("Target", bound=Callable[..., Any])
_MARK = "__idunno_model__"

_PREAMBLE = """\
from idunno_model_server.api import BatchModel as _BatchModel
from idunno_model_server.api import RowError as _RowError
"""
_DECODE = {
    "bytes": "return bytes(content)",
    "text": 'return str(content, "utf-8")',
    "JSON": "return _json.loads(bytes(content))",
}


@dataclass(frozen=True)
class ModelOptions:
    """The arguments of the decorator."""

    name: str | None
    requirements: tuple[str, ...]
    batch: bool
    canary: bytes | str | None
    settings: dict[str, Any]


@overload
def model(target: Target, /) -> Target: ...
@overload
def model(
    *,
    name: str | None = None,
    requirements: Sequence[str] = (),
    batch: bool = False,
    canary: bytes | str | None = None,
    batch_max: int | None = None,
    concurrency: int | None = None,
    device: Literal["cpu", "cuda", "auto"] | None = None,
    memory_mib: int | None = None,
    row_timeout_s: int | None = None,
    network: bool | None = None,
) -> Callable[[Target], Target]: ...
def model(
    target: Any = None,
    /,
    *,
    name: str | None = None,
    requirements: Sequence[str] = (),
    batch: bool = False,
    canary: bytes | str | None = None,
    batch_max: int | None = None,
    concurrency: int | None = None,
    device: Literal["cpu", "cuda", "auto"] | None = None,
    memory_mib: int | None = None,
    row_timeout_s: int | None = None,
    network: bool | None = None,
) -> Any:
    """Makes a function or a class a model: `client.add_model(it)`, or `client.run(it, data)`. It stays what it is.

    A function gets one input and returns its output; with `batch` it gets a list and returns a list. A class is made
    once on each member, without arguments, and loads there what it needs; its `__call__` gets one input, or its
    `predict` a list. A `BatchModel` of `idunno_model_server` is taken as it is. An input is what the annotation of
    the parameter says: `bytes`, `str` (also without one), or any other type for a value of JSON.

    An exception for one input makes its query a dead letter; one for a batch fails the batch. `requirements` are
    installed on the members, in an environment of this model's own. `canary` is an input that the model must answer
    before it gets work. The other arguments are the keys of `model.toml` of the same names.

    >>> import idunno
    >>> @idunno.model
    ... def backwards(text: str) -> str:
    ...     return text[::-1]
    >>> backwards("abc")
    'cba'
    """
    given = {
        "batch_max": batch_max,
        "concurrency": concurrency,
        "device": device,
        "memory_mib": memory_mib,
        "row_timeout_s": row_timeout_s,
        "network": network,
    }
    settings = {key: value for key, value in given.items() if value is not None}
    options = ModelOptions(name, tuple(requirements), batch, canary, settings)

    def mark(target: Any) -> Any:
        if not callable(target) or not hasattr(target, "__qualname__"):
            raise TypeError(f"idunno.model decorates a function or a class, not a {type(target).__name__}")
        setattr(target, _MARK, options)
        return target

    return mark if target is None else mark(target)


def is_model(value: Any) -> bool:
    """Whether `idunno.model` decorates it."""
    return isinstance(getattr(value, _MARK, None), ModelOptions)


def write_package(target: Any, folder: Path) -> str:
    """Writes the package of a decorated function or class into a new folder; returns the model's name."""
    if not is_model(target):
        raise TypeError(
            f"{target!r} is no model: decorate a function or a class with @idunno.model, or pass the path of a folder"
        )
    options: ModelOptions = getattr(target, _MARK)
    source = decorated_source(target, model)
    folder.mkdir(parents=True)
    for name, content in source.modules.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    is_whole = isinstance(target, type) and any(
        base.__module__.startswith("idunno_model_server") for base in target.__mro__
    )
    text = source.text if is_whole else source.text + "\n\n" + _wrapper(target, options)
    future = "from __future__ import annotations\n\n" if source.has_future_annotations else ""
    (folder / "model.py").write_text(future + ("" if is_whole else _PREAMBLE) + text, encoding="utf-8")
    settings = {"runtime": "python", "entry": "model.py", **options.settings}
    lines = [f"{key} = {json.dumps(value)}\n" for key, value in settings.items()]
    (folder / "model.toml").write_text("".join(lines), encoding="utf-8")
    if options.requirements:
        (folder / "requirements.txt").write_text("\n".join(options.requirements) + "\n", encoding="utf-8")
    return options.name or target.__name__.strip("_").replace("_", "-").lower()


def _wrapper(target: Any, options: ModelOptions) -> str:
    """The class that the model server runs."""
    is_batch, called = options.batch, target
    setup = []
    call = target.__name__
    if isinstance(target, type):
        is_batch = not callable(target.__dict__.get("__call__"))
        called = getattr(target, "predict", None) if is_batch else target.__dict__["__call__"]
        if called is None:
            raise TypeError(f"the class {target.__name__} has neither __call__(self, input) nor predict(self, inputs)")
        call = "self._model.predict" if is_batch else "self._model"
        setup = ["    def setup(self, context):", f"        self._model = {target.__name__}()", ""]
    kind = input_kind(called, is_batch=is_batch)
    one = [f"return list({call}(inputs))"] if is_batch else ["return [self._one(row) for row in inputs]"]
    lines = [
        *(["import json as _json", ""] if kind == "JSON" else []),
        "",
        "class Shipped(_BatchModel):",
        *setup,
        "    def decode(self, content):",
        "        try:",
        f"            {_DECODE[kind]}",
        "        except ValueError as error:",
        '            raise _RowError(f"the input is no ' + kind + ': {error}") from None',
        "",
        "    def predict(self, inputs):",
        *(f"        {line}" for line in one),
    ]
    if not is_batch:
        lines += [
            "",
            "    def _one(self, row):",
            "        try:",
            f"            return {call}(row)",
            "        except Exception as error:",
            '            return _RowError(f"{type(error).__name__}: {error}")',
        ]
    canary = options.canary.encode() if isinstance(options.canary, str) else options.canary
    lines += ["", "    def canary(self):", f"        return {canary!r}"]
    return "\n".join(lines) + "\n"
