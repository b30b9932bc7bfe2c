"""Models that come as packages: folders with a manifest, as a member puts them down."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import ModelServer
from wire import binary_request, outputs

from idunno_model_server.errors import ModelLoadError, PackageError
from idunno_model_server.execution import open_model
from idunno_model_server.packages import OpenedPackage, open_package, require_requirements
from idunno_model_server.requirements import unmet_requirement
from idunno_model_server.statistics import InferTimes

CODE = """
import json
from pathlib import Path
from idunno_model_server.api import BatchModel, RowError
import helpers
from parts.numbers import offset

class Lengths(BatchModel):
    def setup(self, context):
        import later
        self.added = offset() + later.VALUE + int((context.folder / "data" / "offset.txt").read_text())
        self.word = helpers.WORD
    def predict(self, inputs):
        return [RowError("empty") if not row else {"n": len(row) + self.added, "word": self.word} for row in inputs]
    def canary(self):
        return b"hello"
"""
FILES = {
    "model.py": CODE,
    "helpers.py": "import json\nWORD = json.loads('\"one\"')\n",
    "json.py": "loads = None  # not the standard library's, which other files' imports must still find\n",
    "later.py": "VALUE = 10\n",
    "parts/__init__.py": "",
    "parts/numbers.py": "def offset():\n    from .deep import BASE\n    return BASE\n",
    "parts/deep.py": "BASE = 100\n",
    "data/offset.txt": "1000",
}


def write_package(packages: Path, files: dict[str, str], entry: str = "model.py", **settings: Any) -> str:
    """Puts a package down as a member does, and returns its version."""
    manifest = {"format": 1, "runtime": "python", "entry": entry, "settings": settings, "files": []}
    version = hashlib.sha256(json.dumps([manifest, files]).encode()).hexdigest()
    for path, text in files.items():
        target = packages / version / "files" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    (packages / version / "manifest.json").write_text(json.dumps(manifest))
    return version


def opened(tmp_path: Path, files: dict[str, str], **settings: Any) -> OpenedPackage:
    return open_package(tmp_path / write_package(tmp_path, files, **settings), "mine")


def answers(package: OpenedPackage, rows: list[bytes]) -> list[Any]:
    given = open_model(package.model, package.manifest).answer(rows, InferTimes())
    return [json.loads(answer) if isinstance(answer, bytes) else str(answer) for answer in given]


WITHOUT_OWN_JSON = {path: text for path, text in FILES.items() if path != "json.py"}


def test_a_package_imports_its_own_files_and_reads_its_weights(tmp_path: Path) -> None:
    package = opened(tmp_path, WITHOUT_OWN_JSON)
    assert package.model.name == "mine", "the package's name, not the class's"
    assert answers(package, [b"abc", b""]) == [{"n": 1113, "word": "one"}, "empty"]


def test_two_versions_with_files_of_the_same_names_do_not_mix(tmp_path: Path) -> None:
    first = opened(tmp_path, WITHOUT_OWN_JSON)
    second = opened(tmp_path, {**WITHOUT_OWN_JSON, "helpers.py": 'WORD = "two"\n', "later.py": "VALUE = 20\n"})
    assert answers(second, [b"abc"]) == [{"n": 1123, "word": "two"}]
    assert answers(first, [b"abc"]) == [{"n": 1113, "word": "one"}]
    assert "helpers" not in sys.modules
    assert "parts" not in sys.modules


def test_a_file_named_like_a_standard_module_is_seen_by_the_package_alone(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match=r"model\.py: .*NoneType.* not callable"):
        opened(tmp_path, FILES)
    assert json.loads("1") == 1
    assert not list((tmp_path).rglob("__pycache__")), "nothing is written into a package"


def test_forgetting_a_package_leaves_no_module(tmp_path: Path) -> None:
    before = set(sys.modules)
    package = opened(tmp_path, WITHOUT_OWN_JSON)
    assert set(sys.modules) - before
    package.forget()
    assert not [name for name in set(sys.modules) - before if name.startswith("idunno_package_")]


@pytest.mark.parametrize(
    ("files", "settings", "reason"),
    [
        ({"model.py": "x = ("}, {}, "SyntaxError"),
        ({"model.py": "\nimport nothing_like_this"}, {}, "line 2: ModuleNotFoundError: .*nothing_like_this"),
        ({"model.py": "x = 1"}, {}, "defines no class that derives from BatchModel or Model"),
        ({"model.py": "import sys\nsys.exit(3)"}, {}, "line 2: SystemExit: 3"),
        (
            {"model.py": "from idunno_model_server.api import BatchModel\nclass A(BatchModel): pass"},
            {},
            "class A: it does not define canary, predict",
        ),
        ({"model.py": CODE + "\nclass Other(Lengths): pass", **WITHOUT_OWN_JSON}, {"class": "Gone"}, "no class 'Gone'"),
        (WITHOUT_OWN_JSON, {"batch_max": 0}, "batch_max must be from 1"),
        (WITHOUT_OWN_JSON, {"artefact": "gone.bin"}, "the artefact 'gone.bin', which is not in the package"),
    ],
)
def test_what_is_no_model_is_refused_and_the_reason_names_the_place(
    tmp_path: Path, files: dict[str, str], settings: dict[str, Any], reason: str
) -> None:
    before = set(sys.modules)
    with pytest.raises(PackageError, match=reason):
        opened(tmp_path, files, **settings)
    assert not [name for name in set(sys.modules) - before if name.startswith("idunno_package_")]


def test_a_requirement_that_is_not_met_is_named(tmp_path: Path) -> None:
    version = write_package(tmp_path, {**WITHOUT_OWN_JSON, "requirements.txt": "numpy\nnot-a-package>=2\n"})
    with pytest.raises(PackageError, match="not-a-package is not installed"):
        require_requirements(tmp_path / version)


def test_of_several_classes_one_must_be_named(tmp_path: Path) -> None:
    files = {**WITHOUT_OWN_JSON, "model.py": CODE + '\nclass More(Lengths):\n    description = "more"\n'}
    with pytest.raises(PackageError, match=r"several models \(Lengths, More\)"):
        opened(tmp_path, files)
    package = opened(tmp_path, files, **{"class": "More", "batch_max": 7, "row_timeout_s": 90})
    kind = type(package.model)
    assert (kind.description, kind.batch_max, kind.row_timeout_s) == ("more", 7, 90)


TRAINED = """
import json
from idunno_model_server.api import Model, Runner

