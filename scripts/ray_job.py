"""The job of scripts/bench_ray.py in Ray Data: `ray_job.py MODEL PHOTOS RESULTS`, in Ray's own environment.

Two actors answer the photos in batches of 32 with the model server's own code, row by row as it does. The rows are
written as JSON lines. Prints the seconds from the start of the first batch to the end of the last one.
"""

import json
import os
import sys
import time
from pathlib import Path

import ray
from idunno_model_server.models import registry
from idunno_model_server.os_process import one_thread_per_library
from idunno_model_server.repository import load_and_check
from idunno_model_server.training_result import train_model


class Answer:
    """A model in an actor."""

    def __init__(self, model, artefact, results):
        one_thread_per_library()
        self.runner = load_and_check(registry()[model], Path(artefact))
        self.count, self.counter = 0, Path(results, f"answered-{os.getpid()}")

    def __call__(self, batch):
        started = time.time()
        outputs = [str(self.runner.answer(bytes(content))) for content in batch["bytes"]]
        self.count += len(outputs)
        self.counter.write_text(str(self.count), encoding="utf-8")
        times = [[moment] * len(outputs) for moment in (started, time.time())]
        return {"path": batch["path"], "output": outputs, "started": times[0], "ended": times[1]}


def main():
    model, photos, results = sys.argv[1:]
    artefact = train_model(registry()[model], Path(results)).artefact
    ray.init()
    files = ray.data.read_binary_files(photos, include_paths=True, file_extensions=["jpg"])
    rows = files.map_batches(
        Answer,
        batch_size=32,
        compute=ray.data.ActorPoolStrategy(size=2),
        num_cpus=1,
        fn_constructor_args=(model, str(artefact), results),
    )
    rows.write_json(str(Path(results, "rows")))
    times = [json.loads(line) for path in Path(results, "rows").glob("*.json") for line in path.open(encoding="utf-8")]
    seconds = max(row["ended"] for row in times) - min(row["started"] for row in times)
    print(json.dumps({"seconds": seconds}))


if __name__ == "__main__":
    main()
