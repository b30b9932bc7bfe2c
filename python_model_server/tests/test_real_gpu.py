"""A model on a real GPU: skipped where there is none, unless scripts/test-gpu.sh says that there must be one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import ModelServer, wait_until
from cuda_driver_model import HELD_MIB
from test_packages import infer, load, write_package
from wire import outputs

REQUIRED = "IDUNNO_TEST_GPU"
CODE = Path(__file__).with_name("cuda_driver_model.py").read_text()
OWN_CONTEXT_MIB = 64
"""How much more than before a device's memory may hold once the model is gone: other programs use it, too."""


def has_gpu() -> bool:
    program = shutil.which("nvidia-smi")
    if program is None:
        return False
    listed = subprocess.run([program, "-L"], capture_output=True, text=True, check=False, timeout=60)
    return listed.returncode == 0 and "GPU " in listed.stdout


pytestmark = pytest.mark.skipif(
    REQUIRED not in os.environ and not has_gpu(), reason="there is no GPU: scripts/test-gpu.sh runs it on one"
)


def report(server: ModelServer) -> dict[str, Any]:
    found: dict[str, Any] = server.client.get("/idunno/runners").json()
    return found


def used_mib(server: ModelServer) -> dict[int, int]:
    return {gpu["index"]: gpu["memory_used_mib"] for gpu in report(server)["devices"]}


def test_a_model_computes_on_each_gpu_and_gives_its_memory_back(
    start_server: Callable[..., ModelServer], tmp_path: Path
) -> None:
    server = start_server("--packages-dir", str(tmp_path))
    before = used_mib(server)
    assert before, "nvidia-smi lists GPUs, and the model server does not"
    version = write_package(tmp_path, {"model.py": CODE})
    answer = load(server, "squares", version)
    assert answer.status_code == 200, answer.text
    devices = {gpu["index"]: gpu for gpu in report(server)["devices"]}
    runners = report(server)["runners"]
    assert {runner["device"] for runner in runners} <= {f"cuda:{index}" for index in devices}

    def squares(numbers: list[float]) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(outputs(infer(server, "squares", version, json.dumps(numbers).encode()))[0])
        return found

    numbers = [float(number) for number in range(10_000)]
    found = squares(numbers)
    assert found["squares"][:100] == [number * number for number in numbers[:100]]
    assert found["squares"][-1] == pytest.approx(9999.0**2, rel=1e-6)
    assert found["devices"] == 1, "it sees its own device alone"
    assert found["uuid"] in {gpu["uuid"] for gpu in devices.values()}
    assert found["name"] in {gpu["name"] for gpu in devices.values()}
    index = next(gpu["index"] for gpu in devices.values() if gpu["uuid"] == found["uuid"])
    wait_until(lambda: used_mib(server)[index] >= before[index] + HELD_MIB, "its memory on the device")

    os.kill(next(runner["pid"] for runner in runners if runner["device"] == f"cuda:{index}"), signal.SIGKILL)
    wait_until(lambda: all(runner["state"] == "running" for runner in report(server)["runners"]), "a new process")
    assert load(server, "squares", version).status_code == 200
    assert squares([3.0])["squares"] == [9.0]

    assert server.client.post("/v2/repository/models/squares/unload", json={}).status_code == 200
    wait_until(lambda: used_mib(server)[index] <= before[index] + OWN_CONTEXT_MIB, "the memory to be given back")
    assert report(server)["runners"] == []
