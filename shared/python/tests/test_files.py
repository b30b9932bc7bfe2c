"""The store: bytes come back exactly, in whatever form they were given."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import idunno
import pytest


@pytest.mark.parametrize("size", [0, 1, 1_000_000])
def test_bytes_come_back_exactly(client: idunno.Client, tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    path, target = tmp_path / "local", tmp_path / "target"
    path.write_bytes(content)
    forms: list[Any] = [content, bytearray(content), path, str(path), io.BytesIO(content)]
    for number, data in enumerate(forms, start=1):
        stored = client.put(data, f"files/{size}")
        assert (stored["name"], stored["version"], stored["size_bytes"]) == (f"files/{size}", number, size)
    assert client.get(f"files/{size}") == content
    client.get(f"files/{size}", target)
    assert target.read_bytes() == content
    opened = io.BytesIO()
    client.get(f"files/{size}", opened)
    assert opened.getvalue() == content


def test_versions_are_kept_listed_and_deleted(client: idunno.Client) -> None:
    client.put(b"one", "versions/a")
    client.put(b"two", "versions/a")
    client.put(b"", "versions/-b c")
    assert client.get("versions/a", version=1) == b"one"
    assert [(file["name"], file["version"]) for file in client.ls("versions/")] == [
        ("versions/-b c", 1),
        ("versions/a", 2),
    ]
    assert client.delete("versions/a") == 2
    assert client.ls("versions/a") == []


def test_what_is_no_data_is_refused(client: idunno.Client) -> None:
    with pytest.raises(TypeError, match="cannot store a int"):
        client.put(7, "x")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="open it with 'rb'"):
        client.put(io.StringIO("text"), "x")  # type: ignore[arg-type]


def command_line(cluster: idunno.LocalCluster, *words: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-m", "idunno", "--dir", str(cluster.dir)]
    return subprocess.run([*program, *words], capture_output=True, text=True, check=False)


def test_errors_have_the_words_and_the_code_of_the_command_line(
    cluster: idunno.LocalCluster, client: idunno.Client
) -> None:
    calls: dict[tuple[str, ...], Callable[[], object]] = {
        ("get", "no/such", "out"): lambda: client.get("no/such"),
        ("delete", "no/such"): lambda: client.delete("no/such"),
        ("get-job-stats", "job-999"): lambda: client.job("job-999"),
        ("add-job", "no-such-model"): lambda: client.command("add-job", "no-such-model"),
        ("set-weight", "job-1", "0"): lambda: client.command("set-weight", "job-1", "0"),
    }
    kinds = []
    for words, call in calls.items():
        done = command_line(cluster, *words)
        with pytest.raises(idunno.Error) as raised:
            call()
        kinds.append(type(raised.value))
        assert raised.value.code == done.returncode
        # Each change has an operation of its own.
        assert str(raised.value).partition(" (operation")[0] in done.stderr
    assert kinds[:3] == [idunno.NotFoundError] * 3
    assert kinds[-1] is idunno.UsageError


def test_a_cluster_that_is_not_there_is_an_error_with_its_address() -> None:
    with pytest.raises(idunno.UnreachableError, match=r"127\.0\.0\.1:1\b") as raised:
        idunno.connect("127.0.0.1:1", timeout=1).ls()
    assert raised.value.code == 4
    assert isinstance(raised.value, ConnectionError)


def test_a_name_that_the_store_does_not_allow_asks_nothing(client: idunno.Client) -> None:
    with pytest.raises(idunno.UsageError):
        client.put(b"", "/slash")
    with pytest.raises(idunno.NotFoundError, match=r"no context 'nowhere'"):
        idunno.connect(context="nowhere")


def test_members_are_listed(client: idunno.Client) -> None:
    members = client.members()
    assert sorted(member["name"] for member in members) == ["m1", "m2", "m3"]
    assert [member["role"] for member in members].count("coordinator") == 1


def test_the_command_line_is_in_the_package(cluster: idunno.LocalCluster) -> None:
    script = Path(sys.executable).with_name("idunno")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"idunno {idunno.__version__}\n"
    assert command_line(cluster, "ls", "no/such").returncode == 3
    assert command_line(cluster, "--output", "json", "list_mem").stdout.startswith('{"apiVersion":"idunno/v1"')
