"""Compares Ray Data with IDunno: the same data, model code and two cores. Then the head of each is killed.

Rates: two actors against two workers, with batches of the same size, on photos and on the lines of bench.py's text job.
Ray's time runs from the start of its first batch to the end of its last one, so it includes neither its start nor the
writing of its last results; IDunno's runs from start-job to the last durable commit. Both, and the bare processes that
they are compared with, run their models at the same niceness.

After a kill: once a third of the photos is answered, Ray's head process (its GCS) and IDunno's coordinator are killed
with SIGKILL, and nothing is restarted by hand. A job has ended when its program says so; after --patience seconds it
counts as never ended. Rows are counted by reading the results afterwards, each photo once.

Ray is installed into an environment of its own, .demo/ray-venv.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import arguments
import bench
from local_cluster import ROOT, Failed, LocalCluster, make_dataset, run_program, say

VENV = ROOT / ".demo/ray-venv"
# Two for the actors and one for the tasks that read. There are still only two cores.
RAY_CPUS = 3
KILL_AT = 1 / 3
PERIOD_S = 0.1

PARTS = ("photos", "text", "kill")


def parse_arguments():
    parser = argparse.ArgumentParser(prog="scripts/bench.sh ray", description=__doc__.splitlines()[0])
    arguments.add_benchmark(parser)
    parser.add_argument(
        "--patience",
        type=arguments.at_least(1),
        default=120,
        metavar="S",
        help="seconds to wait after the kill (120)",
    )
    parser.add_argument("--only", choices=PARTS, help="compare in this alone")
    return parser.parse_args()


def install_ray():
    """Makes an environment with Ray and the model server's package, which has the model code; returns its Python."""
    subprocess.run([ROOT / "scripts/setup_python.sh", VENV], check=True)
    python = VENV / "bin/python"
    has_ray = subprocess.run([python, "-c", "import ray.data"], check=False, capture_output=True).returncode == 0
    if not has_ray:
        say("installing Ray")
        install = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes", "--only-binary", ":all:"]
        subprocess.run([*install, "-r", ROOT / "scripts/requirements-ray.lock"], check=True)
    return python


class Ray:
    """Ray on this machine, with a driver that runs the job."""

    def __init__(self, python, workload, folder):
        self.python, self.workload = python, workload
        self.results = folder / "results"
        # It contains Ray's sockets, whose paths must be short.
        self.temp = Path(tempfile.mkdtemp(prefix="ray-"))

    def __enter__(self):
        self.results.mkdir(parents=True)
        command = [VENV / "bin/ray", "start", "--head", "--node-ip-address=127.0.0.1", "--port=0"]
        command += [f"--num-cpus={RAY_CPUS}", f"--temp-dir={self.temp}"]
        command += ["--include-dashboard=false", "--disable-usage-stats"]
        subprocess.run(command, check=True, capture_output=True, text=True, preexec_fn=lower)
        return self

    def __exit__(self, *_):
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.temp, ignore_errors=True)

    def pids(self, program=""):
        """The processes that were started with this Ray's directory."""
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().decode(errors="replace") if entry.name.isdigit() else ""
                if str(self.temp) in words and program in words.split("\0")[0]:
                    found.append(int(entry.name))
        return found

    def driver(self):
        """Starts the job."""
        address = (self.temp / "ray_current_cluster").read_text(encoding="utf-8").strip()
        model, data, size = self.workload.model, self.workload.data, self.workload.batch_size
        command = [self.python, ROOT / "scripts/ray_job.py", model, data, size, self.results]
        environment = {**os.environ, "RAY_ADDRESS": address}
        return subprocess.Popen(
            list(map(str, command)),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
            preexec_fn=lower,
        )

    def answered(self):
        """How many rows its actors have answered, by their own count."""
        reports = [path.read_text(encoding="utf-8") for path in self.results.glob("answered-*")]
        return sum(int(report.split()[0]) for report in reports if report)

    def rows(self):
        """How many rows the written results have, each counted once."""
        lines = (line for path in self.results.glob("rows/*.json") for line in path.open(encoding="utf-8"))
        return len({json.loads(line)["row"] for line in lines})


def lower():
    """Lowers the priority as far as the model servers do."""
    os.nice(bench.MODEL_SERVER_NICE)


def ray_round(python, workload, rows, folder):
    """Rows per second of Ray Data."""
    with Ray(python, workload, folder) as ray:
        driver = ray.driver()
        told, _ = driver.communicate(timeout=3600)
        if driver.returncode != 0:
            raise Failed(f"Ray's job ended with {driver.returncode}")
        seconds = json.loads(told.splitlines()[-1])["seconds"]
        found = ray.rows()
        if found != rows:
            raise Failed(f"Ray answered {found} rows of {rows}")
        return rows / seconds


