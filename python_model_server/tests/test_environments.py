"""Environments of packages: built offline from the package's own wheels, once, and used by its runner alone."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import ModelServer, wait_until
from package_server import serving, zipped
from test_packages import infer, load, write_package
from wire import outputs

from idunno_model_server.environments import DESCRIPTION, FOLDER, KEPT_UNUSED, LOCK, STAMP, Environments, interpreter
from idunno_model_server.lock_environment import LockError, lock_environment
from idunno_model_server.runners.process_family import Families

CODE = """
import importlib.metadata, os
from idunno_model_server.api import BatchModel

class Toys(BatchModel):
    def setup(self, context):
        import toy
        self.word = toy.WORD
    def predict(self, inputs):
        version = importlib.metadata.version("toy")
        return [{"version": version, "word": self.word, "pid": os.getpid()} for _ in inputs]
    def canary(self):
        return b"x"
"""
ONLINE = "IDUNNO_TEST_ONLINE"


def toy_wheel(version: str, requires: str = "") -> bytes:
    info = f"toy-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: toy\nVersion: {version}\n{requires}"
    files = {
        "toy.py": f'WORD = "toy {version}"\n'.encode(),
        f"{info}/METADATA": metadata.encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    return zipped(files | {f"{info}/RECORD": record.encode()})


def write_environment(files: Path, version: str, **described: str) -> None:
    """What `model add` puts beside the files of a package."""
    wheel = toy_wheel(version)
    wheels = files / FOLDER / "wheels"
    wheels.mkdir(parents=True)
    (wheels / f"toy-{version}-py3-none-any.whl").write_bytes(wheel)
    digest = hashlib.sha256(wheel).hexdigest()
    (files / FOLDER / LOCK).write_text(f"toy=={version} \\\n    --hash=sha256:{digest}\n")
    (files / FOLDER / DESCRIPTION).write_text(json.dumps({**interpreter(), **described}))


def toy_package(packages: Path, version: str, **described: str) -> str:
    package = write_package(packages, {"model.py": CODE, "requirements.txt": f"toy=={version}\n"})
    write_environment(packages / package / "files", version, **described)
    return package


@pytest.fixture(scope="module")
def served(
    start_server: Callable[..., ModelServer], tmp_path_factory: pytest.TempPathFactory
) -> tuple[ModelServer, Path]:
    folder = tmp_path_factory.mktemp("packages")
    return start_server("--packages-dir", str(folder)), folder


def ask(server: ModelServer, model: str, version: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(outputs(infer(server, model, version, b"x"))[0])
    return answer


def test_contradicting_versions_run_side_by_side(served: tuple[ModelServer, Path]) -> None:
    server, folder = served
    versions = {number: toy_package(folder, number) for number in ("1", "2")}
    for number, version in versions.items():
        answer = load(server, f"toys-{number}", version)
        assert answer.status_code == 200, answer.text
    found = {number: ask(server, f"toys-{number}", version) for number, version in versions.items()}
    assert [(answer["version"], answer["word"]) for answer in found.values()] == [("1", "toy 1"), ("2", "toy 2")]
    environments = server.work_dir / "environments"
    stamps = {path.parent.name: path.stat().st_ctime_ns for path in environments.glob(f"*/{STAMP}")}
    assert len(stamps) == 2
    assert not list(environments.glob("*.cache"))
    # A package with the same requirements uses the same environment, which is not built again.
    again = write_package(folder, {"model.py": CODE + "# changed\n", "requirements.txt": "toy==1\n"})
    write_environment(folder / again / "files", "1")
    assert load(server, "toys-1", again).status_code == 200
    assert ask(server, "toys-1", again)["word"] == "toy 1"
    assert {path.parent.name for path in environments.glob(f"*/{STAMP}")} == set(stamps)


def test_a_package_is_checked_in_its_environment(served: tuple[ModelServer, Path]) -> None:
    server, folder = served
    code = CODE.replace("import importlib.metadata", "import toy, importlib.metadata")
    version = write_package(folder, {"model.py": code})
    path = "/idunno/models/checked/packages"
    answer = server.client.post(f"{path}/{version}/check")
    assert (answer.status_code, "No module named 'toy'" in answer.json()["error"]) == (400, True)
    write_environment(folder / version / "files", "3")
    assert server.client.post(f"{path}/{version}/check").status_code == 200


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: (folder / LOCK).write_text("toy==9 --hash=sha256:" + "0" * 64), "toy"),
        (lambda folder: next((folder / "wheels").iterdir()).write_bytes(toy_wheel("4", "Summary: x\n")), "ash"),
        (lambda folder: next((folder / "wheels").iterdir()).unlink(), "toy"),
        (
            lambda folder: (folder / DESCRIPTION).write_text(json.dumps({**interpreter(), "python": "cpython 2.7"})),
            "were locked for cpython 2.7, and this model server has cpython 3",
        ),
        (lambda folder: (folder / DESCRIPTION).write_text("{"), "cannot be read"),
    ],
)
def test_what_cannot_be_installed_is_refused(
    served: tuple[ModelServer, Path], tmp_path: Path, damage: Callable[[Path], object], reason: str
) -> None:
    server, folder = served
    version = write_package(folder, {"model.py": CODE + f"# {tmp_path}\n"})
    write_environment(folder / version / "files", "4")
    damage(folder / version / "files" / FOLDER)
    answer = load(server, "damaged", version)
    assert (answer.status_code, reason in answer.json()["error"]) == (400, True), answer.text
    assert server.client.get("/v2/models/damaged").status_code == 404


def run(test: Callable[[], Any]) -> None:
    asyncio.run(test())


def test_an_interrupted_build_is_made_again(tmp_path: Path) -> None:
    files = tmp_path / "files"
    write_environment(files, "1")
    environments = Environments(tmp_path / "environments", Families())
    key = environments.key(files)
    assert key is not None
    (tmp_path / "environments" / key / "bin").mkdir(parents=True)
    (tmp_path / "environments" / key / "bin" / "python").write_text("half")

    async def test() -> None:
        python = await environments.python(key, files, ())
        done = subprocess.run([python, "-c", "import toy; print(toy.WORD)"], capture_output=True, text=True, check=True)  # noqa: ASYNC221
        assert done.stdout == "toy 1\n"

    run(test)


def test_the_environments_used_longest_ago_are_collected(tmp_path: Path) -> None:
    root = tmp_path / "environments"
    for age in range(KEPT_UNUSED + 4):
        folder = root / f"{age:032x}"
        folder.mkdir(parents=True)
        (folder / STAMP).touch()
        os.utime(folder / STAMP, (1_000_000 - age, 1_000_000 - age))
    (root / "half").mkdir()
    in_use = f"{KEPT_UNUSED + 3:032x}"
    Environments(root, Families()).collect({in_use})
    assert {folder.name for folder in root.iterdir()} == {in_use, *(f"{age:032x}" for age in range(KEPT_UNUSED))}


def test_packages_without_requirements_have_no_environment(tmp_path: Path) -> None:
    assert Environments(tmp_path, Families()).key(tmp_path) is None


def lock(requirements: str, out: Path, *, index: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "UV_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_INDEX_URL", index)
    monkeypatch.setenv("UV_CACHE_DIR", str(out.parent / "cache"))
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    path = out.parent / "requirements.txt"
    path.write_text(requirements)
    return lock_environment(path, out)


def test_requirements_are_locked_and_their_wheels_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheels = {f"toy-{version}-py3-none-any.whl": toy_wheel(version) for version in ("1", "2")}
    with serving(wheels) as index:
        done = lock("toy<2  # not the newest\n", tmp_path / "out", index=index.url, monkeypatch=monkeypatch)
        assert done == {"packages": 1, "bytes": len(wheels["toy-1-py3-none-any.whl"])}
        text = (tmp_path / "out" / LOCK).read_text()
        assert text.startswith("toy==1")
        assert hashlib.sha256(wheels["toy-1-py3-none-any.whl"]).hexdigest() in text
        assert json.loads((tmp_path / "out" / DESCRIPTION).read_text()) == interpreter()
        with pytest.raises(LockError, match="toy"):
            lock("toy>5\n", tmp_path / "none", index=index.url, monkeypatch=monkeypatch)
        empty = lock("# nothing\n", tmp_path / "empty", index=index.url, monkeypatch=monkeypatch)
        assert empty["packages"] == 0


def test_a_requirements_file_may_say_where_its_wheels_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / "toy-1-py3-none-any.whl").write_bytes(toy_wheel("1"))
    text = "--no-index  # nowhere else\n--find-links wheels\ntoy\n"
    assert lock(text, tmp_path / "out", index="http://127.0.0.1:9", monkeypatch=monkeypatch)["packages"] == 1


def test_the_tool_says_why_it_failed(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "idunno_model_server.lock_environment", str(tmp_path / "gone.txt"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "gone.txt" in json.loads(done.stdout)["failed"]


NUMPY = """
import numpy, sys
from idunno_model_server.api import BatchModel

class Numbers(BatchModel):
    def predict(self, inputs):
        return [{"numpy": numpy.__version__, "sum": numpy.ones(3).sum()} for _ in inputs]
    def canary(self):
        return b"x"
"""


@pytest.mark.skipif(ONLINE not in os.environ, reason=f"downloads two versions of numpy: set {ONLINE}=1")
def test_two_versions_of_numpy_side_by_side(served: tuple[ModelServer, Path], tmp_path: Path) -> None:
    server, folder = served
    found = {}
    for version in ("1.26.4", "2.4.0"):
        package = write_package(folder, {"model.py": NUMPY + f"# {version}\n"})
        requirements = tmp_path / f"{version}.txt"
        requirements.write_text(f"numpy=={version}\n")
        lock_environment(requirements, folder / package / "files" / FOLDER)
        assert load(server, f"numpy-{version}", package).status_code == 200
        found[version] = package
    for version, package in found.items():
        assert ask(server, f"numpy-{version}", package) == {"numpy": version, "sum": 3.0}
    wait_until(lambda: server.process.poll() is None, "the server")
