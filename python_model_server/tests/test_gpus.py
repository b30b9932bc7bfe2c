"""GPUs, as a fake nvidia-smi on the path reports them: what is discovered, and which runner sees which."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from conftest import ModelServer, wait_until
from test_packages import infer, load, write_package
from wire import outputs

from idunno_model_server.errors import MemoryShortageError, ModelLoadError
from idunno_model_server.gpus import ON_CPU, Gpu, Gpus, parse, places, visible
from idunno_model_server.models.description import Limits
from idunno_model_server.runners.process_family import Families, process_table

CODE = """
import os, pathlib, time
from idunno_model_server.api import BatchModel

class Devices(BatchModel):
    def setup(self, context):
        self.seen = {"device": context.device, "visible": os.environ.get("CUDA_VISIBLE_DEVICES"), "pid": os.getpid()}
    def predict(self, inputs):
        if inputs[0].startswith(b"wait for "):
            print("waiting")
            while not pathlib.Path(inputs[0].removeprefix(b"wait for ").decode()).exists():
                time.sleep(0.01)
        if inputs == [b"exit"]:
            os._exit(1)
        return [self.seen for _ in inputs]
    def canary(self):
        return b"x"
"""
GPU_CODE = CODE.replace("(BatchModel):", "(BatchModel):\n    device = 'cuda'\n    memory_mib = 5_000_000")
TWO = "0, GPU-aaaa, NVIDIA Fake, 8000000, 1000\n1, GPU-bbbb, NVIDIA Fake, 8000000, 7000000\n"


class FakeMachine:
    """A folder for the path, with an nvidia-smi that prints a file."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.report = folder / "report"
        self.asked = folder / "asked"
        self.set_gpus("")
        self.script(f'echo "$@" >> "{self.asked}"\nexec cat "{self.report}"')

    def set_gpus(self, text: str) -> None:
        self.report.write_text(text)

    def script(self, text: str) -> None:
        program = self.bin / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{text}\n")
        program.chmod(0o755)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeMachine:
    fake = FakeMachine(tmp_path)
    monkeypatch.setenv("PATH", f"{fake.bin}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return fake


@pytest.fixture
def served(machine: FakeMachine, start_server: Callable[..., ModelServer], tmp_path: Path) -> tuple[ModelServer, Path]:
    machine.set_gpus(TWO)
    folder = tmp_path / "packages"
    folder.mkdir()
    return start_server("--packages-dir", str(folder)), folder


def ask(server: ModelServer, model: str, version: str, row: bytes = b"x") -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(outputs(infer(server, model, version, row))[0])
    return answer


def report(server: ModelServer) -> dict[str, Any]:
    found: dict[str, Any] = server.client.get("/idunno/runners").json()
    return found


def stats_of(server: ModelServer) -> list[dict[str, Any]]:
    """The runners of the model, with what they printed last."""
    found: list[dict[str, Any]] = server.client.get("/v2/models/devices/stats").json()["model_stats"][0]["runners"]
    return found


def pid_less(answer: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in answer.items() if key != "pid"}


def test_a_model_runs_where_its_memory_fits_and_sees_that_device_alone(served: tuple[ModelServer, Path]) -> None:
    server, folder = served
    version = write_package(folder, {"model.py": GPU_CODE})
    assert load(server, "devices", version).status_code == 200
    assert pid_less(ask(server, "devices", version)) == {"device": "cuda:0", "visible": "GPU-aaaa"}
    found = report(server)
    assert [(gpu["index"], gpu["uuid"], gpu["memory_mib"], gpu["memory_used_mib"]) for gpu in found["devices"]] == [
        (0, "GPU-aaaa", 8_000_000, 1000),
        (1, "GPU-bbbb", 8_000_000, 7_000_000),
    ]
    (runner,) = found["runners"]
    assert (runner["model"], runner["version"], runner["device"]) == ("devices", version, "cuda:0")
    assert (runner["state"], runner["pid"]) == ("running", ask(server, "devices", version)["pid"])
    wait_until(lambda: report(server)["runners"][0]["memory_mib"] > 0, "the runner's memory")


def test_several_devices_are_several_runners(served: tuple[ModelServer, Path], tmp_path: Path) -> None:
    server, folder = served
    version = write_package(folder, {"model.py": CODE}, device="auto", memory_mib=1000)
    assert load(server, "devices", version).status_code == 200
    runners = report(server)["runners"]
    assert [runner["device"] for runner in runners] == ["cuda:0", "cuda:1"]
    assert [runner["device"] for runner in stats_of(server)] == ["cuda:0", "cuda:1"]

    # The runner that has less to do answers, and while one is started again, the other does.
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(ask, server, "devices", version, f"wait for {tmp_path / 'go'}".encode())
        wait_until(lambda: ["waiting"] in [runner["last_lines"] for runner in stats_of(server)], "a busy runner")
        seen = {ask(server, "devices", version)["visible"] for _ in range(5)}
        (tmp_path / "go").touch()
        assert len(seen) == 1
        assert {*seen, waiting.result()["visible"]} == {"GPU-aaaa", "GPU-bbbb"}
    assert infer(server, "devices", version, b"exit").status_code == 500
    pids = {ask(server, "devices", version)["pid"] for _ in range(5)}
    assert pids <= {runner["pid"] for runner in runners}
    wait_until(lambda: all(runner["state"] == "running" for runner in report(server)["runners"]), "both runners")


def test_a_model_of_the_cpu_sees_no_gpu_and_starts_once(served: tuple[ModelServer, Path], tmp_path: Path) -> None:
    server, folder = served
    at = str(tmp_path / "starts")
    # A model can write no file that outlives it, but to a socket.
    tell = f"import socket\nsocket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b'a start', {at!r})\n"
    version = write_package(folder, {"model.py": tell + CODE})
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as starts:
        starts.bind(at)
        starts.setblocking(False)
        assert load(server, "devices", version).status_code == 200
        assert pid_less(ask(server, "devices", version)) == {"device": "cpu", "visible": ""}
        assert starts.recv(100) == b"a start"
        with pytest.raises(BlockingIOError):
            starts.recv(100)
    assert [runner["device"] for runner in report(server)["runners"]] == ["cpu"]


def test_a_model_that_fits_nowhere_is_refused_or_runs_on_the_cpu(
    served: tuple[ModelServer, Path], machine: FakeMachine
) -> None:
    server, folder = served
    machine.set_gpus(TWO.replace("1000\n", "7900000\n"))
    version = write_package(folder, {"model.py": GPU_CODE})
    answer = load(server, "devices", version)
    assert answer.status_code == 507
    assert "needs 5000000 MiB of a GPU's memory, and the freest, 1 (NVIDIA Fake), has 1000000" in answer.json()["error"]
    assert report(server)["runners"] == []
    version = write_package(folder, {"model.py": CODE}, device="auto", memory_mib=2_000_000)
    answer = load(server, "devices", version)
    assert answer.status_code == 507, "neither a GPU nor this machine has so much"
    # Memory that was freed counts at the next load.
    machine.set_gpus(TWO)
    assert load(server, "devices", version).status_code == 200
    assert [runner["device"] for runner in report(server)["runners"]] == ["cuda:0"]


def test_a_model_whose_second_runner_fails_leaves_no_process(served: tuple[ModelServer, Path]) -> None:
    server, folder = served
    code = CODE.replace(
        "        self.seen",
        "        if os.environ['CUDA_VISIBLE_DEVICES'] == 'GPU-bbbb': raise OSError('bad')\n        self.seen",
    )
    version = write_package(folder, {"model.py": code}, device="cuda")
    answer = load(server, "devices", version)
    assert (answer.status_code, "bad" in answer.json()["error"]) == (400, True)
    assert report(server)["runners"] == []
    wait_until(
        lambda: not [entry for entry in process_table().values() if entry.parent == server.process.pid],
        "the end of its processes",
    )


# --- without a server ---


def gpus_read(age_s_max: float = 0) -> list[Gpu]:
    return asyncio.run(Gpus(Families()).read(age_s_max))


def test_what_nvidia_smi_says_is_read(machine: FakeMachine) -> None:
    machine.set_gpus("0, GPU-1, NVIDIA H200, 143771, 512\n1, GPU-2, Odd, [N/A], [N/A]\nno line of it\n")
    first, second = gpus_read()
    assert first == Gpu(0, "GPU-1", "NVIDIA H200", 143771, 512)
    assert (second.memory_mib, second.reason) == (0, "nvidia-smi does not tell its memory")
    assert "--format=csv,noheader,nounits" in machine.asked.read_text()
    machine.script("exit 9")
    assert gpus_read() == []
    (machine.bin / "nvidia-smi").unlink()
    assert gpus_read() == []


def test_an_nvidia_smi_that_hangs_costs_a_few_seconds_and_leaves_no_process(machine: FakeMachine) -> None:
    machine.set_gpus(TWO)

    def children() -> set[int]:
        own = os.getpid()
        return {entry.pid for entry in process_table().values() if entry.parent == own and entry.state != "Z"}

    async def test() -> None:
        before = children()
        gpus = Gpus(Families())
        known = await gpus.read()
        machine.script("sleep 600")
        start_s = time.monotonic()
        assert await gpus.read() == known, "it is not asked again so soon"
        assert await gpus.read(age_s_max=0) == known, "what was known counts until it answers"
        assert time.monotonic() - start_s < 30
        assert children() <= before

    asyncio.run(test())


def test_devices_that_are_hidden_from_the_server_are_not_used() -> None:
    both = parse(TWO)
    assert [gpu.reason for gpu in visible(both, {})] == ["", ""]
    for text, hidden in (("1", [0]), ("GPU-aa", [1]), ("0,1", []), ("", [0, 1]), ("-1", [0, 1])):
        found = visible(both, {"CUDA_VISIBLE_DEVICES": text})
        assert [gpu.index for gpu in found if gpu.reason == "CUDA_VISIBLE_DEVICES hides it"] == hidden
    assert visible(both, {"CUDA_VISIBLE_DEVICES": "MIG-1234"}) == [], "whoever chose a part of one knows better"
    none = visible(both, {"CUDA_VISIBLE_DEVICES": ""})
    with pytest.raises(ModelLoadError, match="GPU 0: CUDA_VISIBLE_DEVICES hides it, GPU 1: "):
        places(none, Limits(1, 1, "cuda", None, None))
    assert places(none, Limits(1, 1, "auto", None, None)) == [ON_CPU]


def test_places_are_the_devices_with_room() -> None:
    both = parse(TWO)

    def devices(memory_mib: int | None) -> list[str]:
        return [place.device for place in places(both, Limits(1, 1, "cuda", memory_mib, None))]

    assert devices(None) == ["cuda:0", "cuda:1"]
    assert devices(1_000_000) == ["cuda:0", "cuda:1"]
    assert devices(1_000_001) == ["cuda:0"]
    with pytest.raises(MemoryShortageError):
        devices(7_999_001)
