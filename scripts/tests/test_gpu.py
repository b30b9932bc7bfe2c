"""The drop-in that lets units use GPUs, written below a root of its own."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parent.parent
UNITS = ("idunno-model-server", "idunno-member")


def run(root, *words):
    environment = {**os.environ, "IDUNNO_ROOT": str(root)}
    script = SCRIPTS / "idunno-setup-gpu"
    return subprocess.run([script, *words], env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def root(tmp_path):
    """A machine with both units and a GPU."""
    (tmp_path / "etc/systemd/system").mkdir(parents=True)
    for unit in UNITS:
        shutil.copy(SCRIPTS / f"systemd/{unit}.service", tmp_path / "etc/systemd/system")
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvidia0").touch()
    return tmp_path


def drop_ins(root):
    return sorted(str(file.relative_to(root / "etc/systemd/system")) for file in root.rglob("gpu.conf"))


def test_units_that_are_installed_get_the_drop_in_and_lose_it_again(root):
    done = run(root)
    assert done.returncode == 0, done.stderr
    assert drop_ins(root) == sorted(f"{unit}.service.d/gpu.conf" for unit in UNITS)
    assert "/dev/nvidia0" in done.stdout
    text = (root / "etc/systemd/system/idunno-member.service.d/gpu.conf").read_text()
    assert "DeviceAllow=char-nvidia* rw" in text
    again = run(root, "--unit", "idunno-member.service")
    assert again.returncode == 0 and again.stdout.count("may use") == 1
    removed = run(root, "--remove")
    assert removed.returncode == 0 and drop_ins(root) == []
    assert not list(root.rglob("*.service.d"))


def test_without_a_gpu_or_a_unit_nothing_is_written(root):
    (root / "dev/nvidia0").unlink()
    refused = run(root)
    assert refused.returncode == 1 and "no GPU is found" in refused.stderr
    assert drop_ins(root) == []
    assert run(root, "--force").returncode == 0 and len(drop_ins(root)) == 2
    for unit in UNITS:
        (root / f"etc/systemd/system/{unit}.service").unlink()
    refused = run(root, "--force")
    assert refused.returncode == 1 and "name a unit" in refused.stderr
    assert run(root, "--unit", "../x").returncode == 2


def test_only_groups_of_the_machine_are_named(root):
    """A unit with a group that does not exist does not start."""
    text = run(root, "--dry-run").stdout
    named = next((line for line in text.splitlines() if line.startswith("SupplementaryGroups=")), "=")
    for group in named.partition("=")[2].split():
        assert subprocess.run(["getent", "group", group], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("unit", UNITS)
def test_systemd_takes_the_unit_with_the_drop_in(root, unit):
    run(root)
    folder = root / "etc/systemd/system"
    file = folder / f"{unit}.service"
    program = "/usr/local/bin/idunnod", "/opt/idunno/venv/bin/python"
    text = file.read_text()
    for name in program:
        text = text.replace(f"{name} ", "/bin/true ")
    drop_in = (folder / f"{unit}.service.d/gpu.conf").read_text().replace("/usr/bin/nvidia-modprobe", "/bin/true")
    # systemd-analyze reads no drop-ins of files outside its own folders.
    file.write_text(text.replace("[Install]", drop_in.replace("[Service]\n", "") + "\n[Install]"))
    verified = subprocess.run(["systemd-analyze", "verify", file], capture_output=True, text=True, check=False)
    assert verified.returncode == 0 and not verified.stderr.strip(), verified.stderr
    words = ["systemd-analyze", "security", "--offline=true", "--threshold=25", file]
    exposed = subprocess.run(words, capture_output=True, text=True, check=False)
    assert exposed.returncode == 0, exposed.stdout[-300:]


@pytest.mark.parametrize(
    ("nvidia_smi", "reason"),
    [
        (None, "nvidia-smi is not on the PATH"),
        ("echo 'NVIDIA-SMI has failed'; exit 9", "nvidia-smi says 'NVIDIA-SMI has failed'"),
        ("echo 'No devices were found'", "nvidia-smi lists none"),
    ],
)
def test_without_a_gpu_the_script_that_tests_one_says_so_in_one_sentence(tmp_path, nvidia_smi, reason):
    for program in ("bash", "dirname", "timeout"):
        (tmp_path / program).symlink_to(shutil.which(program))
    if nvidia_smi is not None:
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{nvidia_smi}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
        (tmp_path / "sh").symlink_to(shutil.which("sh"))
    environment = {"PATH": str(tmp_path)}
    done = subprocess.run([SCRIPTS / "test-gpu.sh"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr == f"test-gpu.sh: there is no GPU to test: {reason}\n"
