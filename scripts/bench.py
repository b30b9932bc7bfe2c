"""Measures the main job and a text job against bare processes, fairness, no-op batches, and the file store.

The main job's figure is a ratio. Every round measures both sides one after the other, and the best round of each side
counts, because slow rounds on a busy machine measure its other work. The bare processes run at the niceness of the
model servers, and neither side's time includes loading the model.

The text job is a job over one file of JSON lines, with a model that answers whole batches. The bare processes parse
the same lines, pass them to the model in batches of the same size, and write their answers, too.

Fairness: see bench_fairness.py. The limits beside which the store's figures stand: see bench_limits.py.

No-op batches: see tests/no_op/main.rs.

The store's data is made and flushed to the disk before the clock starts, so that a put's flush (of the whole file
system) does not include it. Puts read their files from the page cache. Gets read what was just put: blobs up to 1 MiB
come from the holders' page cache, larger ones from the disk, because they were written past the cache. The local files
that a get writes are not flushed. Every run has its own directory and every round one within, and nothing is deleted
before the end: ext4 skips recently deleted inodes one by one when it looks for a free one, so a round would pay for the
files that the previous one deleted.
"""

import argparse
import json
import os
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import arguments
from bench_fairness import await_loaded, bench_fairness, bench_fairness_table
from bench_limits import GIB, SMALL_BYTES, measure_machine, ratios, store_bounds, table
from local_cluster import Failed, LocalCluster, make_dataset, run_program, say

WRITE_BYTES = 1 << 20

# How far the model server lowers its own priority (the default of its --nice).
MODEL_SERVER_NICE = 10

PARTS = ("main-job", "text", "fairness", "fairness-table", "no-op", "store")

TEXT_MODEL = "newsgroups-linear"


def parse_arguments():
    parser = argparse.ArgumentParser(prog="scripts/bench.sh", description=__doc__.splitlines()[0])
    arguments.add_benchmark(parser)
    parser.add_argument(
        "--small-files", type=arguments.at_least(1), default=5000, metavar="N", help="files of 20 KB (5000)"
    )
    parser.add_argument("--only", choices=PARTS, help="measure this part only")
    parser.add_argument(
        "--batches", type=arguments.at_least(2000), default=40_000, metavar="N", help="no-op batches (40000)"
    )
    return parser.parse_args()


def python(options, *words, nice=0):
    """Runs a module of the model server's package; returns what it printed."""
    command = [str(options.python), "-m", *map(str, words)]
    lower = (lambda: os.nice(nice)) if nice else None
    return subprocess.run(command, check=True, capture_output=True, text=True, preexec_fn=lower).stdout


def timed(action):
    started = time.monotonic()
    action()
    return time.monotonic() - started


def bench_main_job(options, folder):
    """Two workers against two bare processes, one after the other, on the same files."""
    photos = make_dataset(options.python, "photos", options.images, options.dir)
    bare, idunno = best_rounds(options, Workload("the main job", options.model, photos, 32), folder)
    return {"bare_qps": round(bare, 2), "idunno_qps": round(idunno, 2), "ratio": round(idunno / bare, 4)}


def bench_text_job(options, folder):
    """The same with a file of lines."""
    bare, idunno = best_rounds(options, text_workload(options), folder)
    return {"bare_rows_s": round(bare, 1), "idunno_rows_s": round(idunno, 1), "ratio": round(idunno / bare, 4)}


def text_workload(options):
    lines = make_dataset(options.python, "lines", options.lines, options.dir) / "lines.jsonl"
    return Workload("the text job", TEXT_MODEL, lines, options.text_batch_size)


@dataclass(frozen=True)
class Workload:
    """A model, and a folder of files or a file of lines for it."""

    title: str
    model: str
    data: Path
    batch_size: int


def best_rounds(options, workload, folder):
    """Queries per second of bare processes and of a cluster, each in its best round."""
    best_bare, best_idunno = 0.0, 0.0
    for number in range(options.rounds):
        bare = bare_round(options, workload)
        idunno = idunno_round(options, workload, folder / f"{workload.model}-{number + 1}")
        say(f"{workload.title}, round {number + 1}: bare {bare:.1f} q/s, workers {idunno:.1f} q/s, {idunno / bare:.3f}")
        best_bare, best_idunno = max(best_bare, bare), max(best_idunno, idunno)
    return best_bare, best_idunno


def bare_round(options, workload):
    """Queries per second of two bare processes."""
    words = ("idunno_model_server.bench_bare", workload.model, workload.data)
    sizes = ("--processes", 2, "--batch-size", workload.batch_size)
    return json.loads(python(options, *words, *sizes, "--json", nice=MODEL_SERVER_NICE))["qps"]


