"""The manual, typed word for word: an introducer and members by hand, then every command at a member's prompt."""

import json
import os
import queue
import re
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import numpy
import pytest
from PIL import Image

SCRIPTS = Path(__file__).resolve().parent.parent
ROOT = SCRIPTS.parent
PHOTOS = 120
MEMBERS = 3


def programs():
    """Where `idunno` and `idunnod` are: the tests before this one have built them."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    folder = Path(os.environ.get("IDUNNO_PROGRAMS", target / "debug"))
    for program in ("idunno", "idunnod"):
        assert (folder / program).is_file(), f"{folder / program} is missing: run cargo test --workspace --no-run first"
    return folder


def model_server_python():
    """A Python with the model server."""
    python = Path(os.environ.get("IDUNNO_TEST_PYTHON", ROOT / ".venv/bin/python"))
    assert python.is_file(), f"{python} is missing: run scripts/setup_python.sh first"
    return python


def free_ports(count):
    """Ports of this machine that nothing listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [str(server.getsockname()[1]) for server in sockets]
    for server in sockets:
        server.close()
    return ports


class Script:
    """A script of the manual: lines are typed into it, and what it prints is read as it comes."""

    def __init__(self, environment, name, *arguments):
        self.name = name
        self.process = subprocess.Popen(
            [SCRIPTS / name, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            bufsize=1,
            env=environment,
        )
        self.lines = queue.Queue()
        self.said = []
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            self.lines.put(line.rstrip("\n"))
        self.lines.put(None)

    def expect(self, pattern, within_s=30):
        """Waits for a line that matches; returns all lines up to it."""
        limit, seen = time.monotonic() + within_s, []
        while True:
            try:
                line = self.lines.get(timeout=max(0.0, limit - time.monotonic()))
            except queue.Empty:
                line = f"nothing else within {within_s} s"
                limit = None
            if line is None:
                line, limit = f"the end, with {self.process.wait()}", None
            seen.append(line)
            self.said.append(line)
            assert limit is not None, f"{self.name}: expected /{pattern}/, it said\n" + "\n".join(self.said[-20:])
            if re.search(pattern, line):
                return seen

    def address(self):
        """The address that the introducer says it has."""
        return re.search(r"introducer at (.*)", self.expect(r"^introducer at ")[-1]).group(1)

    def type(self, line, pattern, within_s=30):
        """Types a command; returns its answer up to the line that matches."""
        self.said.append(f"> {line}")
        self.process.stdin.write(line + "\n")
        return self.expect(pattern, within_s)

    def eventually(self, line, end, wanted, within_s=80):
        """Types a command again until its answer has what is wanted."""
        limit = time.monotonic() + within_s
        while True:
            answer = "\n".join(self.type(line, end))
            if re.search(wanted, answer):
                return answer
            assert time.monotonic() < limit, f"{line}: expected /{wanted}/, the last answer was\n{answer}"
            time.sleep(0.2)

    def end(self, *words):
        """Types what ends it; its exit code."""
        for word in words:
            self.process.stdin.write(word + "\n")
        self.process.stdin.close()
        return self.process.wait(timeout=30)


@pytest.fixture
def scripts(tmp_path):
    """Starts scripts with a home of their own, and ends whatever is left of them."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("IDUNNO_")}
    environment |= {
        "IDUNNO_HOME": str(tmp_path / "home"),
        "IDUNNO_PROGRAMS": str(programs()),
        "IDUNNO_MODEL_SERVER_PYTHON": str(model_server_python()),
        "IDUNNO_THREADS": "1",
        "IDUNNO_CONFIG_DIR": str(tmp_path / "config"),
    }
    started = []

    def start(name, *arguments, **settings):
        started.append(Script(environment | settings, name, *arguments))
        return started[-1]

    yield start
    for script in reversed(started):
        script.process.stdin.close()
        script.process.send_signal(signal.SIGTERM)
    for script in started:
        script.process.wait(timeout=30)


def make_photos(folder):
    """Photos of noise: what they show does not matter here."""
    folder.mkdir()
    random = numpy.random.default_rng(1)
    for number in range(PHOTOS):
        pixels = random.integers(0, 256, (64, 64, 3), dtype=numpy.uint8)
        Image.fromarray(pixels).save(folder / f"photo-{number:03}.jpg")
    return folder


def test_the_whole_manual_typed_in_its_order(scripts, tmp_path):
    photos = make_photos(tmp_path / "photos")
    ports = free_ports(MEMBERS)

    introducer = scripts("introducer.sh", "0")
    # The members of this machine take its address, so that those of others can reach them.
    host = re.escape(introducer.address().rpartition(":")[0])
    secret = tmp_path / "home/secret.pem"
    assert secret.stat().st_mode & 0o777 == 0o600
    members = [scripts("member.sh", port) for port in ports]
    for member, port in zip(members, ports, strict=True):
        member.expect(rf"member {host}:{port} has joined")
    vm = members[0]

    # The inference service.
    vm.type(f"populate-test-data {photos}", rf"^test-data: {PHOTOS} files put ")
    vm.type("train-start", r"^training started: .*\bmnist-mlp, .*\bsqueezenet1\.1")
    vm.type("add-job squeezenet1.1", r"^job-1 added: squeezenet1\.1 over test-data, batch size 32$")
    vm.type("set-batch-size squeezenet1.1 2", r"^job-1 has batch size 2$")
    vm.eventually("get-models", r"^squeezenet1\.1\b", r"squeezenet1\.1 .*trained")
    vm.type("start-job squeezenet1.1", rf"^job-1 started: {PHOTOS} queries$")
    vm.type("stop-job squeezenet1.1", r"^job-1 stopped$")
    vm.type("get-job-stats", rf"^job-1 .*squeezenet1\.1 +stopped .* {PHOTOS} ")
    vm.type("start-job squeezenet1.1", rf"^job-1 started: {PHOTOS} queries$")
    vm.type("get-job-assigned-VMs", rf"-{max(ports, key=int)} +(job-1|-) ")
    vm.eventually("get-job-stats", r"^job-1 ", rf"job-1 .* done .* {PHOTOS} ")

    # Membership.
    assert re.search(rf"^address +{host}:{ports[0]}$", "\n".join(vm.type("list_self", r"^version ")), re.M)
    vm.type("list_mem", rf"{host}:{max(ports, key=int)} +up ")
    vm.type("leave", rf"^{host}:{ports[0]} left$")
    vm.type("join", rf"^{host}:{ports[0]} joined$")
    vm.eventually("list_self", r"^version ", r"joined +yes")

    # The file store.
    first, second = tmp_path / "first.txt", tmp_path / "second.txt"
    first.write_text("one\n", encoding="utf-8")
    second.write_text("two\n", encoding="utf-8")
    vm.type(f"put {first} notes.txt", r"^notes\.txt version 1, 4 bytes, copies: 3 of 3$")
    vm.type(f"put {second} notes.txt", r"^notes\.txt version 2, 4 bytes, copies: 3 of 3$")
    vm.type(f"get notes.txt {tmp_path / 'copy.txt'}", r"^notes\.txt version 2, 4 bytes, in ")
    assert (tmp_path / "copy.txt").read_text(encoding="utf-8") == "two\n"
    vm.type("ls notes.txt", r"^notes\.txt +2 ")
    vm.type("ls", r"^test-data/photo-119\.jpg ")
    vm.type("store", r"^test-data/photo-119\.jpg ")
    vm.type(f"get-versions notes.txt 2 {tmp_path / 'history.txt'}", r"^2 versions in ")
    history = (tmp_path / "history.txt").read_text(encoding="utf-8")
    assert history.index("two") < history.index("one")
    vm.type("delete notes.txt", r"^notes\.txt deleted, 2 versions$")
    vm.type("ls notes.txt", r"^error: .*notes\.txt")

    # A model whose jobs are all over, and one with two.
    vm.type(
        "stop-job squeezenet1.1", r"^error: squeezenet1\.1 has no job that can still change: job-1 is over \(done\)"
    )
    vm.type("get-job-stats squeezenet1.1", r"^job-1 .* done ")
    vm.type("add-job squeezenet1.1", r"^job-2 added")
    vm.type("add-job squeezenet1.1", r"^job-3 added")
    vm.type("start-job squeezenet1.1", r"^error: squeezenet1\.1 could mean job-2 .* or job-3 .*: say job-2 or job-3$")

    # An error was among the answers, and stdin is no terminal: the exit code says so.
    assert members[0].end("quit") == 3
    # The end of the input ends a member too, and so does a signal.
    assert members[1].end() == 0
    for script in (members[2], introducer):
        script.process.send_signal(signal.SIGTERM)
        assert script.process.wait(timeout=30) == 143
    assert not (tmp_path / "home/introducer.address").exists()


def test_a_daemon_that_is_killed_ends_its_script(scripts, tmp_path):
    introducer = scripts("introducer.sh", "0")
    introducer.address()
    member = scripts("member.sh", *free_ports(1))
    member.expect("has joined")
    for script, name in ((member, "member-*"), (introducer, "introducer")):
        (runtime,) = (tmp_path / "home").glob(f"{name}/runtime.json")
        os.kill(json.loads(runtime.read_text(encoding="utf-8"))["pid"], signal.SIGKILL)
        script.expect("idunnod has ended")
        assert script.process.wait(timeout=30) == 1


def test_settings_of_the_terminal_are_not_those_of_the_member(scripts):
    introducer = scripts("introducer.sh", "0", IDUNNO_ADVERTISE="127.0.0.1")
    # Told where the introducer is, as on another machine.
    member = scripts(
        "member.sh", *free_ports(1), IDUNNO_INTRODUCER=introducer.address(), IDUNNO_MEMBER="m9", IDUNNO_CONTEXT="none"
    )
    member.expect(r"member 127\.0\.0\.1:\d+ has joined")
    member.type("leave", r"^127\.0\.0\.1:\d+ left$")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["introducer.sh", "70000"], "'70000' is not a port"),
        (["member.sh", "0"], "'0' is not a port: give 1 to 65535"),
        (["member.sh", "7401"], "start scripts/introducer.sh PORT, or set IDUNNO_INTRODUCER"),
    ],
)
def test_what_is_missing_is_said_before_anything_starts(scripts, words, reason):
    script = scripts(*words)
    script.expect(re.escape(reason))
    assert script.process.wait(timeout=30) == 1


def test_a_machine_without_the_secret_is_told_to_copy_it(scripts, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home/introducer.address").write_text("127.0.0.1:7400\n")
    script = scripts("member.sh", "7401")
    script.expect(r"there is no .*home/secret\.pem: copy it from the introducer's machine")
    assert script.process.wait(timeout=30) == 1
