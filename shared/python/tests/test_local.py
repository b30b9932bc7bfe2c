"""Local clusters with what the wheel brings: the daemon's program and the gateway's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import idunno
import pytest
from idunno._local import bundled

needs_gateway = pytest.mark.skipif(bundled("idunno-gateway") is None, reason="this wheel brings no gateway")


def refusal(url: str) -> str:
    """What S3 answers somebody without a key."""
    with pytest.raises(urllib.error.HTTPError) as raised:
        urllib.request.urlopen(url + "/bucket/key", timeout=30)  # noqa: S310 - a URL of this machine
    assert raised.value.code == 403
    return raised.value.read().decode()


@needs_gateway
def test_a_cluster_has_a_gateway_if_it_is_asked_for() -> None:
    with idunno.LocalCluster(members=1, model_servers=False, gateway=True) as cluster:
        assert cluster.gateway is not None
        assert "<Code>AccessDenied</Code>" in refusal(cluster.gateway)
        assert "gateway" in [process["name"] for process in cluster.status()]


@needs_gateway
def test_the_command_line_finds_the_programs_of_the_wheel(tmp_path: Path) -> None:
    kept = {name: value for name, value in os.environ.items() if name[:7] != "IDUNNO_" and name != "PATH"}
    program = [str(Path(sys.executable).parent / "idunno"), "--dir", str(tmp_path / "cluster"), "--output", "json"]

    def run(*words: str) -> str:
        # Nothing is on the PATH: a virtual environment need not be activated.
        environment = {**kept, "PATH": "/nonexistent"}
        done = subprocess.run([*program, *words], capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    up = json.loads(run("local", "up", "--members", "1", "--gateway"))
    try:
        assert "<Code>AccessDenied</Code>" in refusal(up["gateway"])
    finally:
        run("local", "down", "--purge", "--yes")


def test_a_cluster_without_a_gateway_has_no_url() -> None:
    with idunno.LocalCluster(members=1, model_servers=False) as cluster:
        assert cluster.gateway is None