def idunno_round(options, workload, folder):
    """Queries per second of a cluster of two workers, from the start of the job to its last commit."""
    cluster = LocalCluster(options.programs, options.python, folder)
    try:
        cluster.up(2, threads=1, insecure=options.insecure)
        if workload.data.is_dir():
            dataset = ()
            cluster.run("populate-test-data", workload.data)
        else:
            dataset = ("--dataset", workload.data.name)
            cluster.run("put", workload.data, workload.data.name)
        cluster.run("train-start", workload.model, "--wait")
        await_loaded(cluster, workload.model)
        job = cluster.run("add-job", workload.model, "--batch-size", workload.batch_size, *dataset)["job"]
        view = cluster.run("start-job", job, "--wait")["items"][0]
        if view["dead_letters"]:
            raise Failed(f"{view['dead_letters']} queries of {workload.title} failed")
        return view["submitted"] / view["running_s"]
    finally:
        cluster.down()


def bench_no_op(options, folder):
    """Batches that cost nothing, on four members, so that every segment is durable on all four."""
    cluster = LocalCluster(options.programs, options.python, folder / "no-op")
    try:
        cluster.up(4, model_servers=False, insecure=options.insecure)
        members = [member["address"] for member in cluster.run("list_mem")["items"]]
        command = [Path(options.programs, "no-op"), "--scratch", folder, "--batches", options.batches, *members]
        command += [] if options.insecure else ["--secret", cluster.folder / "secret.pem"]
        done = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True)
    finally:
        cluster.down()
    found = json.loads(done.stdout)
    say(f"no-op batches: {json.dumps(found)}")
    return found


def make_large(path):
    """1 GiB of bytes that neither compress nor repeat."""
    with path.open("wb") as file:
        for _ in range(GIB // WRITE_BYTES):
            file.write(os.urandom(WRITE_BYTES))


def make_small(folder, count):
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / f"{number:06d}.bin").write_bytes(os.urandom(SMALL_BYTES))


def bench_store(options, folder):
    """Puts and gets on four members, so that every put is durable on all four, without model servers."""
    large, small = folder / "large.bin", folder / "small"
    make_large(large)
    make_small(small, options.small_files)
    figures = {}
    for number in range(options.rounds):
        found = store_round(options, large, small, folder / f"store-{number + 1}")
        say(f"the store, round {number + 1}: {json.dumps(found)}")
        figures = {name: max(value, figures.get(name, 0)) for name, value in found.items()}
    return figures


def store_round(options, large, small, folder):
    """One round, on a new cluster; compares what comes back."""
    folder.mkdir()
    back, small_back = folder / "back.bin", folder / "small"
    cluster = LocalCluster(options.programs, options.python, folder / "cluster")
    try:
        cluster.up(4, model_servers=False, insecure=options.insecure)
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
        "put_20kb_files_s": round(options.small_files / small_put_s, 1),
        "get_20kb_files_s": round(options.small_files / small_get_s, 1),
    }


def check_same(put, got):
    """Fails unless both are the same."""
    if subprocess.run(["diff", "--recursive", "--brief", put, got], check=False, capture_output=True).returncode != 0:
        raise Failed(f"{got} differs from {put}")


def clusters_end(folder):
    """Whether no daemon of this run is left. `down` has reported those that did not end."""
    return all(
        process["running"] is None
        for record in folder.glob("**/cluster.json")
        # Members have a file of that name, too, with their cluster's id.
        if (record.parent / "introducer").is_dir()
        for process in json.loads(record.read_text(encoding="utf-8"))["processes"]
    )


def main():
    options = parse_arguments()
    options.dir.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=options.dir))
    report = {}
    try:
        report["bounds"] = measure_machine(options, folder)
        say(f"the machine: {json.dumps(report['bounds'])}")
        if options.only in (None, "main-job"):
            report["main_job"] = bench_main_job(options, folder)
        if options.only in (None, "text"):
            report["text_job"] = bench_text_job(options, folder)
        if options.only in (None, "fairness"):
            report["fairness"] = bench_fairness(options, folder)
        # It takes ten minutes, so only on request.
        if options.only == "fairness-table":
            report["fairness_table"] = bench_fairness_table(options, folder)
        if options.only in (None, "no-op"):
            report["no_op"] = bench_no_op(options, folder)
        if options.only in (None, "store"):
            figures = bench_store(options, folder)
            bounds = store_bounds(report["bounds"], encrypted=not options.insecure)
            say(table(figures, bounds))
            report["bounds"].update(bounds)
            report.update(figures | ratios(figures, bounds))
    finally:
        if clusters_end(folder):
            shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(report, indent=2))
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_program(main)
