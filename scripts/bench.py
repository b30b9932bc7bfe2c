"""Figures of one run: the main job against bare processes, fairness, batches that cost nothing, the store.

The main job's figure is a ratio. Every round measures both sides one after the other, and the best round of each side
counts: on a busy machine the slow rounds show the neighbours. The bare processes run at the niceness of the model
servers, and neither side's time includes loading the model.

Fairness: see bench_fairness.py.

Batches that cost nothing: see tests/no_op/main.rs.

The store's data is made before the clock starts and flushed to the disk, so that a put's flush (of the whole file
system) does not pay for it. Puts read their files from the page cache. Gets read what was just put: blobs up to 1 MiB
come from the holders' page cache, larger ones from the disk, past which they were written; the local files that a get
writes are not flushed. Every run has its own folder and every round its own within, and nothing is deleted before the
end: ext4 looks for a free inode past all that were deleted within the last minutes, one by one, and a round would pay
for the files that the one before deleted.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench_fairness import await_loaded, bench_fairness, bench_fairness_table
from idunno_model_server.models import registry
from local_cluster import ROOT, Failed, LocalCluster, run_program, say

GIB = 1 << 30
SMALL_BYTES = 20_000
WRITE_BYTES = 1 << 20

# The model server lowers its priority by so much (its --nice).
MODEL_SERVER_NICE = 10

PARTS = ("main-job", "fairness", "fairness-table", "no-op", "store")


def parse_arguments():
    parser = new_parser("", __doc__)
    parser.add_argument("--small-files", type=int, default=5000, metavar="N", help="files of 20 KB (5000)")
    parser.add_argument("--only", choices=PARTS, help="one part; the figures of the others are left out")
    parser.add_argument("--batches", type=int, default=40_000, metavar="N", help="batches that cost nothing (40000)")
    arguments = parser.parse_args()
    if min(arguments.images, arguments.small_files, arguments.rounds) < 1:
        parser.error("--images, --small-files and --rounds take 1 or more")
    if arguments.batches < 2000:
        parser.error("--batches takes 2000 or more")
    check_model(parser, arguments)
    if arguments.json and not arguments.json.absolute().parent.is_dir():
        parser.error(f"--json: there is no folder {arguments.json.absolute().parent}")
    return arguments


def new_parser(word, text):
    """The arguments that all benchmarks have; `word` chooses one, `text` begins with what it is."""
    prog = f"scripts/bench.sh {word}".strip()
    parser = argparse.ArgumentParser(prog=prog, description=text.splitlines()[0])
    parser.add_argument("--images", type=int, default=5000, metavar="N", help="photos of the main job (5000)")
    parser.add_argument("--model", default="squeezenet1.1", help="the main job's model (squeezenet1.1)")
    parser.add_argument("--rounds", type=int, default=1, metavar="N", help="rounds of everything, the best counts (1)")
    parser.add_argument("--insecure", action="store_true", help="without TLS and sealed datagrams, to see what they cost")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--dir", type=Path, default=ROOT / ".demo/bench", help="where everything goes (.demo/bench)")
    parser.add_argument("--programs", type=Path, default=ROOT / "target/release", help=argparse.SUPPRESS)
    parser.add_argument("--python", type=Path, default=Path(sys.executable), help=argparse.SUPPRESS)
    return parser


def check_model(parser, arguments):
    if arguments.model not in registry():
        parser.error(f"--model: there is no '{arguments.model}': there are {', '.join(registry())}")


def python(arguments, *words, nice=0):
    """Runs a module of the model server's package; what it printed."""
    command = [str(arguments.python), "-m", *map(str, words)]
    lower = (lambda: os.nice(nice)) if nice else None
    return subprocess.run(command, check=True, capture_output=True, text=True, preexec_fn=lower).stdout


def timed(action):
    started = time.monotonic()
    action()
    return time.monotonic() - started


def bench_main_job(arguments, folder):
    """Two workers against two bare processes, one after the other, on the same files."""
    photos = arguments.dir / f"photos-{arguments.images}"
    python(arguments, "idunno_model_server.make_dataset", "photos", photos, "--images", arguments.images)
    bare_qps, idunno_qps = 0.0, 0.0
    for number in range(arguments.rounds):
        bare = bare_round(arguments, photos)
        idunno = idunno_round(arguments, photos, folder / f"cluster-{number + 1}")
        say(f"the main job, round {number + 1}: bare {bare:.1f} q/s, workers {idunno:.1f} q/s, {idunno / bare:.3f}")
        bare_qps, idunno_qps = max(bare_qps, bare), max(idunno_qps, idunno)
    ratio = idunno_qps / bare_qps
    return {"bare_qps": round(bare_qps, 2), "idunno_qps": round(idunno_qps, 2), "ratio": round(ratio, 4)}


