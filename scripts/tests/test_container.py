"""The container image: what its files name exists in the release, in the package, and in the programs' settings."""

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / "scripts/container"
DOCKERFILE = (FOLDER / "Dockerfile").read_text()
COMPOSE = (FOLDER / "compose.yaml").read_text()
ENTRYPOINT = FOLDER / "entrypoint"
PACKAGE = (ROOT / "scripts/package.sh").read_text()
POSTINST = (ROOT / "scripts/debian/postinst").read_text()
SETTINGS = (ROOT / "docs/idunnod.toml").read_text()
GATEWAY = (ROOT / "daemon/gateway/src/main.rs").read_text()
RELEASE = (ROOT / "scripts/release.sh").read_text()


def test_a_release_has_what_the_image_copies(tmp_path):
    words = [ROOT / "scripts/release.sh", "--only", "container", "--out", tmp_path / "release"]
    subprocess.run(words, check=True, capture_output=True)
    made = {path.name for path in (tmp_path / "release").iterdir()}
    assert made == {"Dockerfile", ".dockerignore", "entrypoint", "compose.yaml", "SHA256SUMS"}
    for source in re.findall(r"^COPY (?:--\S+ )*(\S+) ", DOCKERFILE, re.MULTILINE):
        assert source in made or source == "idunno_*.deb", source
        # What is ignored cannot be copied.
        assert f"!{source}" in (FOLDER / ".dockerignore").read_text().splitlines()
    # The package's name is that which the image looks for.
    assert 'package="$out/idunno_${version}_$architecture.deb"' in PACKAGE


def test_the_package_has_the_programs_that_are_run():
    script = ENTRYPOINT.read_text()
    for program in {"idunno", "idunnod", "idunno-gateway"}:
        assert re.search(rf"exec {program}( |$)", script, re.MULTILINE), program
        assert f"/usr/bin/{program}" in PACKAGE or "/usr/bin/$program" in PACKAGE
    assert "/usr/sbin/idunno-setup-python" in PACKAGE
    assert "idunno-setup-python" in DOCKERFILE
    # The environment is where that program makes it.
    assert "venv=/opt/idunno/venv\n" in (ROOT / "scripts/idunno-setup-python").read_text()
    assert "/opt/idunno/venv/bin/python" in script


def test_every_setting_exists():
    used = set(re.findall(r"IDUNNO_[A-Z_]+", DOCKERFILE + COMPOSE + ENTRYPOINT.read_text()))
    settings = set(re.findall(r"IDUNNO_[A-Z_]+", SETTINGS)) | set(re.findall(r"IDUNNO_[A-Z_]+", GATEWAY))
    # Those of the command line, and of members whose users have no home.
    settings |= {"IDUNNO_IDENTITY", "IDUNNO_MODELS_DIR"}
    unit = (ROOT / "scripts/systemd/idunno-member.service").read_text()
    assert "IDUNNO_MODELS_DIR" in unit
    assert 'env = "IDUNNO_IDENTITY"' in (ROOT / "tui/src/command/mod.rs").read_text()
    assert used <= settings, used - settings
    assert {"IDUNNO_SECRET", "IDUNNO_INTRODUCER", "IDUNNO_CLUSTER"} <= used
    assert re.findall(r"gateway, (--\S+),", COMPOSE) == ["--listen"]
    assert "listen" in GATEWAY


def test_the_ports_are_the_programs():
    member, introducer = re.search(r"default: 0\.0\.0\.0:(\d+), introducer 0\.0\.0\.0:(\d+)", SETTINGS).groups()
    gateway = re.search(r"127\.0\.0\.1:(\d+)", GATEWAY)[1]
    exposed = re.search(r"^EXPOSE (.*)$", DOCKERFILE, re.MULTILINE)[1].split()
    assert exposed == [introducer, f"{member}/tcp", f"{member}/udp", gateway]
    assert f"IDUNNO_INTRODUCER: introducer:{introducer}\n" in COMPOSE
    cluster = re.search(r"IDUNNO_CLUSTER: (.*)$", COMPOSE, re.MULTILINE)[1].split(",")
    assert cluster == [f"m{number}:{member}" for number in range(1, 6)]
    assert f'ports: ["{gateway}:{gateway}"]' in COMPOSE
    listened = re.search(r"IDUNNO_METRICS_LISTEN: (\S+)", COMPOSE)[1]
    assert f"http://{listened}/health/ready" in COMPOSE
    assert '"/health/ready"' in "".join(path.read_text() for path in (ROOT / "daemon/src/metrics").glob("*.rs"))


