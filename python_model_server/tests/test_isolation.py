"""What the code of a model can do to its machine: a model that turns hostile, and the rules that stop it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import ModelServer, wait_until
from test_packages import infer, load, write_package
from wire import outputs

from idunno_model_server import confine
from idunno_model_server.errors import PackageError
from idunno_model_server.packages import PackageSettings, open_package
from idunno_model_server.sandbox import (
    DEVICES,
    OPEN_DEVICE,
    READ,
    SHARE,
    SHARED_MEMORY,
    WRITE,
    Isolation,
    Needs,
    Sandbox,
    rules,
)

# A row says what to try. The answer is the name of the error, or what was had.
CODE = """
import errno, json, os, signal, socket, subprocess
from pathlib import Path
from idunno_model_server.api import BatchModel

def sent(kind, port):
    with socket.socket(socket.AF_INET, kind) as opened:
        opened.connect(("127.0.0.1", int(port)))
        return opened.send(b"hello")

def called(path):
    with socket.socket(socket.AF_UNIX) as opened:
        opened.connect(path)
        opened.sendall(b"GET /v2 HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
        return str(opened.recv(12), "ascii")

def bound():
    with socket.socket(socket.AF_INET) as opened:
        opened.bind(("127.0.0.1", 0))

TRIES = {
    "read": lambda path: Path(path).read_text(errors="replace")[:20],
    "list": lambda path: sorted(os.listdir(path)),
    "write": lambda path: Path(path).write_text("hostile"),
    "delete": lambda path: Path(path).unlink(),
    "rename": lambda path: Path("mine").write_text("hostile") and os.rename("mine", path),
    "run": lambda path: subprocess.run([path], capture_output=True, text=True, check=True).stdout,
    "tcp": lambda port: sent(socket.SOCK_STREAM, port),
    "udp": lambda port: sent(socket.SOCK_DGRAM, port),
    "bind": lambda _: bound(),
    "call": called,
    "signal": lambda pid: os.kill(int(pid), signal.SIGCONT),
    "scratch": lambda _: Path("mine").write_text("kept") and [os.getcwd(), os.environ["HOME"], os.environ["TMPDIR"]],
    "variables": lambda _: sorted(os.environ),
    "score": lambda _: int(Path("/proc/self/oom_score_adj").read_text()),
    "child": lambda path: subprocess.run(["cat", path], capture_output=True, text=True).stderr.strip(),
}

class Hostile(BatchModel):
    def predict(self, inputs):
        return [self.tried(*json.loads(row)) for row in inputs]
    def tried(self, what, target):
        try:
            return TRIES[what](target)
        except OSError as error:
            return errno.errorcode.get(error.errno, str(error))
    def canary(self):
        return b'["score", ""]'
"""

needs_landlock = pytest.mark.skipif(confine.landlock_abi() == 0, reason="this kernel has no Landlock")
needs_seccomp = pytest.mark.skipif(not confine.has_seccomp(), reason="this kernel or processor has no seccomp filters")
needs_scopes = pytest.mark.skipif(
    confine.landlock_abi() < confine.ABI_SCOPES, reason="this kernel's Landlock knows no signals"
)


class Member:
    """A folder like that of a member's data, with a server in it and the hostile model."""

    def __init__(self, start_server: Callable[..., ModelServer], folder: Path) -> None:
        self.data = folder / "data"
        self.secret = folder / "secret.pem"
        self.packages = self.data / "packages"
        self.packages.mkdir(parents=True)
        self.secret.write_text("the secret")
        (self.data / "metadata.redb").write_text("the log")
        self.neighbour = self.packages / write_package(self.packages, {"model.py": CODE + "# another's\n"})
        self.version = write_package(self.packages, {"model.py": CODE})
        self.work = self.data / "model-server"
        self.server = start_server("--packages-dir", str(self.packages), "--work-dir", str(self.work))
        answer = load(self.server, "hostile", self.version)
        assert answer.status_code == 200, answer.text

    def tries(self, what: str, target: object = "", model: str = "hostile", version: str = "") -> Any:
        row = json.dumps([what, str(target)]).encode()
        return json.loads(outputs(infer(self.server, model, version or self.version, row))[0])

    @property
    def own(self) -> Path:
        return self.packages / self.version


@pytest.fixture(scope="module")
def member(start_server: Callable[..., ModelServer], tmp_path_factory: pytest.TempPathFactory) -> Member:
    return Member(start_server, tmp_path_factory.mktemp("member"))


# --- a hostile model ---


@needs_landlock
def test_a_model_reads_nothing_of_the_member(member: Member) -> None:
    assert member.tries("read", member.own / "files" / "model.py").strip() == CODE[:20].strip(), (
        "its own files it reads"
    )
    assert member.tries("list", member.own / "files") == ["model.py"]
    for path in (member.secret, member.data / "metadata.redb", member.neighbour / "files" / "model.py"):
        assert member.tries("read", path) == "EACCES", path
        assert "Permission denied" in member.tries("child", path), "nor does what it starts"
    for folder in (member.data, member.packages, member.work, Path.home(), Path("/")):
        assert member.tries("list", folder) == "EACCES", folder


@needs_landlock
def test_a_model_does_not_look_into_other_processes(member: Member) -> None:
    for pid in (os.getpid(), member.server.process.pid):
        assert member.tries("read", f"/proc/{pid}/environ") == "EACCES"
        assert member.tries("read", f"/proc/{pid}/mem") == "EACCES"
        assert member.tries("list", f"/proc/{pid}/cwd") in ("EACCES", "EPERM")


@needs_landlock
def test_a_model_changes_no_file_but_in_its_scratch_folder(member: Member) -> None:
    artefact = member.own / "files" / "model.py"
    before = artefact.read_bytes()
    new = member.own / "files" / "new.py"
    environment = Path(sys.prefix) / "idunno-hostile"
    for what, path in (("write", artefact), ("delete", artefact), ("write", new), ("write", environment)):
        assert member.tries(what, path) == "EACCES", (what, path)
    assert member.tries("rename", artefact) in ("EACCES", "EXDEV")
    assert artefact.read_bytes() == before
    assert not new.exists()
    assert member.tries("write", f"/proc/{os.getpid()}/oom_score_adj") == "EACCES"
    folder, *others = member.tries("scratch")
    assert others == [folder, folder]
    assert (Path(folder) / "mine").read_text() == "kept"
    assert Path(folder).parent == member.work / "scratch"


@needs_scopes
def test_a_model_signals_nobody(member: Member) -> None:
    for pid in (os.getpid(), member.server.process.pid):
        assert member.tries("signal", pid) == "EPERM"


@contextmanager
def listening(kind: socket.SocketKind) -> Iterator[int]:
    with socket.socket(socket.AF_INET, kind) as listener:
        listener.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            listener.listen()
        yield listener.getsockname()[1]


@needs_seccomp
def test_a_model_has_no_network_unless_it_says_so(member: Member) -> None:
    with listening(socket.SOCK_STREAM) as tcp, listening(socket.SOCK_DGRAM) as udp:
        assert [member.tries("tcp", tcp), member.tries("udp", udp), member.tries("bind")] == ["EACCES"] * 3
        version = write_package(member.packages, {"model.py": CODE + "# with network\n"}, network=True)
        assert load(member.server, "sociable", version).status_code == 200
        sociable = partial(member.tries, model="sociable", version=version)
        assert [sociable("tcp", tcp), sociable("udp", udp), sociable("bind")] == [5, 5, None]
        if confine.landlock_abi() > 0:
            assert sociable("list", "/") == "EACCES", "and it may do no more than that"


def test_a_model_is_ended_first_and_told_nothing(member: Member) -> None:
    assert member.tries("score") >= confine.OOM_SCORE
    names = set(member.tries("variables"))
    assert {"HOME", "TMPDIR", "PATH"} <= names
    assert "PYTEST_CURRENT_TEST" not in names, "what the server inherited is not passed on"


def test_a_models_scratch_folder_goes_with_its_process(member: Member) -> None:
    version = write_package(member.packages, {"model.py": CODE + "# short-lived\n"})
    assert load(member.server, "short", version).status_code == 200
    folder = Path(member.tries("scratch", model="short", version=version)[0])
    assert folder.is_dir()
    assert member.server.client.post("/v2/repository/models/short/unload", json={}).status_code == 200
    wait_until(lambda: not folder.exists(), "the folder to be deleted")


CHILD = """
import os, socket, sys
from pathlib import Path
from idunno_model_server import peers

peers._PROC = Path(sys.argv[2])
own = peers._PROC / str(os.getpid())
own.mkdir()
(own / "stat").write_text(f"{os.getpid()} (python) S {os.getppid()} 0")
print(peers.is_own_descendant(socket.socket(fileno=int(sys.argv[1]))))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Unix sockets that name their peer")
def test_a_member_that_cannot_be_seen_may_call_the_server_that_it_started(tmp_path: Path) -> None:
    """systemd's `ProtectProc=invisible` hides a process that cannot be traced from its own user, too."""
    ours, theirs = socket.socketpair()  # the kernel names this process as the peer
    with ours, theirs:
        words = [sys.executable, "-c", CHILD, str(theirs.fileno()), str(tmp_path)]
        said = subprocess.run(words, pass_fds=(theirs.fileno(),), check=True, capture_output=True, text=True)
    assert said.stdout == "False\n", said.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="Unix sockets that name their peer")
