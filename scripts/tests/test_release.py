"""The signature of a release, as docs/release.md says, and its bill of materials."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
MAKE, VERIFY = re.findall(r"```sh\n(.*?)```", (ROOT / "docs/release.md").read_text(), re.DOTALL)

pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed")


def shell(script, folder):
    """Runs commands until one fails; answers whether none did."""
    words = ["bash", "-euc", script]
    return subprocess.run(words, cwd=folder, capture_output=True, stdin=subprocess.DEVNULL).returncode == 0


def sign(folder, key):
    words = [ROOT / "scripts/sign_release.sh", *(["--sign", key] if key else []), folder, "idunno.deb", "idunno.whl"]
    return subprocess.run(words, capture_output=True, text=True)


@pytest.fixture
def release(tmp_path):
    """A signed release with the publisher's list of signers."""
    (tmp_path / "idunno.deb").write_bytes(b"a package")
    (tmp_path / "idunno.whl").write_bytes(b"a wheel")
    # Without a passphrase, for which a person would be asked.
    assert shell(MAKE.replace("ssh-keygen -t", "ssh-keygen -q -N '' -t"), tmp_path)
    assert sign(tmp_path, tmp_path / "release-key").returncode == 0
    return tmp_path


def test_what_was_signed_is_verified(release):
    assert shell(VERIFY, release)
    sums = (release / "SHA256SUMS").read_text().splitlines()
    assert [line.split()[1] for line in sums] == ["idunno.deb", "idunno.whl"]


@pytest.mark.parametrize("name", ["idunno.deb", "idunno.whl", "SHA256SUMS", "SHA256SUMS.sig"])
def test_a_changed_file_is_refused(release, name):
    path = release / name
    path.write_bytes(path.read_bytes().replace(b"a", b"e"))
    assert not shell(VERIFY, release)


def test_changed_files_with_new_sums_are_refused(release):
    (release / "idunno.deb").write_bytes(b"another package")
    signature = (release / "SHA256SUMS.sig").read_bytes()
    assert sign(release, None).returncode == 0
    assert not (release / "SHA256SUMS.sig").exists(), "the old signature must not stay"
    (release / "SHA256SUMS.sig").write_bytes(signature)
    assert not shell(VERIFY, release)


def test_another_key_is_refused(release):
    (release / "other").mkdir()
    assert shell(MAKE.replace("ssh-keygen -t", "ssh-keygen -q -N '' -t"), release / "other")
    assert sign(release, release / "other/release-key").returncode == 0
    assert not shell(VERIFY, release)


def test_a_signature_for_another_purpose_is_refused(release):
    (release / "SHA256SUMS.sig").unlink()
    assert shell("ssh-keygen -q -Y sign -n file -f release-key SHA256SUMS", release)
    assert not shell(VERIFY, release)


def test_a_key_that_is_missing_is_said_before_anything_is_made(tmp_path):
    words = [ROOT / "scripts/release.sh", "--out", tmp_path / "out", "--sign", tmp_path / "none"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, f"release.sh: there is no key {tmp_path}/none\n")


def test_the_bill_of_materials_has_what_is_compiled_and_nothing_else(tmp_path):
    pytest.importorskip("cyclonedx", reason="only what builds releases has it")
    made = []
    for name in ("one.json", "two.json"):
        words = [sys.executable, ROOT / "scripts/sbom.py", tmp_path / name]
        subprocess.run(words, check=True, env={**os.environ, "SOURCE_DATE_EPOCH": "1796000000"})
        made.append((tmp_path / name).read_bytes())
    assert made[0] == made[1]
    components = {one["name"]: one for one in json.loads(made[0])["components"]}
    # Of the daemon, of its feature parquet, of the gateway, of the Python client, of the model server.
    assert {"openraft", "parquet", "s3s", "pyo3", "numpy"} <= set(components)
    # Of tests and of builds.
    assert not {"insta", "proptest", "cc", "idunno-shared"} & set(components)
    lock = tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]
    (sum_of_openraft,) = [one["checksum"] for one in lock if one["name"] == "openraft"]
    assert components["openraft"]["hashes"] == [{"alg": "SHA-256", "content": sum_of_openraft}]
    assert all("licenses" in one for one in components.values() if one["purl"].startswith("pkg:cargo/"))
