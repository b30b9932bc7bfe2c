"""Runs the main job: a local cluster answers labelled photos with several models while members are killed.

The exit code is 0 only if every photo of every job was submitted and has exactly one committed row, done + dead =
submitted, the members were killed as asked, with the coordinator among them, and results arrived after the kill.
"""

import argparse
import csv
import json
import subprocess
import time

import arguments
from local_cluster import CommandFailed, Failed, LocalCluster, make_dataset, read_rows, run_program, say

POLL_S = 0.1
JOBS_DEADLINE_S = 600
KILL_DEFAULT = 3
VOTERS_MAX = 7


def parse_arguments(words=None):
    parser = argparse.ArgumentParser(prog="scripts/demo.sh", description=__doc__)
    positive = arguments.at_least(1)
    parser.add_argument("--members", type=positive, default=7, metavar="N", help="members of the cluster (7)")
    parser.add_argument("--images", type=positive, default=1000, metavar="N", help="photos in the dataset (1000)")
    parser.add_argument(
        "--models",
        type=arguments.models,
        default="squeezenet1.1,efficientnet-lite0",
        metavar="A,B",
        help="one job for each of these models (squeezenet1.1,efficientnet-lite0)",
    )
    parser.add_argument(
        "--kill",
        type=int,
        metavar="K",
        help="members to kill at a third of the work (3, or as many as leave a majority of a small cluster)",
    )
    parser.add_argument("--batch-size", type=positive, default=32, metavar="N", help="queries per batch (32)")
    parser.add_argument("--keep", action="store_true", help="leave the cluster running")
    parser.add_argument("--verify", action="store_true", help="compare the labels with those of onnxruntime alone")
    arguments.add_common(parser, ".demo")
    options = parser.parse_args(words)
    options.dir = options.dir.absolute()
    # More deaths at once could leave no majority of the voters, and then the jobs would stop.
    most = (min(options.members, VOTERS_MAX) - 1) // 2
    if options.kill is None:
        options.kill = min(KILL_DEFAULT, most)
    if not 0 <= options.kill <= most:
        why = f"with {options.members} members more could leave no majority, and the jobs would never end"
        parser.error(f"--kill takes 0 to {most}: {why}")
    return options


def run_module(options, *words):
    command = [options.python, "-m", *words]
    subprocess.run(list(map(str, command)), check=True, stderr=subprocess.PIPE, text=True)


def start_jobs(cluster, models, batch_size):
    """Adds and starts one job per model; returns the model of each job."""
    jobs = {}
    for model in models:
        job = cluster.run("add-job", model, "--batch-size", batch_size)["job"]
        jobs[job] = model
    cluster.run("start-job", *jobs)
    return jobs


class Watch:
    """Follows the jobs to their end, and kills members at a third of the work."""

    def __init__(self, cluster, jobs, kill):
        self.cluster, self.jobs, self.kill = cluster, jobs, kill
        self.killed = []
        self.failover_s = None
        self._killed_at = self._done_at_answer = None
        self._shown = -1

    def follow(self):
        """Waits until the jobs are done; returns their figures, after a kill from the new coordinator."""
        deadline = time.monotonic() + JOBS_DEADLINE_S
        while time.monotonic() < deadline:
            try:
                known = self.cluster.jobs()
            except CommandFailed as failure:
                say(f"no answer: {failure}")
                time.sleep(POLL_S)
                continue
            views = [known[job] for job in self.jobs]
            if self._is_over(views):
                return views
            time.sleep(POLL_S)
        raise Failed(f"the jobs did not finish within {JOBS_DEADLINE_S} s")

    def _is_over(self, views):
        for view in views:
            if view["state"] in ("paused", "stopped"):
                raise Failed(f"{view['job']} is {view['state']}: {view['reason'] or 'no reason given'}")
        done, total = (
            sum(view["done"] + view["dead_letters"] for view in views),
            sum(view["submitted"] for view in views),
        )
        self._note_failover(done, total)
        self._show(views, done, total)
        if self.kill and not self.killed and done * 3 >= total:
            self._kill_members()
            return False
        return done == total

    def _note_failover(self, done, total):
        if self._killed_at is None or self.failover_s is not None:
            return
        after_s = time.monotonic() - self._killed_at
        if self._done_at_answer is None:
            self._done_at_answer = done
            say(f"a new coordinator answers after {after_s:.2f} s")
        if done > self._done_at_answer or done == total:
            self.failover_s = after_s
            say(f"results arrive again after {after_s:.2f} s")

    def _show(self, views, done, total):
        if done * 10 // total != self._shown:
            self._shown = done * 10 // total
            rates = ", ".join(f"{view['model']} {view['done']} done, {view['rate_10s_qps']:.0f} q/s" for view in views)
            say(f"{done} of {total} queries: {rates}")

    def _kill_members(self):
        say(f"killing {self.kill} members with SIGKILL at the same moment, the coordinator among them")
        others = ["--random", self.kill - 1] if self.kill > 1 else []
        self.killed = self.cluster.run("local", "kill", "--coordinator", *others)["killed"]
        self._killed_at = time.monotonic()
        say(f"killed {', '.join(process['name'] for process in self.killed)}")

    def wrong(self):
        """What should have happened to the cluster, and did not."""
        wrong = []
        if len(self.killed) != self.kill:
            wrong.append(f"{len(self.killed)} members were killed, not {self.kill}")
        if self.kill and not any(process["coordinator"] for process in self.killed):
            wrong.append("the coordinator was not among those killed")
        if self.kill and self.failover_s is None:
            wrong.append("no results were seen after the kill")
        return wrong