def test_the_folders_belong_to_the_user():
    # The package's folder for data, which volumes are copies of, and the one that the image makes.
    assert "-o idunno -g idunno /var/lib/idunno " in POSTINST
    assert "install -d -m 0700 -o idunno -g idunno /var/lib/idunno-secret" in DOCKERFILE
    user, group = re.search(r"^USER (\d+):(\d+)$", DOCKERFILE, re.MULTILINE).groups()
    assert f"--gid {group} idunno" in DOCKERFILE
    assert f"--uid {user} --gid idunno" in DOCKERFILE
    assert f"the user {user} of the image" in COMPOSE


def test_each_member_has_a_volume_of_its_own():
    services = re.findall(r"^  (m\d|introducer):\n    <<: \*\w+\n(.*?)\n\n", COMPOSE, re.MULTILINE | re.DOTALL)
    names = [name for name, _ in services]
    assert names == ["introducer", "m1", "m2", "m3", "m4", "m5"]
    for name, text in services:
        assert f'"{name}:/var/lib/idunno"' in text
        assert name == "introducer" or f"IDUNNO_NAME: {name}}}" in text
    declared = re.findall(r"^  (\w+):$", COMPOSE.split("\nvolumes:\n")[1], re.MULTILINE)
    assert sorted(declared) == sorted(["secret", *names])
    # Only one service may make the secret.
    assert COMPOSE.count('"secret:/var/lib/idunno-secret"') == 1


@pytest.fixture
def programs(tmp_path):
    """Stands in for the programs: each prints its words, and what it was told of addresses and Pythons."""
    folder = tmp_path / "bin"
    folder.mkdir()
    text = '#!/bin/sh\necho "${0##*/} $*|${IDUNNO_ADVERTISE:-}|${IDUNNO_MODEL_SERVER_PYTHON:-}"\n'
    for name in ("idunno", "idunnod", "idunno-gateway"):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    (folder / "hostname").write_text('#!/bin/sh\n[ "$*" = -i ] && echo "172.18.0.3 fd00::3"\n')
    (folder / "hostname").chmod(0o755)
    return folder


def enter(programs, *words, **more):
    environment = {"PATH": f"{programs}:{os.defpath}", "IDUNNO_DATA_DIR": "/var/lib/idunno", **more}
    done = subprocess.run([ENTRYPOINT, *words], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_role_is_run_with_the_containers_address(programs):
    venv = "/opt/idunno/venv/bin/python"
    assert enter(programs, "introducer") == "idunnod introducer|172.18.0.3|"
    assert enter(programs, "member", "--name", "m1") == f"idunnod member --name m1|172.18.0.3|{venv}"
    given = {"IDUNNO_ADVERTISE": "10.0.0.2", "IDUNNO_MODEL_SERVER_PYTHON": ""}
    assert enter(programs, "member", **given) == "idunnod member|10.0.0.2|"
    assert enter(programs, "gateway", "--listen", "0.0.0.0:9000") == "idunno-gateway --listen 0.0.0.0:9000||"
    assert enter(programs, "idunno", "status") == "idunno status||"


def test_the_secret_is_made_once(programs, tmp_path):
    secret = tmp_path / "secret.pem"
    made = enter(programs, "secret", IDUNNO_SECRET=str(secret))
    assert made == f"idunno cluster init --out {secret}||"
    secret.write_text("a secret")
    assert enter(programs, "secret", IDUNNO_SECRET=str(secret)) == ""