def compare(python, options, workload, rows, unit, folder):
    """The best rate of each in all rounds, and of Ray and IDunno as ratios."""
    best = {"bare": 0.0, "ray": 0.0, "idunno": 0.0}
    for number in range(options.rounds):
        rates = {
            "bare": bench.bare_round(options, workload),
            "ray": ray_round(python, workload, rows, folder / f"ray-{number}"),
            "idunno": bench.idunno_round(options, workload, folder / f"cluster-{number}"),
        }
        told = ", ".join(f"{name} {rate:.1f} rows/s" for name, rate in rates.items())
        say(f"{workload.title}, round {number + 1}: {told}")
        best = {name: max(rate, rates[name]) for name, rate in best.items()}
    return {
        **{f"{name}_{unit}": round(rate, 2) for name, rate in best.items()},
        "ray_ratio": round(best["ray"] / best["bare"], 4),
        "idunno_ratio": round(best["idunno"] / best["bare"], 4),
        "idunno_by_ray": round(best["idunno"] / best["ray"], 4),
    }


def await_third(answered, options):
    deadline = time.monotonic() + 600
    while answered() < options.images * KILL_AT:
        if time.monotonic() > deadline:
            raise Failed("a third of the photos was not answered within 10 minutes")
        time.sleep(PERIOD_S)


def ray_killed(python, options, workload, folder):
    """What remains of Ray's job after its head process is killed."""
    with Ray(python, workload, folder) as ray:
        driver = ray.driver()
        await_third(ray.answered, options)
        heads = ray.pids("gcs_server")
        for pid in heads:
            os.kill(pid, signal.SIGKILL)
        if not heads:
            raise Failed("Ray has no head process")
        killed = time.monotonic()
        try:
            driver.communicate(timeout=options.patience)
            ended = "successfully" if driver.returncode == 0 else f"with status {driver.returncode}"
        except subprocess.TimeoutExpired:
            ended = "never"
            driver.kill()
            driver.communicate()
        after_s = round(time.monotonic() - killed, 1)
        return {"job_ended": ended, "after_s": after_s, "answered": ray.answered(), "rows": ray.rows()}


def idunno_killed(options, photos, folder):
    """What remains of IDunno's job after its coordinator is killed."""
    cluster = LocalCluster(options.programs, options.python, folder)
    try:
        cluster.up(3, threads=1)
        cluster.run("populate-test-data", photos)
        cluster.run("train-start", options.model, "--wait")
        bench.await_loaded(cluster, options.model, workers=3)
        job = cluster.run("add-job", options.model, "--batch-size", 32)["job"]
        cluster.run("start-job", job)
        await_third(lambda: cluster.jobs()[job]["done"], options)
        cluster.run("local", "kill", "--coordinator")
        killed = time.monotonic()
        view = None
        while view is None or (view["state"] != "done" and time.monotonic() < killed + options.patience):
            time.sleep(PERIOD_S)
            view = cluster.jobs()[job]
        after_s = round(time.monotonic() - killed, 1)
        results = folder / "results.jsonl"
        cluster.run("get-job-results", job, results)
        with results.open(encoding="utf-8") as lines:
            rows = len({json.loads(line)["query"] for line in lines})
        ended = "successfully" if view["state"] == "done" else "never"
        return {"job_ended": ended, "after_s": after_s, "answered": view["done"], "rows": rows}
    finally:
        cluster.down()


def main():
    options = parse_arguments()
    python = install_ray()
    options.dir.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=options.dir))
    parts = (options.only,) if options.only else PARTS
    report = {}
    try:
        if "photos" in parts or "kill" in parts:
            photos = make_dataset(options.python, "photos", options.images, options.dir)
            workload = bench.Workload("photos", options.model, photos, 32)
        if "photos" in parts:
            report["ray"] = compare(python, options, workload, options.images, "qps", folder / "photos")
        if "text" in parts:
            lines = bench.text_workload(options)
            report["ray_text"] = compare(python, options, lines, options.lines, "rows_s", folder / "text")
        if "kill" in parts:
            left = {"ray_head_killed": ray_killed(python, options, workload, folder / "ray-killed")}
            say(f"Ray's head killed: {json.dumps(left)}")
            left["idunno_coordinator_killed"] = idunno_killed(options, photos, folder / "cluster-killed")
            say(f"both killed: {json.dumps(left)}")
            report.setdefault("ray", {}).update(left)
    finally:
        if bench.clusters_end(folder):
            shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(report, indent=2))
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_program(main)
