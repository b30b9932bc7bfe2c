"""Decorated models: their source, and that the cluster runs it."""

from __future__ import annotations

from pathlib import Path

import idunno
import models
import pytest
from idunno._models import write_package

CLIENT = object()


@idunno.model
def uses_a_client(text: str) -> str:
    return f"{CLIENT}{text}"


def test_a_class_is_shipped_with_what_it_uses(client: idunno.Client) -> None:
    job = client.run(models.WordCounter, ["one two", "THREE", ""])
    outputs = {row["query"]: row["output"] for row in job.results()}
    assert outputs == {0: 1002, 1: 1001, 2: 1000}
    added = client.add_model(models.WordCounter)
    assert (added["model"], added["is_new"]) == ("word-counter", False)


def test_a_model_with_a_requirement_runs_in_an_environment_of_its_own(client: idunno.Client) -> None:
    job = client.run(models.roman, [4, 2026])
    assert {row["query"]: row["output"] for row in job.results()} == {0: "IV", 1: "MMXXVI"}


def test_a_package_is_source_that_can_be_read(tmp_path: Path) -> None:
    assert write_package(models.WordCounter, tmp_path / "p") == "word-counter"
    text = (tmp_path / "p/model.py").read_text()
    assert sorted(path.name for path in (tmp_path / "p").iterdir()) == ["model.py", "model.toml", "shipped_helper.py"]
    assert "WORD = '[a-z]+'" in text
    assert "import re\n" in text
    assert text.index("def words_of") < text.index("class WordCounter") < text.index("class Shipped(_BatchModel)")
    assert "idunno.model" not in text
    assert "def echo" not in text
    write_package(models.roman, tmp_path / "r")
    assert (tmp_path / "r/requirements.txt").read_text() == "roman-numerals==4.1.0\n"
    write_package(models.echo, tmp_path / "e")
    assert "batch_max = 64" in (tmp_path / "e/model.toml").read_text()
    assert "network" not in (tmp_path / "e/model.toml").read_text()
    write_package(models.lengths, tmp_path / "l")
    assert "network = true" in (tmp_path / "l/model.toml").read_text()


def test_what_has_no_source_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(idunno.SourceError, match=r"uses_a_client uses 'CLIENT' of its module, a object"):
        write_package(uses_a_client, tmp_path / "p")
    with pytest.raises(TypeError, match="is no model"):
        write_package(models.words_of, tmp_path / "p")

    @idunno.model
    def local(text: str) -> str:
        return text

    with pytest.raises(idunno.SourceError, match="not defined at the top of its module"):
        write_package(local, tmp_path / "p")


def test_a_model_that_is_none_is_refused_with_its_line(client: idunno.Client, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "model.py").write_text("import nothing_of_this_name\n")
    with pytest.raises(idunno.RefusedError, match="nothing_of_this_name"):
        client.add_model(folder)


def test_a_folder_is_a_model(client: idunno.Client, tmp_path: Path) -> None:
    folder = tmp_path / "upper"
    folder.mkdir()
    (folder / "model.py").write_text(
        "from idunno_model_server.api import BatchModel\n"
        "class Upper(BatchModel):\n"
        "    def predict(self, inputs):\n"
        "        return [str(row, 'utf-8').upper() for row in inputs]\n"
        "    def canary(self):\n"
        "        return b'a'\n"
    )
    assert client.add_model(folder, name="upper-case")["is_new"]
    assert [row["output"] for row in client.run("upper-case", ["a"]).results()] == ["A"]
    assert "upper-case" in [model["model"] for model in client.models()]
