"""Follows ADDING_A_MODEL.md to the letter: writes its files, runs its commands, compares its output."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from conftest import ModelServer
from wire import outputs

PAGE = Path(__file__).parent.parent / "ADDING_A_MODEL.md"
BLOCK = re.compile(r"^(?P<before>[^\n]+)\n\n```(?P<kind>\w+)\n(?P<content>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class CodeBlock:
    before: str
    """The line before it."""
    kind: str
    content: str


def blocks() -> Iterator[CodeBlock]:
    for match in BLOCK.finditer(PAGE.read_text()):
        yield CodeBlock(match["before"], match["kind"], match["content"])


def test_the_page_works(tmp_path: Path, start_server: Callable[..., ModelServer]) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("IDUNNO_", "XDG_"))}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment |= {"HOME": str(tmp_path), "PATH": path}
    printed = ""
    done = []
    for block in blocks():
        done.append(block.kind)
        written = re.fullmatch(r"Write `(.+)`:", block.before)
        if written:
            file = tmp_path / written[1].replace("~/", "")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.content)
        elif block.kind == "sh":
            pass  # needs a cluster: tests/cluster/training.rs covers it
        elif block.kind == "bash":
            run = subprocess.run(
                ["/bin/bash", "-e"],
                input=block.content,
                env=environment,
                cwd=tmp_path,
                capture_output=True,
                text=True,
                check=False,
            )
            assert run.returncode == 0, run.stderr
            printed = run.stdout
        else:
            assert printed.endswith(block.content), printed
    assert done == ["python", "bash", "json", "bash", "text", "sh"]

    # The same in a server.
    server = start_server("--models-dir", str(tmp_path / ".local/share/idunno/models"))
    artefact = server.train("word-votes", dataset=str(tmp_path / "reviews.jsonl"))
    server.deploy("word-votes", artefact)
    (answer,) = outputs(server.infer("word-votes", [b"a warm story"]))
    assert json.loads(answer) == {"label": "good", "votes": 6}
    shutil.rmtree(tmp_path / ".local")  # a running server does not read it again
    assert outputs(server.infer("word-votes", [b"a warm story"])) == [answer]