def test_a_model_cannot_call_its_server(tmp_path: Path) -> None:
    """The kernel lets who may write to a Unix socket connect, whatever rules a process is under."""
    packages, at = tmp_path / "packages", tmp_path / "socket"
    packages.mkdir()
    version = write_package(packages, {"model.py": CODE})
    words = [sys.executable, "-m", "idunno_model_server", "--socket", str(at), "--work-dir", str(tmp_path / "work")]
    words += ["--packages-dir", str(packages), "--models-dir", str(tmp_path / "models"), "--threads", "1"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    stdout = process.stdout
    assert stdout is not None
    try:
        assert stdout.readline() == "listening on a Unix socket\n"
        with httpx.Client(base_url="http://x", transport=httpx.HTTPTransport(uds=str(at)), timeout=60) as client:
            path = "/v2/repository/models/hostile/load"
            loaded = client.post(path, json={"parameters": {"version": version, "package": True}})
            assert loaded.status_code == 200, loaded.text
            row = json.dumps(["call", str(at)])
            tensor = {"name": "input", "shape": [1], "datatype": "BYTES", "data": [row]}
            answer = client.post(f"/v2/models/hostile/versions/{version}/infer", json={"inputs": [tensor]})
            (said,) = answer.json()["outputs"][0]["data"]
            assert json.loads(said) in ("", "ECONNRESET", "EPIPE"), "it is not answered"
    finally:
        process.kill()
        process.wait()
        stdout.close()


TRAINED = """
import errno, socket
from pathlib import Path
from idunno_model_server.api import BatchModel

def refused(attempt):
    try:
        attempt()
    except OSError as error:
        return float(error.errno)
    return 0.0

class Curious(BatchModel):
    name, description, dataset = "curious", "looks around while it is trained", "required"
    def train(self, dataset, run):
        run.artefact.write_bytes(b"".join(example.content for example in dataset))
        return {
            "secret": refused(lambda: Path("SECRET").read_text()),
            "write": refused(lambda: (Path(__file__).parent / "new").write_text("x")),
            "network": refused(lambda: socket.socket(socket.AF_INET)),
        }
    def predict(self, inputs):
        return [len(inputs) for _ in inputs]
    def canary(self):
        return None
"""


@needs_landlock
@needs_seccomp
def test_a_training_sees_its_dataset_and_nothing_else(start_server: Callable[..., ModelServer], tmp_path: Path) -> None:
    models, secret, dataset = tmp_path / "models", tmp_path / "secret.pem", tmp_path / "data.jsonl"
    models.mkdir()
    secret.write_text("the secret")
    dataset.write_text('{"input": "a row", "label": "x"}\n')
    (models / "curious.py").write_text(TRAINED.replace("SECRET", str(secret)))
    server = start_server("--models-dir", str(models))
    task = server.client.post("/idunno/models/curious/train", json={"dataset": str(dataset)}).json()["task"]
    state = server.wait_for_task(task)
    assert state["state"] == "done", state
    assert state["metrics"] == {"secret": 13.0, "write": 13.0, "network": 13.0}


# --- the rules ---


def children(tree: dict[str, list[str]]) -> Callable[[Path], list[Path]]:
    return lambda folder: [folder / name for name in tree.get(str(folder), [])]


def rules_of(sandbox: Sandbox, tree: dict[str, list[str]], **options: Any) -> dict[str, int]:
    found = rules(sandbox, children(tree), lambda path: "private" not in path.name, **options)
    assert len({path for path, _ in found}) == len(found), "a path has one rule"
    return dict(found)


def test_each_process_gets_the_rules_that_it_needs(tmp_path: Path) -> None:
    needs = Needs((Path("/data/packages/1"),))
    sandbox = Sandbox(needs, (Path("/venv"),), Path("/data/scratch/1"), (Path("/data/packages"), Path("/data/scratch")))
    found = rules_of(
        sandbox, {"/etc": ["hosts", "idunno", "private-keys"], "/opt": ["idunno", "cuda"]}, devices=tmp_path
    )
    assert found["/data/scratch/1"] == WRITE
    assert {path for path, right in found.items() if right == WRITE} == {"/data/scratch/1"}
    assert {path for path, right in found.items() if right == OPEN_DEVICE} == set(DEVICES)
    assert found[str(SHARED_MEMORY)] == SHARE
    readable = {path for path, right in found.items() if right == READ}
    assert {"/usr", "/proc", "/sys", "/venv", "/data/packages/1", "/etc/hosts", "/opt/cuda"} <= readable
    for hidden in ("/", "/etc", "/etc/idunno", "/etc/private-keys", "/opt", "/opt/idunno", "/data", "/data/packages"):
        assert hidden not in found, hidden
    assert not SHARE & confine.READ_DIR, "shared memory of others cannot be looked for"
    assert not (READ | SHARE) & (confine.REMOVE_DIR | confine.MAKE_DIR)


def test_gpus_and_name_servers_are_for_those_that_use_them(tmp_path: Path) -> None:
    (tmp_path / "nvidia0").touch()
    (tmp_path / "sda").touch()
    plain = Sandbox(Needs(), (), Path("/s"))
    both = Sandbox(Needs(network=True), (), Path("/s"), gpus=True)
    more = rules_of(both, {}, devices=tmp_path).items() - rules_of(plain, {}, devices=tmp_path).items()
    assert (str(tmp_path / "nvidia0"), OPEN_DEVICE) in more
    assert ("/run/systemd/resolve", READ) in more
    assert not [path for path, _ in more if "sda" in path]


def test_no_folder_leads_to_a_hidden_one() -> None:
    hidden = (Path("/usr/local/idunno/data/packages"), SHARED_MEMORY / "data", Path("/venv/clusters/m1"))
    tree = {"/usr": ["bin", "lib", "local"], "/venv": ["bin", "clusters", "lib"]}
    found = rules_of(Sandbox(Needs(), (Path("/venv"),), Path("/s"), hidden), tree)
    assert {"/usr/bin", "/usr/lib", "/venv/bin", "/venv/lib"} <= found.keys()
    assert not {"/usr", "/usr/local", "/venv", "/venv/clusters", str(SHARED_MEMORY)} & found.keys()


def test_variables_that_may_be_secrets_are_not_passed_on() -> None:
    inherited = {
        "PATH": "/bin",
        "CUDA_VISIBLE_DEVICES": "0",
        "AWS_SECRET_ACCESS_KEY": "x",
        "IDUNNO_SECRET": "/secret.pem",
        "HF_TOKEN": "x",
        "https_proxy": "http://user:password@proxy",
        "HOME": "/home/me",
        "PYTHONPATH": "src",
    }
    closed = Sandbox(Needs(), (), Path("/s")).variables(inherited)
    kept = {"PATH": "/bin", "CUDA_VISIBLE_DEVICES": "0", "PYTHONPATH": str(Path("src").absolute())}
    assert closed == {**kept, "HOME": "/s", "TMPDIR": "/s"}
    opened = Sandbox(Needs(network=True), (), Path("/s")).variables(inherited)
    assert opened == closed | {"https_proxy": inherited["https_proxy"]}


def test_what_a_package_needs_is_in_its_manifest(tmp_path: Path) -> None:
    def needs(runtime: str = "python", **settings: Any) -> Needs:
        return PackageSettings(runtime, "model.py", settings).needs(tmp_path)

    server = {"url": "https://x", "model": "m", "token_file": "/etc/idunno/token", "ca_file": "/etc/ca.pem"}
    assert needs() == Needs((tmp_path,))
    assert needs(network=True) == Needs((tmp_path,), network=True)
    assert needs("openai", openai=server) == Needs(
        (tmp_path, Path("/etc/idunno/token"), Path("/etc/ca.pem")), network=True
    )
    assert needs("python", openai=server) == Needs((tmp_path,)), "files of the machine are for our own code"
    with pytest.raises(PackageError, match="network must be true or false, not 'yes'"):
        needs(network="yes")


def test_a_class_of_a_package_does_not_decide_about_the_network(tmp_path: Path) -> None:
    declared = CODE.replace("(BatchModel):", "(BatchModel):\n    network = True")
    with pytest.raises(PackageError, match=r"a package does that in model\.toml"):
        open_package(tmp_path / write_package(tmp_path, {"model.py": declared}), "mine")
    open_package(tmp_path / write_package(tmp_path, {"model.py": declared}, network=True), "mine")
    wrong = CODE.replace("(BatchModel):", "(BatchModel):\n    network = 'mine'")
    with pytest.raises(PackageError, match="network must be True or False"):
        open_package(tmp_path / write_package(tmp_path, {"model.py": wrong}), "mine")


def test_the_server_says_what_is_not_refused_here(server: ModelServer) -> None:
    told = server.client.get("/v2").json()["isolation"]
    here = Isolation.here()
    assert told.items() >= here.as_json().items()
    assert told["files"] == (confine.landlock_abi() > 0)
    assert Isolation(confine.ABI_SCOPES, True).shortcomings() is None
    old = Isolation(1, True).shortcomings()
    assert old is not None
    assert [word in old for word in ("Landlock of ABI 1", "signals", "files")] == [True, True, False]
    none = Isolation(0, False).shortcomings()
    assert none is not None
    assert all(word in none for word in ("no Landlock", "files", "network", "signals"))


def test_rules_survive_the_command_line() -> None:
    odd = [("/a folder/b", 13), ("/with\nline end", 13)]
    assert confine.encode(odd, network=False) == "0\n13 /a folder/b", "what cannot be told is not allowed"


def test_rights_are_those_that_the_kernel_knows() -> None:
    assert confine.known_rights(1) & (confine.REFER | confine.TRUNCATE | confine.IOCTL_DEV) == 0
    assert confine.known_rights(3) & confine.TRUNCATE
    assert confine.known_rights(7) == (1 << 16) - 1


@needs_landlock
def test_threads_that_a_model_starts_are_confined_too(tmp_path: Path) -> None:
    secret, scratch = tmp_path / "secret", tmp_path / "scratch"
    secret.write_text("x")
    scratch.mkdir()
    code = f"""
import threading
def look():
    try:
        open({str(secret)!r})
    except PermissionError:
        print("refused")
threads = [threading.Thread(target=look) for _ in range(2)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""
    sandbox = Sandbox(Needs(), (Path(sys.prefix), Path(sys.base_prefix)), scratch)
    words = sandbox.command([sys.executable, "-c", code])
    done = subprocess.run(words, capture_output=True, text=True, cwd=scratch, env=sandbox.variables(os.environ))
    assert (done.stdout, done.returncode) == ("refused\nrefused\n", 0), done.stderr
