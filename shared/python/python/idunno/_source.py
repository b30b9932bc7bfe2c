"""The source of a function or a class, with what it uses of its module by name."""

from __future__ import annotations
import __future__

import ast
import builtins
import importlib.util
import inspect
import linecache
import symtable
import sys
import sysconfig
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

_MISSING = object()


class SourceError(TypeError):
    """A model uses something that cannot be shipped as source."""


@dataclass
class Source:
    """The source of a model."""

    text: str
    """Imports, constants and definitions, each after what it uses."""
    has_future_annotations: bool
    modules: dict[str, bytes] = field(default_factory=dict)
    """Modules of one's own, as files of the package."""


def decorated_source(target: Any, decorator: Any) -> Source:
    """The source of a decorated function or class, without its decorator."""
    collector = _Collector(target, decorator)
    collector.define(target)
    flag = __future__.annotations.compiler_flag
    has_future = any(function.__code__.co_flags & flag for function in _functions(target))
    text = "\n".join([*collector.imports, "", *collector.constants, "", *collector.definitions])
    return Source(text.strip("\n") + "\n", has_future, collector.modules)


def input_kind(called: Any, *, is_batch: bool) -> str:
    """What a function takes, by the annotation of its first parameter: `bytes`, `text` or `JSON`."""
    try:
        signature = inspect.signature(called, eval_str=True)
    except NameError:
        signature = inspect.signature(called)
    parameters = [parameter for parameter in signature.parameters.values() if parameter.name != "self"]
    if not parameters:
        raise SourceError(f"{called.__qualname__} takes no input")
    annotation = parameters[0].annotation
    if is_batch and annotation is not inspect.Parameter.empty:
        annotation = next(iter(typing.get_args(annotation)), inspect.Parameter.empty)
    if annotation is inspect.Parameter.empty or annotation in (str, "str"):
        return "text"
    return "bytes" if annotation in (bytes, "bytes") else "JSON"


class _Collector:
    """Collects definitions in the order in which they can be run."""

    def __init__(self, target: Any, decorator: Any) -> None:
        self.imports: dict[str, None] = {}
        self.constants: dict[str, None] = {}
        self.definitions: list[str] = []
        self.modules: dict[str, bytes] = {}
        self._target, self._decorator = target, decorator
        self._names = _globals(target)
        self._begun: set[str] = set()

    def define(self, value: Any) -> None:
        """Adds a function or a class of the module, after what it uses."""
        self._begun.add(value.__name__)
        text = self._source(value)
        for name in sorted(_used(text)):
            found = self._names.get(name, _MISSING)
            if name in self._begun or (found is _MISSING and hasattr(builtins, name)):
                continue
            if found is _MISSING:
                raise SourceError(f"{value.__qualname__} uses {name!r}, which its module does not define")
            self._use(name, found, value)
        self.definitions.append(text)

    def _use(self, name: str, found: Any, user: Any) -> None:
        if isinstance(found, ModuleType):
            is_same = found.__name__ == name
            self.imports[f"import {found.__name__}" + ("" if is_same else f" as {name}")] = None
            self._ship(found.__name__)
            return
        module, origin = getattr(found, "__module__", None), getattr(found, "__qualname__", None)
        is_ours = module == self._target.__module__
        if is_ours and origin == name and isinstance(found, (FunctionType, type)):
            self.define(found)
        elif _is_literal(found):
            self.constants[f"{name} = {found!r}"] = None
        elif not is_ours and origin and getattr(sys.modules.get(module or ""), origin, None) is found:
            self.imports[f"from {module} import {origin}" + ("" if origin == name else f" as {name}")] = None
            self._ship(str(module))
        else:
            raise SourceError(
                f"{user.__qualname__} uses {name!r} of its module, a {type(found).__name__}, which has no source of "
                "its own: make it where it is used (in the function, or in __init__ of a class), or make it a constant"
            )

    def _source(self, value: Any) -> str:
        text, node = _definition(value)
        lines = text.splitlines()
        kept = [one for one in node.decorator_list if not self._is_decorator(one)]
        parts = [f"@{ast.unparse(one)}" for one in kept] + lines[node.lineno - 1 : node.end_lineno]
        return "\n".join(parts) + "\n\n"

    def _is_decorator(self, node: ast.expr) -> bool:
        node = node.func if isinstance(node, ast.Call) else node
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            return getattr(self._names.get(node.value.id), node.attr, None) is self._decorator
        return isinstance(node, ast.Name) and self._names.get(node.id) is self._decorator

    def _ship(self, module: str) -> None:
        """Adds a module of one's own, with those that it imports; libraries are requirements."""
        top = module.partition(".")[0]
        spec = importlib.util.find_spec(top) if top != "__main__" else None
        if spec is None or spec.origin is None or _is_library(Path(spec.origin)):
            return
        path = Path(spec.origin)
        folder = path.parent if path.name == "__init__.py" else None
        files = folder.rglob("*.py") if folder else [path]
        root = folder.parent if folder else path.parent
        for file in files:
            name = file.relative_to(root).as_posix()
            if name in self.modules:
                continue
            self.modules[name] = file.read_bytes()
            for imported in _imported(self.modules[name]):
                self._ship(imported)


def _globals(target: Any) -> dict[str, Any]:
    for function in _functions(target):
        return function.__globals__
    return vars(sys.modules[target.__module__])


def _functions(target: Any) -> Iterator[FunctionType]:
    values = vars(target).values() if isinstance(target, type) else [target]
    for value in values:
        value = getattr(value, "__func__", value)
        if isinstance(value, FunctionType) and value.__module__ == target.__module__:
            yield inspect.unwrap(value)


Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def _definition(value: Any) -> tuple[str, Definition]:
    """The text that has a definition, and the definition in it."""
    # In a notebook a class has no file, but its methods do.
    file = next((function.__code__.co_filename for function in _functions(value)), None)
    text = "".join(linecache.getlines(file)) if file else ""
    if not text:
        try:
            text = inspect.getsource(value)
        except (OSError, TypeError):
            raise SourceError(
                f"{value.__qualname__} has no source: define it in a file or a notebook, not in a prompt"
            ) from None
    for node in reversed(ast.parse(text).body):
        if isinstance(node, Definition) and node.name == value.__qualname__:
            return text, node
    raise SourceError(f"{value.__qualname__} is not defined at the top of its module, so it cannot stand alone")


def _used(text: str) -> set[str]:
    """The names that a definition looks up in its module."""
    top = symtable.symtable(text, "model", "exec")
    names = {one.get_name() for one in top.get_symbols() if one.is_referenced() and not one.is_assigned()}
    tables = list(top.get_children())
    while tables:
        table = tables.pop()
        tables.extend(table.get_children())
        names |= {one.get_name() for one in table.get_symbols() if one.is_referenced() and one.is_global()}
    return names


def _imported(content: bytes) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(content)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
    return names


def _is_literal(value: Any) -> bool:
    try:
        return bool(ast.literal_eval(repr(value)) == value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return False


def _is_library(path: Path) -> bool:
    roots = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    return "site-packages" in path.parts or any(path.is_relative_to(root) for root in roots) or path.name == "built-in"
