"""Measures how equal the rates of jobs of different cost are: with real models, and while jobs and workers come and go.

The answers in the log are counted every half second. The gap of a window is (max - min) / max of what the jobs answered
in it. Answers reach the log in segments a second apart, which alone makes one window of ten seconds differ by up to a
tenth; therefore the mean of several windows counts.
"""

import json
import time

from local_cluster import ROOT, Failed, LocalCluster, make_dataset, say

# A query of the second model costs about three times as much as one of the first.
REAL_MODELS = ("squeezenet1.1", "efficientnet-lite2")
REAL_BATCH = 8
# Enough for the cheaper model during the whole measurement, on a machine ten times as fast as a slow one.
REAL_QUERIES = 50_000
SETTLING_S = 12
MEASURED_S = 75
PERIOD_S = 0.5

# Members, and the cost of each job's queries in milliseconds.
ROWS = ((4, (10, 30)), (4, (10, 30, 100)), (10, (10, 30)), (10, (10, 30, 100)))
ROW_BATCH = 4
# Enough for the cheapest job on the most members for as long as a row takes.
ROW_QUERIES = 100_000
# The gap must be small this long after an event.
EVENT_SETTLING_S = 10
WINDOW_S = 10
# The windows after an event begin within this time.
WINDOWS_BEGIN_S = 5


def bench_fairness(options, folder):
    """The rate gaps of two jobs that cost 1:3, on three workers."""
    photos = make_dataset(options.python, "photos", options.images, options.dir)
    cluster = LocalCluster(options.programs, options.python, folder / "fairness")
    try:
        cluster.up(3, threads=1, insecure=options.insecure)
        cluster.run("populate-test-data", photos)
        queries = folder / "photos.list"
        names = [f"test-data/{photo.name}\n" for photo in sorted(photos.glob("*.jpg"))]
        queries.write_text("".join(names * (REAL_QUERIES // len(names) + 1)), encoding="utf-8")
        cluster.run("put", queries, "photos.list")
        jobs = add_jobs(cluster, REAL_MODELS, "photos.list", REAL_BATCH, workers=3)
        cluster.run("start-job", *jobs)
        samples = answers(cluster, jobs, SETTLING_S + MEASURED_S)
        cluster.run("stop-job", *jobs)
    finally:
        cluster.down()
    settled = [sample for sample in samples if sample[0] >= samples[0][0] + SETTLING_S]
    gaps = {f"gap_{window_s}s": round(mean_gap(settled, window_s), 4) for window_s in (10, 60)}
    say(f"fairness: {json.dumps(gaps)}")
    return gaps


def bench_fairness_table(options, folder):
    """For each row, the mean 10 s gap, starting 10 s after each event, and the gap over a minute without events."""
    return [fairness_row(options, folder, members, costs_ms) for members, costs_ms in ROWS]


def fairness_row(options, folder, members, costs_ms):
    cluster = LocalCluster(options.programs, options.python, folder / f"fairness-{members}-{len(costs_ms)}")
    cluster.models = ROOT / "scripts/models"
    queries = folder / "queries.jsonl"
    queries.write_text('{"input":"x"}\n' * ROW_QUERIES, encoding="utf-8")
    row = {"members": members, "costs_ms": list(costs_ms)}
    try:
        cluster.up(members, threads=1, insecure=options.insecure)
        cluster.run("put", queries, "queries.jsonl")
        models = [f"cost-{cost_ms}" for cost_ms in costs_ms]
        jobs = add_jobs(cluster, models, "queries.jsonl", ROW_BATCH, workers=members)
        victim = f"m{members}"
        events = (
            ("start", lambda: cluster.run("start-job", *jobs)),
            ("stop", lambda: cluster.run("stop-job", jobs[0])),
            ("start_again", lambda: cluster.run("start-job", jobs[0])),
            ("death", lambda: cluster.run("local", "kill", victim)),
            ("join", lambda: cluster.run("local", "start", victim)),
        )
        for name, happens in events:
            happens()
            running = jobs[1:] if name == "stop" else jobs
            samples = answers(cluster, running, EVENT_SETTLING_S + WINDOW_S + WINDOWS_BEGIN_S + 1)
            settled = [sample for sample in samples if sample[0] >= samples[0][0] + EVENT_SETTLING_S]
            # One job alone has no other to be unequal to.
            row[f"after_{name}"] = round(mean_gap(settled, WINDOW_S), 4) if len(running) > 1 else None
        row["gap_60s"] = round(mean_gap(answers(cluster, jobs, 65), 60), 4)
        cluster.run("stop-job", *jobs)
    finally:
        cluster.down()
    say(f"fairness: {json.dumps(row)}")
    return row


def add_jobs(cluster, models, dataset, batch_size, workers):
    """Adds jobs of models, once every worker has loaded them."""
    cluster.run("train-start", *models, "--wait")
    for model in models:
        await_loaded(cluster, model, workers)
    add = ("--dataset", dataset, "--batch-size", batch_size)
    return [cluster.run("add-job", model, *add)["job"] for model in models]


def await_loaded(cluster, model, workers=2):
    """Waits until a model is loaded everywhere: times exclude loading, as those of the bare processes do."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        view = next(view for view in cluster.run("get-models")["items"] if view["model"] == model)
        if sum(member["state"] == "ready" for member in view["members"]) == workers:
            return
        time.sleep(0.1)
    raise Failed(f"{model} was not loaded on all members within 60 s")


def answers(cluster, jobs, duration_s):
    """What the jobs have answered, sampled every half second: (time, answers of each job)."""
    started, samples = time.monotonic(), []
    while (now := time.monotonic()) < started + duration_s:
        views = cluster.jobs()
        over = [job for job in jobs if views[job]["state"] != "running"]
        if over:
            raise Failed(f"{over[0]} ended after {now - started:.0f} s: it had too few queries")
        samples.append((now, [views[job]["done"] for job in jobs]))
        time.sleep(PERIOD_S)
    return samples


def gap(before, after):
    """How far the slowest job's rate is below the fastest job's, as a share of the latter, between two samples."""
    rates = [later - earlier for later, earlier in zip(after[1], before[1], strict=True)]
    return (max(rates) - min(rates)) / max(rates)


def mean_gap(samples, window_s):
    """The mean gap of all windows of this length."""
    gaps = []
    for before in samples:
        after = next((sample for sample in samples if sample[0] >= before[0] + window_s), None)
        if after is None:
            break
        gaps.append(gap(before, after))
    return sum(gaps) / len(gaps)
