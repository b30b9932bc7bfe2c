"""What the set-up scripts install: locked wheels and data files, and nothing that runs code of a package."""

import hashlib
import io
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parent.parent
ROOT = SCRIPTS.parent
PACKAGE = ROOT / "python_model_server/src/idunno_model_server"
sys.path.insert(0, str(SCRIPTS))

import audit_python  # noqa: E402

WEIGHTS = b"weights"


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def wheel(name, files):
    """A wheel of version 1 with these files."""
    info = f"{name}-1.dist-info"
    files = files | {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for path, data in (files | {f"{info}/RECORD": record.encode()}).items():
            archive.writestr(zipfile.ZipInfo(path), data)
    return content.getvalue()


def data_archive(init=b"raise SystemExit"):
    """What has the data: an archive of code that must never be installed."""
    return wheel("weights", {"weights/__init__.py": init, "weights-nspkg.pth": b"import weights\n", "w.bin": WEIGHTS})


class Vm:
    """A directory with what idunno-setup-python needs: a package, its locks, and wheels."""

    def __init__(self, folder):
        self.venv, self.source, self.wheels = folder / "venv", folder / "source", folder / "wheels"
        self.source.mkdir()
        self.wheels.mkdir()
        self.lock("toy-1-py3-none-any.whl", wheel("toy", {"toy.py": b""}))
        (self.wheels / "weights-1-py3-none-any.whl").write_bytes(data_archive())
        lock = f"""[[archive]]
project = "weights"
file = "weights-1-py3-none-any.whl"
size_bytes = {len(data_archive())}
sha256 = "{sha256(data_archive())}"
redistributable = false
[[archive.member]]
path = "w.bin"
name = "w.bin"
size_bytes = {len(WEIGHTS)}
sha256 = "{sha256(WEIGHTS)}"
"""
        code = {f"{PACKAGE.name}/{path.name}": path.read_bytes() for path in PACKAGE.glob("*.py")}
        ours = wheel("idunno_model_server", code | {f"{PACKAGE.name}/data_files.toml": lock.encode()})
        (self.source / "idunno_model_server-1-py3-none-any.whl").write_bytes(ours)
        (self.source / "data_files.toml").write_text(lock)

    def lock(self, file, content):
        """Makes one file the only dependency."""
        (self.wheels / file).write_bytes(content)
        (self.source / "requirements.lock").write_text(f"toy==1 \\\n    --hash=sha256:{sha256(content)}\n")

    def set_up(self):
        words = [SCRIPTS / "idunno-setup-python", "--venv", self.venv, "--source", self.source, "--wheels", self.wheels]
        # pip's settings are the test's alone. The package of the repository, which has another list of data files, must
        # not take the place of the one that is installed.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
        environment |= {"PYTHON": sys.executable, "PIP_CONFIG_FILE": os.devnull, "PYTHONPATH": str(PACKAGE.parent)}
        return subprocess.run(words, capture_output=True, text=True, check=False, env=environment)

    def refuses(self, reason):
        done = self.set_up()
        assert done.returncode != 0 and re.search(reason, done.stderr), done.stderr
        assert not self.venv.exists()


@pytest.fixture
def vm(tmp_path):
    return Vm(tmp_path)


def test_a_vm_without_an_index_gets_locked_wheels_and_data_and_no_code_that_runs(vm):
    done = vm.set_up()
    assert done.returncode == 0, done.stderr
    assert (vm.venv / "share/idunno/data/w.bin").read_bytes() == WEIGHTS
    [packages] = vm.venv.glob("lib/python*/site-packages")
    assert {path.name for path in packages.glob("*.dist-info") if not path.name.startswith("pip-")} == {
        "toy-1.dist-info",
        "idunno_model_server-1.dist-info",
    }
    assert list(packages.glob("*.pth")) == []

    # A change of the list makes a new environment, which takes over the files that are still right.
    before = vm.venv.resolve()
    (vm.wheels / "weights-1-py3-none-any.whl").unlink()
    (vm.source / "data_files.toml").write_text((vm.source / "data_files.toml").read_text() + "# changed\n")
    done = vm.set_up()
    assert done.returncode == 0, done.stderr
    assert vm.venv.resolve() != before and not before.exists()
    assert (vm.venv / "share/idunno/data/w.bin").read_bytes() == WEIGHTS


def test_a_wheel_with_another_hash_is_not_installed(vm):
    (vm.wheels / "toy-1-py3-none-any.whl").write_bytes(wheel("toy", {"toy.py": b"changed = True"}))
    vm.refuses("DO NOT MATCH THE HASHES")


def test_a_data_archive_with_another_digest_ends_the_set_up(vm):
    (vm.wheels / "weights-1-py3-none-any.whl").write_bytes(data_archive(b"raise SystemExi_"))
    vm.refuses(r"weights-1-py3-none-any.whl is not the locked file: its SHA-256 must be [0-9a-f]{64}")


def test_a_source_distribution_is_never_run(vm, tmp_path):
    """Also if its hash is the locked one. It is built by code of its own, which needs no other package."""
    content, ran = io.BytesIO(), tmp_path / "ran"
    files = {
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "b"\nbackend-path = ["."]\n',
        "b.py": f"open({str(ran)!r}, 'w')\n",
    }
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name, text in files.items():
            info = tarfile.TarInfo(f"toy-1/{name}")
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))
    (vm.wheels / "toy-1-py3-none-any.whl").unlink()
    vm.lock("toy-1.tar.gz", content.getvalue())
    done = vm.set_up()
    assert not ran.exists()
    assert done.returncode != 0 and "No matching distribution" in done.stderr, done.stderr