def check_job(cluster, options, job, view, photos):
    """Fetches a job's results and compares them with what was submitted; returns the report's row, and what is wrong.

    Repeated rows are counted in the rows as they were committed (--raw), because `get-job-results` without it, which
    writes the file that is kept, refuses results with repeated rows.
    """
    results_file = options.dir / f"results-{view['model']}.jsonl"
    raw_file = results_file.with_suffix(".raw.jsonl")
    # What earlier runs left is not overwritten unasked.
    raw_file.unlink(missing_ok=True)
    results_file.unlink(missing_ok=True)
    cluster.run("get-job-results", job, raw_file, "--raw")
    labels, queries, errors = read_rows(raw_file)
    raw_file.unlink()
    wrong = wrong_rows(job, view, options.images, queries, errors)
    try:
        cluster.run("get-job-results", job, results_file)
        if read_rows(results_file) != (labels, queries, errors):
            wrong.append(f"{job}: the results differ from the committed rows")
    except CommandFailed as failure:
        wrong.append(str(failure))
    if options.verify:
        wrong += compare_with_reference(options, job, view["model"], labels, photos)
    row = {
        "job": job,
        "model": view["model"],
        "submitted": view["submitted"],
        "done": view["done"],
        "dead": view["dead_letters"],
        "duplicates": len(queries) - len(set(queries)),
        "accuracy_top1": accuracy(labels, photos),
        "rate_qps": round(view["rate_qps"], 2),
        "seconds": round(view["running_s"], 2),
        "results_file": str(results_file),
    }
    return row, wrong


def wrong_rows(job, view, images, queries, errors):
    """What is wrong with a job's figures and its rows."""
    wrong = []
    if view["submitted"] != images:
        wrong.append(f"{job}: {view['submitted']} queries were submitted for {images} photos")
    if view["done"] + view["dead_letters"] != view["submitted"]:
        wrong.append(f"{job}: {view['done']} done + {view['dead_letters']} dead are not {view['submitted']} submitted")
    repeated = len(queries) - len(set(queries))
    if repeated:
        wrong.append(f"{job}: {repeated} rows too many: queries were answered twice")
    if set(queries) != set(range(images)):
        wrong.append(f"{job}: the rows are not those of queries 0 to {images - 1}")
    if errors != view["dead_letters"]:
        wrong.append(f"{job}: {errors} rows with an error, {view['dead_letters']} dead letters")
    return wrong


def accuracy(labels, photos):
    """The share of labelled files whose first label is right, counted from the rows."""
    with (photos / "labels.csv").open(encoding="utf-8") as table:
        truth = {row["file"]: int(row["label"]) for row in csv.DictReader(table)}
    right = sum(labels.get(name) == label for name, label in truth.items())
    return round(right / len(truth), 4) if truth else None


def compare_with_reference(options, job, model, labels, photos):
    """Compares each row's label with the one of onnxruntime, called on the same files without the cluster."""
    out = options.dir / f"reference-{model}.jsonl"
    run_module(options, "idunno_model_server.reference_labels", model, photos, out)
    with out.open(encoding="utf-8") as rows:
        direct = {row["file"]: row["index"] for row in map(json.loads, rows)}
    differing = [name for name in direct.keys() | labels.keys() if direct.get(name) != labels.get(name)]
    say(f"{job}: {len(direct) - len(differing)} of {len(direct)} labels equal those of onnxruntime alone")
    return [f"{job}: {len(differing)} labels differ from onnxruntime's, {differing[:3]} first"] if differing else []


def print_table(rows):
    columns = ["job", "model", "submitted", "done", "dead", "duplicates", "accuracy_top1", "rate_qps", "seconds"]
    lines = [columns] + [[str(row[column]) for column in columns] for row in rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(columns))]
    print()
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    print()


def run_jobs(cluster, options, photos):
    """Starts the cluster and runs all jobs; returns the watch, and each job's row with what is wrong."""
    say(f"starting {options.members} members")
    say(f"the cluster was ready after {cluster.up(options.members):.1f} s")
    stored = cluster.run("populate-test-data", photos)
    say(f"stored {stored['files']} files, {stored['size_bytes'] / 1e6:.1f} MB")
    cluster.run("train-start", *options.models, "--wait")
    say(f"trained {', '.join(options.models)}")
    jobs = start_jobs(cluster, options.models, options.batch_size)
    say(f"started {', '.join(f'{job} ({model})' for job, model in jobs.items())}")
    watch = Watch(cluster, jobs, options.kill)
    views = watch.follow()
    return watch, [check_job(cluster, options, job, view, photos) for job, view in zip(jobs, views, strict=True)]


def main():
    options = parse_arguments()
    options.dir.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    cluster = LocalCluster(options.programs, options.python, options.dir / "cluster")
    cluster.clear()
    photos = make_dataset(options.python, "photos", options.images, options.dir)
    try:
        watch, checked = run_jobs(cluster, options, photos)
    finally:
        if options.keep:
            command = f"{cluster.idunno} --dir {cluster.folder}"
            say(f"the cluster still runs: '{command}' opens its console, '{command} local down --purge' deletes it")
        else:
            cluster.down()
    rows = [row for row, _ in checked]
    print_table(rows)
    report = {
        "members": options.members,
        "killed": len(watch.killed),
        "failover_s": watch.failover_s and round(watch.failover_s, 3),
        "jobs": rows,
    }
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    wrong = watch.wrong() + [reason for _, reasons in checked for reason in reasons]
    if wrong:
        raise Failed("; ".join(wrong))
    lost = f"{len(watch.killed)} members killed, results again after {watch.failover_s:.2f} s, " if watch.killed else ""
    print(f"every query answered exactly once: {lost}{time.monotonic() - started:.1f} s in all")


if __name__ == "__main__":
    run_program(main)