class Votes(Model):
    name, description, suffix = "votes", "counts", ".json"
    def train(self, dataset, run): raise NotImplementedError
    def load(self, artefact): return VotesRunner(json.loads(artefact.read_text()))
    def canary(self): return b"a"

class VotesRunner(Runner):
    def __init__(self, votes): self.votes = votes
    def decode(self, content): return bytes(content).decode()
    def predict(self, word): return self.votes.get(word, 0)
    def encode(self, count): return json.dumps(count).encode()
"""


def test_a_trained_class_brings_its_artefact(tmp_path: Path) -> None:
    files = {"model.py": TRAINED, "votes.json": '{"a": 5}'}
    with pytest.raises(ModelLoadError, match="it is not trained yet: run 'idunno train-start mine'"):
        answers(opened(tmp_path, files), [b"a"])
    assert answers(opened(tmp_path, files, artefact="votes.json"), [b"a", b"b"]) == [5, 0]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", None),
        ("# nothing\n\nnumpy\n", None),
        ("numpy>=1,<1000 \\\n    --hash=sha256:00\n", None),
        ("numpy[extra]>=1 ; python_version > '3'", None),
        ("numpy==0.1", "numpy==0.1 is required, and version .* is installed"),
        ("numpy~=1000.1", "version .* is installed"),
        ("numpy!=0.1", None),
        ("numpy==2.*", None),
        ("no-such-package ; python_version < '3'", None),
        ("no-such-package ; python_version > '3'", "no-such-package is not installed"),
        ("numpy @ https://example.org/numpy.whl", "from which URL"),
        ("-r other.txt", "only names and versions"),
        ("https://example.org/x.whl", "only names and versions"),
    ],
)
def test_requirements_are_compared_with_what_is_installed(text: str, reason: str | None) -> None:
    unmet = unmet_requirement(text)
    if reason is None:
        assert unmet is None
    else:
        assert unmet is not None
        assert re.search(reason, unmet)


@pytest.fixture(scope="module")
def packages_server(
    start_server: Callable[..., ModelServer], tmp_path_factory: pytest.TempPathFactory
) -> tuple[ModelServer, Path]:
    folder = tmp_path_factory.mktemp("packages")
    return start_server("--packages-dir", str(folder)), folder


def load(server: ModelServer, model: str, version: str, **parameters: Any) -> Any:
    parameters = {"version": version, "package": True, "beside": True, **parameters}
    return server.client.post(f"/v2/repository/models/{model}/load", json={"parameters": parameters})


def infer(server: ModelServer, model: str, version: str, row: bytes) -> Any:
    content, headers = binary_request([row])
    return server.client.post(f"/v2/models/{model}/versions/{version}/infer", content=content, headers=headers)


def test_versions_serve_beside_each_other_until_each_is_unloaded(packages_server: tuple[ModelServer, Path]) -> None:
    server, folder = packages_server
    first = write_package(folder, WITHOUT_OWN_JSON)
    second = write_package(folder, {**WITHOUT_OWN_JSON, "helpers.py": 'WORD = "two"\n'})
    assert server.client.post(f"/idunno/models/mine/packages/{first}/check").status_code == 200
    for version in (first, second):
        assert load(server, "mine", version).status_code == 200
    for version, word in ((first, "one"), (second, "two")):
        (answer,) = outputs(infer(server, "mine", version, b"abc"))
        assert json.loads(answer) == {"n": 1113, "word": word}
    assert server.client.get("/v2/models/mine").json()["versions"] == [first, second]
    unload = {"parameters": {"version": first}}
    assert server.client.post("/v2/repository/models/mine/unload", json=unload).status_code == 200
    assert infer(server, "mine", first, b"abc").status_code == 404
    assert infer(server, "mine", second, b"abc").status_code == 200
    server.client.post("/v2/repository/models/mine/unload", json={"parameters": {"version": second}})
    assert server.client.get("/v2/models/mine").status_code == 404, "the model is gone with its last version"


def test_what_cannot_be_a_package_is_refused_over_http(packages_server: tuple[ModelServer, Path]) -> None:
    server, folder = packages_server
    broken = write_package(folder, {"model.py": "x = ("})
    for answer in (load(server, "mine", broken), server.client.post(f"/idunno/models/mine/packages/{broken}/check")):
        assert answer.status_code == 400
        assert "model.py: SyntaxError" in answer.json()["error"]
    for version in ("../../etc", "0" * 64):
        assert load(server, "mine", version).status_code == 400
    wrong = write_package(folder, {**WITHOUT_OWN_JSON, "data/offset.txt": "not a number"})
    answer = load(server, "mine", wrong)
    assert answer.status_code == 400
    assert "model.py, line" in answer.json()["error"], "where setup failed"


def test_a_server_without_a_folder_loads_no_packages(server: ModelServer) -> None:
    answer = load(server, "mine", "0" * 64)
    assert answer.status_code == 400
    assert "--packages-dir" in answer.json()["error"]
