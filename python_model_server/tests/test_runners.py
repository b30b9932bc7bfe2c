"""Runners: what a model's code does to its process, it does to that process alone."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import venv
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import ModelServer, is_running, wait_until
from test_packages import infer, load, write_package
from wire import binary_response, outputs

from idunno_model_server.errors import ModelFailure, ModelLoadError, RunnerError, RunnerNotReadyError
from idunno_model_server.open_inference import parse_infer
from idunno_model_server.runners.host import RunnerHost
from idunno_model_server.runners.output_tail import LINES_MAX, OutputTail
from idunno_model_server.runners.process_family import Families, family_process
from idunno_model_server.runners.restarts import FAILURES_MAX, PAUSE_S_MAX, WINDOW_S, Restarts
from idunno_model_server.runners.runner_process import RunnerLimits
from idunno_model_server.runners.supervised_runner import SupervisedRunner
from idunno_model_server.sandbox import Needs

# A row says what the model is to do to its process.
CODE = """
import ctypes, importlib.util, os, subprocess, sys, time
from idunno_model_server.api import BatchModel

QUIET = {name: subprocess.DEVNULL for name in ("stdin", "stdout", "stderr")}

def start_children():
    child = subprocess.Popen(["sleep", "600"], **QUIET)
    leader = subprocess.Popen(["sleep", "600"], start_new_session=True, **QUIET)
    shell = ["sh", "-c", "setsid sleep 600 < /dev/null > /dev/null 2>&1 & echo $!"]
    orphan = subprocess.run(shell, stdout=subprocess.PIPE, text=True, check=True).stdout
    return [os.getpid(), child.pid, leader.pid, int(orphan)]

class Odd(BatchModel):
    batch_max = 8
    def setup(self, context):
        self.held = []
    def predict(self, inputs):
        words = str(inputs[0], "utf-8").split(" ", 1)
        if words[0] == "exit":
            print("about to leave")
            os._exit(7)
        if words[0] == "segfault":
            ctypes.string_at(0)
        if words[0] == "kill":
            os.kill(os.getpid(), 9)
        if words[0] == "hang":
            time.sleep(600)
        if words[0] == "few":
            return ["one"]
        if words[0] == "large":
            return ["x" * int(words[1]) for _ in inputs]
        if words[0] == "disk":
            with open("/dev/full", "wb", 0) as file:  # what a full disk says
                file.write(b"a result that is kept")
        if words[0] == "nan":
            return [float("nan"), "a number"]
        if words[0] == "sleep":
            time.sleep(float(words[1]))
        if words[0] == "flood":
            sys.stdout.write("a line of the flood\\n" * 500_000)
        if words[0] == "print":
            print(words[1])
        if words[0] == "leak":
            while True:
                self.held.append(bytearray(os.urandom(1)) * 20_000_000)
                time.sleep(0.05)
        if words[0] == "children":
            return [start_children()]
        if words[0] == "escape":
            shell = ["sh", "-c", "env -i setsid sleep 600 < /dev/null > /dev/null 2>&1 & echo $!"]
            return [int(subprocess.run(shell, stdout=subprocess.PIPE, text=True, check=True).stdout)]
        if words[0] == "children-then-exit":
            print(*start_children())
            os._exit(0)
        if words[0] == "environment":
            names = ("orjson", "starlette", "idunno_model_server")
            return [{"prefix": sys.prefix, "has": [importlib.util.find_spec(name) is not None for name in names]}]
        return [os.getpid() for _ in inputs]
    def canary(self):
        return b"hello"
