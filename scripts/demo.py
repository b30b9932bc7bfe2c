"""The main job: a local cluster answers labelled photos with several models while members are killed.

Ends with exit code 0 only if every job has done + dead = submitted, no query twice, and one result row a query.
"""

import argparse
import csv
import json
import subprocess
import sys
import time
from pathlib import Path

from local_cluster import CommandFailed, LocalCluster, fail, say, top_labels

POLL_S = 0.1
JOBS_DEADLINE_S = 600


def parse_arguments():
    parser = argparse.ArgumentParser(prog="scripts/demo.sh", description=__doc__)
    parser.add_argument("--members", type=int, default=7, metavar="N", help="members of the cluster (7)")
    parser.add_argument("--images", type=int, default=1000, metavar="N", help="photos in the data set (1000)")
    parser.add_argument(
        "--models",
        default="squeezenet1.1,efficientnet-lite0",
        metavar="A,B",
        help="a job for each of these models (squeezenet1.1,efficientnet-lite0)",
    )
    parser.add_argument("--kill", type=int, default=3, metavar="K", help="members to kill at a third of the work (3)")
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="queries a batch (32)")
    parser.add_argument("--keep", action="store_true", help="leave the cluster up")
    parser.add_argument("--verify", action="store_true", help="compare the labels with onnxruntime called directly")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--dir", type=Path, default=Path(".demo"), help="where everything goes (.demo)")
    parser.add_argument("--programs", type=Path, default=Path("target/release"), help=argparse.SUPPRESS)
    parser.add_argument("--python", type=Path, default=Path(sys.executable), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.images < 1 or arguments.members < 1 or arguments.batch_size < 1:
        parser.error("--images, --members and --batch-size take 1 or more")
    if not 0 <= arguments.kill < arguments.members:
        parser.error(f"--kill takes 0 to {arguments.members - 1} with {arguments.members} members")
    return arguments


def make_photos(arguments):
    """The data set: made once for each size."""
    folder = arguments.dir / f"photos-{arguments.images}"
    command = [arguments.python, "-m", "idunno_model_server.dataset", "photos", folder, "--images", arguments.images]
    subprocess.run(list(map(str, command)), check=True)
    return folder


def start_jobs(cluster, models, batch_size):
    """Adds and starts a job a model; the model by job."""
    jobs = {}
    for model in models:
        job = cluster.run("add-job", model, "--batch-size", batch_size)["job"]
        jobs[job] = model
    cluster.run("start-job", *jobs)
    return jobs


def figures(cluster, jobs):
    """The jobs' figures, in the order they were started."""
    known = cluster.jobs()
    return [known[job] for job in jobs]


def progress(views):
    return sum(view["done"] + view["dead"] for view in views)


def kill_members(cluster, count):
    """Kills `count` members in the same moment, the coordinator among them; their names and the moment."""
    options = ["--coordinator"] + (["--random", count - 1] if count > 1 else [])
    killed = cluster.run("local", "kill", *options)
    return [process["name"] for process in killed["killed"]], time.monotonic()


def watch_jobs(cluster, jobs, arguments):
    """Follows the jobs to their end, kills on the way; returns figures, seconds of failover and who was killed."""
    total, shown = None, -1
    killed, killed_at, done_at_answer, failover_s = [], None, None, None
    deadline = time.monotonic() + JOBS_DEADLINE_S
    while time.monotonic() < deadline:
        try:
            views = figures(cluster, jobs)
        except CommandFailed as failure:
            say(f"no answer: {failure}")
            time.sleep(POLL_S)
            continue
        done, total = progress(views), total or sum(view["submitted"] for view in views)
        if killed_at and failover_s is None:
            if done_at_answer is None:
                done_at_answer = done
                say(f"a new coordinator answers after {time.monotonic() - killed_at:.2f} s")
            elif done > done_at_answer or done == total:
                failover_s = time.monotonic() - killed_at
                say(f"results flow again after {failover_s:.2f} s")
        if done * 10 // total != shown:
            shown = done * 10 // total
            rates = ", ".join(f"{view['model']} {view['done']} done, {view['rate_10s_qps']:.0f} q/s" for view in views)
            say(f"{done} of {total} queries: {rates}")
        if arguments.kill and not killed and done * 3 >= total:
            say(f"killing {arguments.kill} members with SIGKILL in the same moment, the coordinator among them")
            killed, killed_at = kill_members(cluster, arguments.kill)
            say(f"killed {', '.join(killed)}")
        if done == total:
            return views, failover_s, killed
        time.sleep(POLL_S)
    fail(f"the jobs were not done after {JOBS_DEADLINE_S} s")


def check_job(cluster, arguments, job, view, photos):
    """Fetches a job's results and holds them against what was asked; the row of the report, and what is wrong."""
    results_file = arguments.dir / f"results-{view['model']}.jsonl"
    cluster.run("get-job-results", job, results_file)
    labels, queries, errors = top_labels(results_file)
    duplicates = len(queries) - len(set(queries))
    wrong = []
    if view["done"] + view["dead"] != view["submitted"]:
        wrong.append(f"{job}: {view['done']} done + {view['dead']} dead are not {view['submitted']} submitted")
    if duplicates:
        wrong.append(f"{job}: {duplicates} queries were answered twice")
    if set(queries) != set(range(view["submitted"])):
        wrong.append(f"{job}: the result rows are not exactly one for each of {view['submitted']} queries")
    if errors != view["dead"]:
        wrong.append(f"{job}: {errors} rows with an error, {view['dead']} dead letters")
    if arguments.verify:
        wrong += compare_directly(arguments, job, view["model"], labels, photos)
    row = {
        "job": job,
        "model": view["model"],
        "submitted": view["submitted"],
        "done": view["done"],
        "dead": view["dead"],
        "duplicates": duplicates,
        "accuracy_top1": accuracy(labels, photos),
        "rate_qps": round(view["rate_qps"], 2),
        "seconds": round(view["running_s"], 2),
        "results_file": str(results_file),
    }
    return row, wrong


def accuracy(labels, photos):
    """The share of the labelled files whose first label is right, from the rows themselves."""
    with open(photos / "labels.csv", encoding="utf-8") as table:
        truth = {row["file"]: int(row["label"]) for row in csv.DictReader(table)}
    right = sum(labels.get(name) == label for name, label in truth.items())
    return round(right / len(truth), 4) if truth else None


def compare_directly(arguments, job, model, labels, photos):
    """Row by row: the cluster's labels against onnxruntime's, called on the same files without the cluster."""
    out = arguments.dir / f"direct-{model}.jsonl"
    command = [arguments.python, "-m", "idunno_model_server.direct", model, photos, out]
    subprocess.run(list(map(str, command)), check=True)
    with open(out, encoding="utf-8") as rows:
        direct = {row["file"]: row["index"] for row in map(json.loads, rows)}
    differing = [name for name in direct.keys() | labels.keys() if direct.get(name) != labels.get(name)]
    say(f"{job}: {len(direct) - len(differing)} of {len(direct)} labels equal those of onnxruntime called directly")
    return [f"{job}: {len(differing)} labels differ from onnxruntime's, {differing[:3]} first"] if differing else []


def print_table(rows):
    columns = ["job", "model", "submitted", "done", "dead", "duplicates", "accuracy_top1", "rate_qps", "seconds"]
    lines = [columns] + [[str(row[column]) for column in columns] for row in rows]
    widths = [max(len(line[place]) for line in lines) for place in range(len(columns))]
    print()
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    print()


def main():
    arguments = parse_arguments()
    arguments.dir.mkdir(parents=True, exist_ok=True)
    models = arguments.models.split(",")
    started = time.monotonic()
    photos = make_photos(arguments)
    cluster = LocalCluster(arguments.programs, arguments.python, arguments.dir / "cluster")
    say(f"starting {arguments.members} members")
    ready_s = cluster.up(arguments.members)
    say(f"the cluster was ready after {ready_s:.1f} s")
    try:
        stored = cluster.run("populate-test-data", photos)
        say(f"stored {stored['files']} files, {stored['bytes'] / 1e6:.1f} MB")
        cluster.run("train-start", *models, "--wait")
        say(f"trained {', '.join(models)}")
        jobs = start_jobs(cluster, models, arguments.batch_size)
        say(f"started {', '.join(f'{job} ({model})' for job, model in jobs.items())}")
        views, failover_s, killed = watch_jobs(cluster, jobs, arguments)
        checked = [check_job(cluster, arguments, job, view, photos) for job, view in zip(jobs, views, strict=True)]
    finally:
        if arguments.keep:
            say(f"the cluster stays up: idunno --dir {cluster.folder} shows it, 'local down' stops it")
        else:
            cluster.down()
    rows = [row for row, _ in checked]
    print_table(rows)
    report = {
        "members": arguments.members,
        "killed": len(killed),
        "failover_s": failover_s and round(failover_s, 3),
        "jobs": rows,
    }
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    wrong = [reason for _, reasons in checked for reason in reasons]
    if wrong:
        fail("; ".join(wrong))
    lost = f"{len(killed)} members killed, results again after {failover_s:.2f} s, " if failover_s else ""
    print(f"every query answered exactly once: {lost}{time.monotonic() - started:.1f} s in all")


if __name__ == "__main__":
    main()