def bare_round(arguments, photos):
    """Queries per second of two bare processes."""
    words = ("idunno_model_server.bench_bare", arguments.model, photos, "--processes", 2, "--batch-size", 32, "--json")
    return json.loads(python(arguments, *words, nice=MODEL_SERVER_NICE))["qps"]


def idunno_round(arguments, photos, folder):
    """Queries per second of a cluster of two workers, from the start of the job to its last commit."""
    cluster = LocalCluster(arguments.programs, arguments.python, folder)
    try:
        cluster.up(2, threads=1, insecure=arguments.insecure)
        cluster.run("populate-test-data", photos)
        cluster.run("train-start", arguments.model, "--wait")
        await_loaded(cluster, arguments.model)
        job = cluster.run("add-job", arguments.model, "--batch-size", 32)["job"]
        view = cluster.run("start-job", job, "--wait")["items"][0]
        return view["submitted"] / view["running_s"]
    finally:
        cluster.down()


def bench_no_op(arguments, folder):
    """Batches that cost nothing, on four members, so that every segment is durable on four."""
    cluster = LocalCluster(arguments.programs, arguments.python, folder / "no-op")
    try:
        cluster.up(4, model_servers=False, insecure=arguments.insecure)
        members = [member["address"] for member in cluster.run("list_mem")["items"]]
        command = [Path(arguments.programs, "no-op"), "--scratch", folder, "--batches", arguments.batches, *members]
        command += [] if arguments.insecure else ["--secret", cluster.folder / "secret.pem"]
        done = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True)
    finally:
        cluster.down()
    found = json.loads(done.stdout)
    say(f"batches that cost nothing: {json.dumps(found)}")
    return found


def make_large(path):
    """1 GiB of bytes that neither compress nor repeat."""
    with open(path, "wb") as file:
        for _ in range(GIB // WRITE_BYTES):
            file.write(os.urandom(WRITE_BYTES))


def make_small(folder, count):
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / f"{number:06d}.bin").write_bytes(os.urandom(SMALL_BYTES))


def bench_store(arguments, folder):
    """Four members, so that every put is durable on four, without model servers."""
    large, small = folder / "large.bin", folder / "small"
    make_large(large)
    make_small(small, arguments.small_files)
    figures = {}
    for number in range(arguments.rounds):
        found = store_round(arguments, large, small, folder / f"store-{number + 1}")
        say(f"the store, round {number + 1}: {json.dumps(found)}")
        figures = {name: max(value, figures.get(name, 0)) for name, value in found.items()}
    return figures


def store_round(arguments, large, small, folder):
    """Puts and gets on a fresh cluster; what comes back is compared."""
    folder.mkdir()
    back, small_back = folder / "back.bin", folder / "small"
    cluster = LocalCluster(arguments.programs, arguments.python, folder / "cluster")
    try:
        cluster.up(4, model_servers=False, insecure=arguments.insecure)
        os.sync()
        small_put_s = timed(lambda: cluster.run("populate-test-data", small, "--dataset", "small"))
        small_get_s = timed(lambda: cluster.run("get-dataset", "small", small_back))
        check_same(small, small_back)
        os.sync()
        put_s = timed(lambda: cluster.run("put", large, "large.bin"))
        get_s = timed(lambda: cluster.run("get", "large.bin", back))
        check_same(large, back)
    finally:
        cluster.down(purge=False)
    return {
        "put_1gib_mb_s": round(GIB / 1e6 / put_s, 1),
        "get_1gib_mb_s": round(GIB / 1e6 / get_s, 1),
        "put_20kb_files_s": round(arguments.small_files / small_put_s, 1),
        "get_20kb_files_s": round(arguments.small_files / small_get_s, 1),
    }


def check_same(put, got):
    """Fails unless what was got is what was put."""
    if subprocess.run(["diff", "--recursive", "--brief", put, got], check=False, capture_output=True).returncode != 0:
        raise Failed(f"{got} is not what {put} was")


def clusters_end(folder):
    """Whether no daemon of this run is left: `down` has told of those that did not end."""
    return all(
        process["running"] is None
        for record in folder.glob("**/cluster.json")
        # Members have a file of that name too: which cluster is theirs.
        if (record.parent / "introducer").is_dir()
        for process in json.loads(record.read_text(encoding="utf-8"))["processes"]
    )


def main():
    arguments = parse_arguments()
    arguments.dir.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=arguments.dir))
    report = {}
    try:
        if arguments.only in (None, "main-job"):
            report["main_job"] = bench_main_job(arguments, folder)
        if arguments.only in (None, "fairness"):
            report["fairness"] = bench_fairness(arguments, folder)
        # Ten minutes: only for who asks.
        if arguments.only == "fairness-table":
            report["fairness_table"] = bench_fairness_table(arguments, folder)
        if arguments.only in (None, "no-op"):
            report["no_op"] = bench_no_op(arguments, folder)
        if arguments.only in (None, "store"):
            report.update(bench_store(arguments, folder))
    finally:
        if clusters_end(folder):
            shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(report, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_program(main)