"""
FILES = {"model.py": CODE}


@pytest.fixture(scope="module")
def served(
    start_server: Callable[..., ModelServer], tmp_path_factory: pytest.TempPathFactory
) -> tuple[ModelServer, Path]:
    """A server with a model that misbehaves, and its neighbour."""
    folder = tmp_path_factory.mktemp("packages")
    return start_server("--packages-dir", str(folder)), folder


class Odd:
    """A model on the server."""

    def __init__(self, server: ModelServer, folder: Path, name: str, **settings: Any) -> None:
        self.server = server
        self.name = name
        self.version = write_package(folder, FILES, **settings)
        self.load()

    def load(self) -> None:
        answer = load(self.server, self.name, self.version)
        assert answer.status_code == 200, answer.text

    def ask(self, row: str) -> httpx.Response:
        answer: httpx.Response = infer(self.server, self.name, self.version, row.encode())
        return answer

    def answer(self, row: str) -> Any:
        return json.loads(outputs(self.ask(row))[0])

    def runner(self) -> dict[str, Any]:
        (row,) = self.server.client.get(f"/v2/models/{self.name}/stats").json()["model_stats"]
        (runner,) = row["runners"]
        found: dict[str, Any] = runner
        return found

    def until_running(self) -> dict[str, Any]:
        return wait_until(lambda: (now := self.runner())["state"] == "running" and now, "the runner to run again")  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def odd(served: tuple[ModelServer, Path]) -> Odd:
    return Odd(*served, "odd")


@pytest.fixture(scope="module")
def neighbour(served: tuple[ModelServer, Path]) -> Odd:
    return Odd(*served, "neighbour")


def test_each_version_has_a_process_of_its_own(odd: Odd, neighbour: Odd) -> None:
    pids = {odd.answer("x"), neighbour.answer("x"), odd.server.process.pid}
    assert len(pids) == 3
    assert odd.runner()["pid"] == odd.answer("x")
    assert os.getsid(odd.runner()["pid"]) == odd.runner()["pid"], "a session of its own"
    assert wait_until(lambda: odd.runner()["memory_bytes"], "the first look at its memory") > 1_000_000


@pytest.mark.parametrize(
    ("row", "reason", "line"),
    [
        ("exit", "exited with status 7", "about to leave"),
        ("segfault", "was ended by SIGSEGV", "Fatal Python error: Segmentation fault"),
        ("kill", "was ended by SIGKILL, probably for lack of memory", ""),
    ],
)
def test_a_crash_fails_only_the_requests_of_its_model(
    odd: Odd, neighbour: Odd, row: str, reason: str, line: str
) -> None:
    before, other = odd.runner(), neighbour.answer("x")
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(neighbour.answer, "sleep 0.5")
        response = odd.ask(row)
        assert slow.result() == other, "its request went on"
    assert response.status_code == 500
    body = response.json()
    assert body["runner"] == "ended"
    assert reason in body["error"]
    assert line in body["error"]
    now = odd.until_running()
    assert (now["restarts"], now["pid"] != before["pid"]) == (before["restarts"] + 1, True)
    assert odd.answer("x") == now["pid"]
    newest = odd.server.client.get(f"/idunno/models/{odd.name}/failures").json()["failures"][0]
    assert reason in newest["reason"]


def test_a_load_waits_for_a_process_that_is_started_again(odd: Odd) -> None:
    odd.ask("exit")
    refused = odd.ask("x")
    if refused.status_code != 200:  # it may run again already
        assert (refused.status_code, refused.json()["runner"]) == (503, "restarting")
    odd.load()
    assert odd.answer("x") == odd.runner()["pid"]


def test_a_model_that_hangs_is_ended_by_who_asks_for_it(odd: Odd) -> None:
    path = f"/idunno/models/{odd.name}/versions/{odd.version}/restart"
    with ThreadPoolExecutor(1) as pool:
        hanging = pool.submit(odd.ask, "hang")
        pid = odd.runner()["pid"]
        wait_until(lambda: Path(f"/proc/{pid}/wchan").exists(), "it to be asked")
        assert odd.server.client.post(path, json={"reason": "it hangs"}).status_code == 200
        response = hanging.result()
    assert (response.status_code, response.json()["runner"]) == (500, "ended")
    assert "it hangs" in response.json()["error"]
    assert odd.until_running()["pid"] != pid
    assert odd.answer("x") != pid


def test_a_predefined_model_has_no_process_to_restart(loaded: ModelServer) -> None:
    version = loaded.versions["mnist-mlp"]
    answer = loaded.client.post(f"/idunno/models/mnist-mlp/versions/{version}/restart")
    assert answer.status_code == 409


def test_what_a_runner_started_dies_with_it(odd: Odd) -> None:
    failed = odd.ask("children-then-exit")
    assert failed.status_code == 500
    pids = list(map(int, failed.json()["error"].rpartition("its last lines: ")[2].split()))
    assert len(pids) == 4
    assert not [pid for pid in pids if is_running(pid)], "when the end is told, all have ended"
    odd.until_running()
    pids = odd.answer("children")
    assert all(map(is_running, pids))
    odd.server.client.post(f"/idunno/models/odd/versions/{odd.version}/restart", json={})
    assert not [pid for pid in pids if is_running(pid)]
    odd.until_running()


def test_an_orphan_that_hides_is_ended_while_others_live(odd: Odd) -> None:
    pids = odd.answer("children")
    hidden = odd.answer("escape")
    wait_until(lambda: not Path(f"/proc/{hidden}").exists(), "the one without a mark to be ended and reaped", 10)
    assert all(map(is_running, pids)), "the others belong to a model that is loaded"


def test_what_the_server_itself_starts_is_no_orphan(tmp_path: Path) -> None:
    async def test() -> None:
        families = Families()
        host = RunnerHost(RunnerLimits(1), families, tmp_path / "scratch")
        process = await host.start("model mine", Path(sys.executable), Needs())
        async with family_process(families, "sleep", "2.5", env=os.environ) as slow:
            assert await slow.wait() == 0
        assert not process.ended.done()
        async with family_process(families, "sleep", "600", env=os.environ) as stuck:
            pass
        assert stuck.returncode == -signal.SIGKILL
        await process.kill("the end")
        await host.close()

    run(test)


def test_what_is_printed_is_kept_and_bounded(odd: Odd) -> None:
    odd.answer("print a word to the world")
    wait_until(lambda: "a word to the world" in odd.runner()["last_lines"], "the line")
    assert outputs(odd.ask("flood"))
    assert outputs(odd.ask("print the end"))
    wait_until(lambda: odd.runner()["last_lines"][-1] == "the end", "the last line")
    assert len(odd.runner()["last_lines"]) <= LINES_MAX


def test_a_model_that_takes_more_memory_than_it_declares_is_ended(
    served: tuple[ModelServer, Path], neighbour: Odd
) -> None:
    leaky = Odd(*served, "leaky", memory_mib=300)
    assert leaky.answer("x") == leaky.runner()["pid"]
    response = leaky.ask("leak")
    assert (response.status_code, response.json()["runner"]) == (500, "ended")
    assert "MiB of memory, and declares memory_mib = 300" in response.json()["error"]
    assert leaky.until_running()["memory_bytes"] < 300 << 20
    assert neighbour.answer("x")


def test_wrong_answers_end_no_process(odd: Odd) -> None:
    pid = odd.answer("x")
    server, rows = odd.server, [b"few", b"x"]
    response = server.infer(odd.name, rows)
    assert (response.status_code, "runner" in response.json()) == (500, False)
    assert "1 outputs for 2 inputs" in response.json()["error"]
    _, tensors = binary_response(server.infer(odd.name, [b"nan", b"x"]))
    assert b"NaN" in tensors["error"][0]
    assert tensors["output"][1] == b'"a number"'
    assert odd.answer("x") == pid


def test_a_full_disk_fails_its_request_and_ends_no_process(odd: Odd, neighbour: Odd) -> None:
    pid = odd.answer("x")
    response = odd.ask("disk")
    assert (response.status_code, "runner" in response.json()) == (500, False)
    assert "No space left on device (model.py, line" in response.json()["error"]
    assert odd.answer("x") == pid, "the same process goes on"
    assert neighbour.answer("x") == neighbour.runner()["pid"]


def test_an_answer_of_40_mb_comes_back_and_delays_no_neighbour(odd: Odd, neighbour: Odd) -> None:
    pid, size = odd.answer("x"), 40_000_000
    with ThreadPoolExecutor(1) as pool:
        large = pool.submit(odd.ask, f"large {size}")
        assert neighbour.answer("x")
        (row,) = outputs(large.result())
    assert (len(row), row[:2], row[-2:]) == (size + 2, b'"x', b'x"')
    assert odd.answer("x") == pid, "the same process goes on"


def test_an_answer_beyond_all_bounds_ends_its_runner_alone(tmp_path: Path) -> None:
    async def test() -> None:
        async with supervised(tmp_path, answer_bytes_max=1_000_000) as runner:
            await runner.open()
            assert len(await ask(runner, "large 900000")) == 900_002
            with pytest.raises(
                RunnerError, match=r"its answer cannot be read: a message of .* is longer than is allowed"
            ):
                await ask(runner, "large 1000001")
            await runner.ready()
            assert await ask(runner, "x") == str(runner.as_json()["pid"]).encode()

    run(test)


def test_code_that_leaves_when_it_is_imported_is_no_model(served: tuple[ModelServer, Path]) -> None:
    server, folder = served
    version = write_package(folder, {"model.py": "import os\nprint('bye')\nos._exit(3)\n"})
    for answer in (load(server, "gone", version), server.client.post(f"/idunno/models/gone/packages/{version}/check")):
        assert answer.status_code == 400
        assert "exited with status 3; its last lines: bye" in answer.json()["error"]
    assert server.client.get("/v2/models/gone").status_code == 503, "it can be asked why"
    (failure,) = server.client.get("/idunno/models/gone/failures").json()["failures"]
    assert (failure["version"], failure["rows"]) == (version, 0)
    assert "bye" in failure["reason"]
    assert server.process.poll() is None


def test_an_unloaded_version_leaves_no_process(served: tuple[ModelServer, Path]) -> None:
    gone = Odd(*served, "unloaded")
    pids = gone.answer("children")
    unload = {"parameters": {"version": gone.version}}
    assert gone.server.client.post("/v2/repository/models/unloaded/unload", json=unload).status_code == 200
    assert not [pid for pid in pids if is_running(pid)]


def test_runners_end_with_a_server_that_is_killed(start_server: Callable[..., ModelServer], tmp_path: Path) -> None:
    server = start_server("--packages-dir", str(tmp_path))
    pid = Odd(server, tmp_path, "odd").runner()["pid"]
    server.process.kill()
    wait_until(lambda: not is_running(pid), "the runner to end", 10)


def test_runners_end_with_a_server_that_is_stopped(start_server: Callable[..., ModelServer], tmp_path: Path) -> None:
    server = start_server("--packages-dir", str(tmp_path))
    pids = Odd(server, tmp_path, "odd").answer("children")
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(20) == 0
    assert not [pid for pid in pids if is_running(pid)]


# --- without a server ---


@asynccontextmanager
async def supervised(
    folder: Path, files: dict[str, str] = FILES, python: str = sys.executable, **limits: Any
) -> AsyncIterator[SupervisedRunner]:
    package = folder / write_package(folder, files)
    host = RunnerHost(RunnerLimits(2, **limits), Families(), folder / "scratch")
    source = {"name": "mine", "package": str(package)}
    runner = SupervisedRunner(host, "model mine", Path(python), source, Needs((package,)))
    try:
        yield runner
    finally:
        await runner.end()
        await host.close()


async def ask(runner: SupervisedRunner, row: str) -> bytes:
    tensor = {"name": "input", "shape": [1], "datatype": "BYTES", "data": [row]}
    request = parse_infer(memoryview(json.dumps({"inputs": [tensor]}).encode()), None)
    answer = await runner.infer(request, None)
    output = answer.tensors["output"]
    assert isinstance(output, bytes)
    return output[4:]


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await test()

    asyncio.run(bounded())


def test_a_request_that_nobody_waits_for_may_not_go_on_for_ever(tmp_path: Path) -> None:
    async def test() -> None:
        async with supervised(tmp_path, cancelled_s_max=0.5) as runner:
            await runner.open()
            for row in ("sleep 0.2", "hang"):
                process = runner.process
                assert process is not None
                hanging = asyncio.create_task(ask(runner, row))
                await asyncio.sleep(0.1)
                hanging.cancel()
                if row == "hang":
                    assert "that nobody waited for" in await asyncio.shield(process.ended)
                else:
                    await asyncio.sleep(0.8)
                    assert not process.ended.done(), "it was answered in time"

    run(test)


def test_a_model_that_makes_no_progress_is_not_loaded(tmp_path: Path) -> None:
    async def test() -> None:
        stuck = {"model.py": CODE.replace("self.held = []", "time.sleep(600)")}
        async with supervised(tmp_path, stuck, idle_start_s_max=2.0) as runner:
            with pytest.raises(RunnerError, match="no progress for 2 s"):
                await runner.open()

        busy = {"model.py": CODE.replace("self.held = []", "[print(i) or time.sleep(1) for i in range(4)]")}
        async with supervised(tmp_path, busy, idle_start_s_max=2.0) as runner:
            await runner.open()

    run(test)


def test_errors_of_a_load_are_those_of_the_model(tmp_path: Path) -> None:
    async def test() -> None:
        broken = {"model.py": CODE.replace("self.held = []", "raise KeyError('no such word')")}
        async with supervised(tmp_path, broken) as runner:
            with pytest.raises(ModelFailure, match=r"KeyError: 'no such word' \(model\.py, line") as failure:
                await runner.open()
            assert "in setup" in failure.value.traceback
        refused = {"model.py": CODE.replace('b"hello"', "7")}
        async with supervised(tmp_path, refused) as runner:
            with pytest.raises(ModelLoadError, match="canary returned int"):
                await runner.open()

    run(test)


def test_a_runner_that_never_answers_is_given_up_until_it_is_asked_for(tmp_path: Path) -> None:
    async def test() -> None:
        async with supervised(tmp_path) as runner:
            await runner.open()
            for _ in range(FAILURES_MAX):
                await runner.ready()
                with pytest.raises(RunnerError, match="exited with status 7"):
                    await ask(runner, "exit")
            with pytest.raises(RunnerError, match="about to leave"):
                await runner.ready()
            with pytest.raises(RunnerNotReadyError, match="about to leave"):
                await ask(runner, "x")
            await runner.ready()
            assert int(await ask(runner, "x")) > 0

    run(test)


def test_restarts_are_pure() -> None:
    restarts = Restarts()
    assert [restarts.ended(0.0, has_answered=True) for _ in range(20)] == [0.0] * 20
    pauses = [restarts.ended(1.0, has_answered=False) for _ in range(FAILURES_MAX)]
    assert pauses == [0.2, 0.4, 0.8, 1.6, None]
    restarts.asked_for()
    assert restarts.ended(2.0, has_answered=False) == 0.2
    assert restarts.ended(2.0 + WINDOW_S, has_answered=False) == 0.2, "long ago"
    assert PAUSE_S_MAX > 1.6


def test_a_runner_needs_nothing_but_the_standard_library_and_sees_nothing_of_the_servers(tmp_path: Path) -> None:
    venv.create(tmp_path / "empty", with_pip=False)

    async def test() -> None:
        async with supervised(tmp_path, python=str(tmp_path / "empty/bin/python")) as runner:
            await runner.open()
            seen = json.loads(await ask(runner, "environment"))
            assert seen == {"prefix": str(tmp_path / "empty"), "has": [False, False, True]}

    run(test)


def test_the_last_lines_begin_at_a_crash_that_python_reports() -> None:
    written: list[str] = []
    tail = OutputTail(written.append)
    tail.add(b"loading\nFatal Python error: Segmentation fault\n\nCurrent thread:\n  File ")
    tail.add(b'"model.py", line 7\n' + b"  more\n" * 50)
    assert tail.summary(60) == "Fatal Python error: Segmentation fault | Current thread: | F"
    tail.add(b"\x1b[31m no newline")
    tail.finish()
    assert written[-1] == "\\x1b[31m no newline"
    assert OutputTail(written.append).summary(60) == ""
    assert len(tail.lines) <= LINES_MAX
