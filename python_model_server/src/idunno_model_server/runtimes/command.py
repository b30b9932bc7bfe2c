"""The runtime `command`: any program, which reads rows on standard input and writes answers to standard output.

With `stdin = "lines"`, the default, it is started for each batch, reads one row a line, and writes one line for each,
in their order. With `stdin = "row"` it is started for each row, reads its bytes up to the end, and everything that it
writes is the answer. An answer is JSON, or else text. An object with the only key "error" fails its row; so does, in
the second form, an exit with another status than 0.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import ModelFileError, RowError
from ..json_codec import JSONDecodeError, loads
from ..models.batch_model import BatchModel, SetupContext
from .base import MadeModel, packaged

STDERR_CHARACTERS_MAX = 300


class CommandError(Exception):
    """The program failed, or wrote another number of lines than it read."""


class Command(BatchModel):
    """A program in a package's folder."""

    description = "a program"
    platform = "command"
    entry: str
    arguments: tuple[str, ...] = ()
    by_row = False
    canary_text: str | None = None

    def setup(self, context: SetupContext) -> None:
        self.folder = context.folder
        self.command = [str(context.folder / self.entry), *self.arguments]

    def predict(self, inputs: list[bytes]) -> list[Any]:
        if self.by_row:
            return [self._answer_row(row) for row in inputs]
        refused = {index: RowError("the row has a line end") for index, row in enumerate(inputs) if b"\n" in row}
        rows = [row for index, row in enumerate(inputs) if index not in refused]
        answers = self._answer_lines(rows) if rows else []
        for index in sorted(refused):
            answers.insert(index, refused[index])
        return answers

    def canary(self) -> bytes | None:
        return None if self.canary_text is None else self.canary_text.encode()

    def _run(self, content: bytes) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(self.command, input=content, cwd=self.folder, capture_output=True, check=False)  # noqa: S603

    def _answer_row(self, row: bytes) -> Any:
        done = self._run(row)
        return RowError(_why(done)) if done.returncode else _answer(done.stdout)

    def _answer_lines(self, rows: list[bytes]) -> list[Any]:
        done = self._run(b"".join(row + b"\n" for row in rows))
        if done.returncode:
            raise CommandError(_why(done))
        lines = done.stdout.splitlines()
        if len(lines) != len(rows):
            raise CommandError(f"it wrote {len(lines)} lines for {len(rows)} rows")
        return [_answer(line) for line in lines]


def _why(done: subprocess.CompletedProcess[bytes]) -> str:
    status = f"status {done.returncode}" if done.returncode > 0 else f"signal {-done.returncode}"
    text = done.stderr.decode(errors="replace").strip()[-STDERR_CHARACTERS_MAX:]
    return f"it ended with {status}" + (f": {text}" if text else "")


def _answer(output: bytes) -> Any:
    text = output.strip()
    try:
        value = loads(text)
    except JSONDecodeError:
        return text.decode(errors="replace")
    if isinstance(value, dict) and value.keys() == {"error"}:
        return RowError(str(value["error"]))
    return value


def command_model(name: str, files: Path, entry: str, settings: Mapping[str, Any]) -> MadeModel:
    if not os.access(files / entry, os.X_OK):
        raise ModelFileError("it is not executable: run chmod +x before it is added")
    stdin = settings.get("stdin", "lines")
    if stdin not in ("lines", "row"):
        raise ModelFileError('stdin must be "lines" or "row"')
    attributes = {
        "__module__": __name__,
        "entry": entry,
        "arguments": tuple(settings.get("arguments", ())),
        "by_row": stdin == "row",
        "canary_text": settings.get("canary"),
    }
    return MadeModel(packaged(type("Command", (Command,), attributes), name, files, settings))
