"""The scripts, with an `idunno` that answers as each test wants."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

SCRIPTS = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(SCRIPTS))

import bench  # noqa: E402
import bench_limits  # noqa: E402
import demo  # noqa: E402
from local_cluster import CommandFailed, Failed, LocalCluster, run_program  # noqa: E402

# Records its arguments and settings; `local up` leaves a cluster behind and fails, `local down` ends it.
FAKE = """#!/bin/sh
echo "$@" >>"$0.calls"
env | grep ^IDUNNO_ >>"$0.settings"
dir="$2"
case "$*" in
*"local up"*)
    mkdir -p "$dir"
    echo '{"processes": [{"running": {"pid": 1}}]}' >"$dir/cluster.json"
    echo '{"error": {"message": "m1 does not listen"}}' >&2
    exit 5 ;;
*"local status"*) cat "$0.status" ;;
*"local down"*) rm "$dir/cluster.json" ;;
esac
"""

# What such a machine can do.
MACHINE = {
    "aes_gcm_mb_s": 4000.0,
    "blake3_mb_s": 5000.0,
    "loopback_mb_s": 2000.0,
    "disk_write_mb_s": 400.0,
    "disk_read_mb_s": 500.0,
    "disk_copy_mb_s": 300.0,
    "cached_write_mb_s": 2000.0,
    "files_created_s": 20_000.0,
    "files_durable_s": 1000.0,
}


@pytest.fixture
def programs(tmp_path):
    folder = tmp_path / "programs"
    folder.mkdir()
    idunno = folder / "idunno"
    idunno.write_text(FAKE)
    idunno.chmod(0o755)
    return folder


def calls(programs):
    path = programs / "idunno.calls"
    return path.read_text() if path.exists() else ""


def test_settings_of_another_cluster_are_kept_from_commands(programs, tmp_path, monkeypatch):
    monkeypatch.setenv("IDUNNO_CLUSTER", "10.0.0.1:7401")
    LocalCluster(programs, "python", tmp_path / "cluster").run("status")
    assert (programs / "idunno.settings").read_text() == ""


def test_a_failure_says_what_the_command_said(programs, tmp_path):
    cluster = LocalCluster(programs, "python", tmp_path / "cluster")
    with pytest.raises(CommandFailed, match=r"^`idunno local up --members 3 .*` ended with 5: m1 does not listen$"):
        cluster.up(3)


def test_a_cluster_that_runs_is_left_alone(programs, tmp_path):
    cluster = LocalCluster(programs, "python", tmp_path / "cluster")
    cluster.folder.mkdir()
    (cluster.folder / "cluster.json").write_text("{}")
    status = programs / "idunno.status"
    status.write_text('{"items": [{"name": "m1", "running": true}]}')
    with pytest.raises(Failed, match=r"is already running in .*\(m1\).*local down"):
        cluster.clear()
    assert "local down" not in calls(programs)
    status.write_text('{"items": [{"name": "m1", "running": false}]}')
    cluster.clear()
    assert not cluster.exists()


def run_demo(monkeypatch, programs, folder, *words):
    words = ["demo", "--programs", str(programs), "--dir", str(folder), "--images", "1", *words]
    monkeypatch.setattr(sys, "argv", words)
    monkeypatch.setattr(demo, "make_dataset", lambda _python, _kind, _count, folder: folder)
    demo.main()


def test_a_start_that_fails_leaves_nothing_running(programs, tmp_path, monkeypatch):
    with pytest.raises(CommandFailed):
        run_demo(monkeypatch, programs, tmp_path / "demo")
    assert calls(programs).splitlines()[-1].endswith("local down --purge --yes")

    monkeypatch.setattr(LocalCluster, "up", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    (tmp_path / "demo/cluster").mkdir(exist_ok=True)
    monkeypatch.setattr(LocalCluster, "clear", lambda _: None)
    (tmp_path / "demo/cluster/cluster.json").write_text("{}")
    with pytest.raises(KeyboardInterrupt):
        run_demo(monkeypatch, programs, tmp_path / "demo")
    assert not (tmp_path / "demo/cluster/cluster.json").exists()


def test_expected_failures_are_one_line_and_exit_code_1(capsys):
    def fails():
        raise Failed("there is no disk")

    with pytest.raises(SystemExit) as ended:
        run_program(fails)
    assert ended.value.code == "failed: there is no disk"
    with pytest.raises(SystemExit) as ended:
        run_program(lambda: subprocess.run(["false"], check=True))
    assert ended.value.code.startswith("failed: `false` ended with 1")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--kill", "4"], "--kill takes 0 to 3"),
        (["--members", "3", "--kill", "2"], "--kill takes 0 to 1"),
        (["--members", "20", "--kill", "4"], "--kill takes 0 to 3"),
        (["--members", "1", "--kill", "1"], "--kill takes 0 to 0"),
        (["--models", "squeezenet1.1,lenet"], "unknown model 'lenet'"),
        (["--models", ","], "--models"),
        (["--images", "0"], "--images: must be 1 or more"),
        (["--json", "/no/such/folder/x.json"], "no directory /no/such/folder"),
    ],
)
def test_bad_arguments_are_refused_before_anything_starts(words, reason, capsys):
    with pytest.raises(SystemExit) as ended:
        demo.parse_arguments(words)
    assert ended.value.code == 2
    assert reason in capsys.readouterr().err


def test_defaults_fit_a_small_cluster_and_models_count_once():
    assert demo.parse_arguments([]).kill == 3
    small = demo.parse_arguments(["--members", "3", "--models", "mnist-mlp,squeezenet1.1,mnist-mlp"])
    assert (small.kill, small.models) == (1, ["mnist-mlp", "squeezenet1.1"])


def view(done, state="running", reason=None):
    return {
        "job": "job-1",
        "model": "m",
        "state": state,
        "reason": reason,
        "submitted": 30,
        "done": done,
        "dead_letters": 0,
        "rate_10s_qps": 1.0,
    }


class Scripted:
    """A cluster whose jobs have the given figures, one poll after the other."""

    def __init__(self, *views, coordinator=True):
        self.views, self.coordinator, self.kills = list(views), coordinator, 0

    def jobs(self):
        found = self.views.pop(0)
        if isinstance(found, Exception):
            raise found
        return {"job-1": found}

    def run(self, *words):
        assert words[:3] == ("local", "kill", "--coordinator")
        self.kills += 1
        return {"killed": [{"name": f"m{number}", "coordinator": self.coordinator} for number in (1, 2, 3)]}


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(demo, "POLL_S", 0)


def test_after_a_kill_a_coordinator_that_lives_must_answer():
    silent = CommandFailed(["get-job-stats"], 4, "nobody")
    cluster = Scripted(view(0), view(12), silent, view(12), view(20), view(30))
    watch = demo.Watch(cluster, ["job-1"], 3)
    assert watch.follow()[0]["done"] == 30
    assert (cluster.kills, watch.wrong()) == (1, [])
    assert watch.failover_s is not None and not cluster.views


def test_a_kill_at_the_very_end_is_followed_by_an_answer_too():
    cluster = Scripted(view(30), view(30))
    watch = demo.Watch(cluster, ["job-1"], 3)
    watch.follow()
    assert watch.failover_s is not None and not cluster.views


def test_who_was_killed_counts():
    watch = demo.Watch(Scripted(view(30), view(30), coordinator=False), ["job-1"], 3)
    watch.follow()
    assert watch.wrong() == ["the coordinator was not among those killed"]
    watch.killed = watch.killed[:2]
    assert "2 members were killed, not 3" in watch.wrong()
    watch.killed, watch.failover_s = [{"name": "m1", "coordinator": True}] * 3, None
    assert watch.wrong() == ["no results were seen after the kill"]


def test_a_paused_job_ends_the_watch_with_its_reason():
    watch = demo.Watch(Scripted(view(5, "paused", "every worker fails")), ["job-1"], 0)
    with pytest.raises(Failed, match="job-1 is paused: every worker fails"):
        watch.follow()


@pytest.mark.parametrize(
    ("queries", "errors", "submitted", "reason"),
    [
        ([0, 1, 1], 0, 3, "1 rows too many"),
        ([0, 1], 0, 3, "not those of queries 0 to 2"),
        ([0, 1, 2], 1, 3, "1 rows with an error, 0 dead letters"),
        ([0, 1], 0, 2, "2 queries were submitted for 3 photos"),
    ],
)
def test_rows_that_are_not_exactly_one_a_photo_are_told(queries, errors, submitted, reason):
    figures = {"submitted": submitted, "done": submitted, "dead_letters": 0}
    assert reason in "; ".join(demo.wrong_rows("job-1", figures, 3, queries, errors))
    assert demo.wrong_rows("job-1", {"submitted": 3, "done": 3, "dead_letters": 0}, 3, [0, 1, 2], 0) == []


def test_doubled_rows_reach_the_report(tmp_path):
    def run(*words):
        assert words[0] == "get-job-results"
        if "--raw" not in words:
            raise CommandFailed(words[:1], 1, "queries have more than one row")
        rows = [{"query": query, "name": "d/a.jpg", "output": {"top5": [{"index": 7}]}} for query in (0, 0)]
        words[2].write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    (tmp_path / "labels.csv").write_text("file,label\na.jpg,7\n", encoding="utf-8")
    arguments = SimpleNamespace(dir=tmp_path, images=1, verify=False)
    figures = {"model": "m", "submitted": 1, "done": 1, "dead_letters": 0, "rate_qps": 1.0, "running_s": 1.0}
    row, wrong = demo.check_job(SimpleNamespace(run=run), arguments, "job-1", figures, tmp_path)
    assert (row["duplicates"], row["accuracy_top1"]) == (1, 1.0)
    assert len(wrong) == 2 and "answered twice" in wrong[0] and "more than one row" in wrong[1]


def test_a_bench_that_fails_stops_its_cluster_and_touches_no_other(programs, tmp_path, monkeypatch):
    theirs = tmp_path / "store-1-1/cluster/m1"
    theirs.mkdir(parents=True)
    (programs / "machine").write_text(f"#!/bin/sh\necho '{json.dumps(MACHINE)}'\n")
    (programs / "machine").chmod(0o755)
    monkeypatch.setattr(bench, "GIB", 1 << 20)
    words = ["bench", "--programs", str(programs), "--dir", str(tmp_path), "--only", "store", "--small-files", "2"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(CommandFailed):
        bench.main()
    assert calls(programs).splitlines()[-1].endswith("local down")
    assert theirs.is_dir() and sorted(path.name for path in tmp_path.iterdir()) == ["programs", "store-1-1"]


def test_a_bound_is_that_of_the_slowest_part():
    fast_disk = MACHINE | {"disk_write_mb_s": 1e6, "files_durable_s": 1e6}
    bounds = {
        (encrypted, disk): bench_limits.store_bounds(machine, encrypted=encrypted)
        for encrypted in (True, False)
        for disk, machine in (("slow", MACHINE), ("fast", fast_disk))
    }
    assert bounds[True, "slow"]["put_1gib_mb_s"] == {"rate": 100.0, "of": "disk"}, "four copies on one disk"
    # A GiB is encrypted and decrypted four times, hashed five times, and sent four times.
    of_processors = 1 / (8 / 4000 + 5 / 5000 + 4 / 2000)
    assert bounds[True, "fast"]["put_1gib_mb_s"] == {"rate": of_processors, "of": "processors"}
    assert bounds[False, "fast"]["put_1gib_mb_s"]["rate"] == pytest.approx(1 / (5 / 5000 + 4 / 2000), abs=0.1)
    assert bounds[True, "slow"]["put_20kb_files_s"] == {"rate": 250.0, "of": "disk"}
    assert bounds[True, "slow"]["get_20kb_files_s"]["of"] == "processors"
    figures = dict.fromkeys(bench_limits.RATIOS.values(), 50.0)
    assert bench_limits.ratios(figures, bounds[True, "slow"])["put"] == {"ratio": 0.5}
    assert "put_1gib_mb_s            50      100   0.50  disk" in bench_limits.table(figures, bounds[True, "slow"])


def test_the_bound_of_a_get_is_that_of_the_better_way_to_write():
    def bound(**rates):
        return bench_limits.store_bounds(MACHINE | rates, encrypted=True)["get_1gib_mb_s"]

    assert bound() == {"rate": 500.0, "of": "disk"}, "into the page cache, as fast as the disk reads"
    # New pages of the cache cost more than the disk does.
    assert bound(cached_write_mb_s=100.0) == {"rate": 300.0, "of": "disk"}
    # A GiB is encrypted, decrypted, hashed and sent once.
    of_processors = round(1 / (2 / 4000 + 1 / 5000 + 1 / 2000), 1)
    assert bound(disk_copy_mb_s=1e6) == {"rate": of_processors, "of": "processors"}


def test_an_environment_of_the_users_own_is_never_deleted(tmp_path):
    venv = tmp_path / "venv"
    venv.mkdir()
    (venv / "pyvenv.cfg").write_text("home = /usr/bin\n")
    setup = [str(SCRIPTS / "setup_python.sh"), str(venv)]
    # It has no Python, so it cannot do anything else next.
    environment = {**os.environ, "PYTHON": "/bin/false"}
    done = subprocess.run(setup, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1 and "was not made by this script" in done.stderr
    assert (venv / "pyvenv.cfg").exists()
    (venv / ".idunno-dependencies").write_text("")
    done = subprocess.run(setup, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1 and "needs Python 3.11" in done.stderr