def shell_lines():
    """(file, line) of all scripts; lines that are continued are one."""
    scripts = [*SCRIPTS.glob("*.sh"), SCRIPTS / "idunno-setup-python", *(ROOT / ".ci").iterdir(), ROOT / "justfile"]
    for path in scripts:
        for line in path.read_text().replace("\\\n", " ").splitlines():
            if not line.lstrip().startswith("#"):
                yield path.name, line


def test_cargo_never_changes_the_lock():
    builds = re.compile(r"^[^\"']*(?:\"[^\"]*\"[^\"']*)*\bcargo (build|clippy|test|nextest run|doc|run|bench|deny)\b")
    lines = [(name, line) for name, line in shell_lines() if builds.search(line)]
    assert len(lines) > 10
    assert [(name, line) for name, line in lines if "--locked" not in line] == []


def test_pip_takes_wheels_with_hashes_only():
    calls = [
        (name, line) for name, line in shell_lines() if re.search(r"\bpip_install |\[@\]\}\" |-m pip install", line)
    ]
    locks = {name: line for name, line in calls if re.search(r" -r +\"", line)}
    scripts = {"setup_python.sh", "setup_dev.sh", "package.sh", "idunno-setup-python", "release.sh", "test-python.sh"}
    assert set(locks) == scripts
    for name, line in locks.items():
        assert "--require-hashes --only-binary :all:" in line, name
    # What is made here has no hash, and needs no index.
    ours = [(name, line) for name, line in calls if "--no-build-isolation" in line]
    assert {name for name, _ in ours} == {"setup_python.sh", "package.sh", "idunno-setup-python"}
    for name, line in ours:
        assert "--no-index" in line, name


def package(name, **fields):
    return {"name": name, "version": "1", **fields}


def test_a_known_vulnerability_fails_the_audit_whatever_could_not_be_looked_up():
    flaw = {"id": "PYSEC-1", "fix_versions": ["2"]}
    skipped = package("b", skip_reason="b not found")
    report = {"dependencies": [package("a", vulns=[flaw]), skipped]}
    assert audit_python.judge(report) == (1, ["a 1: PYSEC-1, mended in 2"])


def test_an_audit_that_looked_nothing_up_is_no_success():
    assert audit_python.judge({"dependencies": [package("a", vulns=[])]}) == (0, [])
    assert audit_python.judge({"dependencies": [package("a", vulns=[]), {"name": "b", "skip_reason": "no"}]})[0] == 3
    assert audit_python.judge({"dependencies": []})[0] == 3
