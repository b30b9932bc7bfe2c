"""Waits: Ctrl-C ends them at once, forked children and threads have their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter
from pathlib import Path

import idunno
import models
import pytest
from conftest import interrupt_the_main_thread, until

INTERRUPTED_WITHIN_S = 0.2

SCRIPT = """
import sys, time, idunno
client = idunno.connect(dir=sys.argv[1])
job = client.run("slow", [str(n) for n in range(100)], batch_size=4, name=sys.argv[2])
print("waits", flush=True)
try:
    {wait}
except KeyboardInterrupt as interrupted:
    print(time.time(), type(interrupted).__name__, interrupted, flush=True)
"""


@pytest.fixture(scope="module", autouse=True)
def _shipped(cluster: idunno.LocalCluster) -> None:
    client = cluster.connect()
    client.add_model(models.slow)
    client.add_model(models.lengths)


def is_asleep(pid: int) -> bool:
    """Whether the main thread of a process waits for something, rather than running or being about to."""
    state = Path(f"/proc/{pid}/task/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return state == "S"


@pytest.mark.parametrize("wait", ["job.wait()", "list(job.results())", "client.train('newsgroups-linear', seed=9)"])
def test_ctrl_c_ends_a_wait_at_once_and_the_job_goes_on(
    cluster: idunno.LocalCluster, client: idunno.Client, wait: str
) -> None:
    name = f"interrupted-{abs(hash(wait))}"
    words = [sys.executable, "-c", SCRIPT.format(wait=wait), str(cluster.dir), name]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "waits\n"
        until("it waits", lambda: is_asleep(child.pid), 30)
        sent = time.time()
        child.send_signal(signal.SIGINT)
        at, kind, *words = child.stdout.readline().split()
    assert float(at) - sent <= INTERRUPTED_WITHIN_S
    job = client.job(name)
    if "job." in wait:
        assert kind == "Interrupted"
        assert f"client.job('{name}') attaches to it again" in " ".join(words)
    assert job.wait(timeout=120)["done"] == 100


def test_an_iteration_goes_on_after_ctrl_c(client: idunno.Client) -> None:
    before = client.run("slow", ["text"] * 40, batch_size=4)
    before.stop()
    # It has no row until the other job is done.
    job = client.run("slow", [str(number) for number in range(80)], batch_size=4, after=before)
    rows = job.results()
    thread = threading.Thread(target=interrupt_the_main_thread)
    thread.start()
    with pytest.raises(idunno.Interrupted, match=rf"client\.job\('{job.id}'\) attaches to it again"):
        next(rows)
    thread.join()
    before.start()
    assert sorted(row["query"] for row in rows) == list(range(80))


def in_a_child(work: object) -> None:
    """Runs a function in a forked child, which must end well."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()  # type: ignore[operator]
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    status: list[int] = []

    def ended() -> bool:
        pid, found = os.waitpid(child, os.WNOHANG)
        status.append(found)
        return pid == child

    try:
        until("the child ends", ended, 30)
    except TimeoutError:
        os.kill(child, signal.SIGKILL)
        raise
    assert os.waitstatus_to_exitcode(status[-1]) == 0


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_goes_on_with_the_client_and_not_with_what_was_begun(client: idunno.Client) -> None:
    client.put(b"parent", "forked/parent")
    job = client.run("slow", [str(number) for number in range(60)], batch_size=4)
    rows = job.results()
    first = next(rows)

    def work() -> None:
        assert client.get("forked/parent") == b"parent"
        client.put(b"child", "forked/child")
        assert len(list(client.job(job.id).results())) == 60
        with pytest.raises((idunno.Error, RuntimeError), match=r"begun before os\.fork"):
            list(rows)

    in_a_child(work)
    # The child has not touched what is the parent's.
    assert sorted([first["query"], *(row["query"] for row in rows)]) == list(range(60))
    assert client.get("forked/child") == b"child"


def test_a_fork_server_and_a_pool_of_forked_processes_work(cluster: idunno.LocalCluster, tmp_path: Path) -> None:
    script = tmp_path / "pool.py"
    script.write_text(
        "import multiprocessing, sys, idunno\n"
        "client = idunno.connect(dir=sys.argv[1])\n"
        "def put(number):\n"
        "    return client.put(str(number).encode(), f'pool/{number}')['version']\n"
        "if __name__ == '__main__':\n"
        "    client.ls()\n"
        "    with multiprocessing.get_context('fork').Pool(2) as pool:\n"
        "        print(sum(pool.map(put, range(8))))\n"
    )
    words = [sys.executable, "-W", "ignore", str(script), str(cluster.dir)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "8\n"), done.stderr


def test_two_clients_in_threads_work_side_by_side(cluster: idunno.LocalCluster) -> None:
    found: dict[int, Counter[int]] = {}
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            client = cluster.connect()
            content = bytes([number]) * 100_000
            for part in range(5):
                client.put(content, f"threads/{number}/{part}")
                assert client.get(f"threads/{number}/{part}") == content
            job = client.run("lengths", ["x" * number] * 50, batch_size=10)
            found[number] = Counter(row["output"] for row in job.results())
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not errors
    assert found == {1: Counter({1: 50}), 2: Counter({2: 50})}


def test_the_interpreters_lock_is_released_during_a_wait(client: idunno.Client) -> None:
    job = client.run("slow", ["text"] * 60, batch_size=4)
    counted = 0
    is_over = threading.Event()

    def count() -> None:
        nonlocal counted
        while not is_over.is_set():
            counted += 1

    thread = threading.Thread(target=count)
    thread.start()
    started = time.monotonic()
    job.wait()
    waited = time.monotonic() - started
    is_over.set()
    thread.join()
    # A wait that held the lock would let it count a few times a second.
    assert waited > 0.2
    assert counted / waited > 10_000
