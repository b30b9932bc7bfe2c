"""The jobs of scripts/bench_ray.py in Ray Data: `ray_job.py MODEL DATA BATCH_SIZE RESULTS`, in Ray's own environment.

DATA is a folder of photos, or a file of JSON lines. Two actors answer batches with the model server's own code, as it
does, and the rows are written as JSON lines. Prints the seconds from the start of the first batch to the end of the
last one.
"""

import json
import os
import sys
import time
from pathlib import Path

import ray
from idunno_model_server.execution import open_model
from idunno_model_server.models import registry
from idunno_model_server.os_process import one_thread_per_library
from idunno_model_server.statistics import InferTimes
from idunno_model_server.training_result import train_model


class Answer:
    """A model in an actor. It writes the time of its first batch, and of its newest."""

    def __init__(self, model, artefact, results):
        one_thread_per_library()
        self.execution = open_model(registry()[model], Path(artefact))
        self.started, self.count = None, 0
        self.report = Path(results, f"answered-{os.getpid()}")

    def __call__(self, batch):
        self.started = self.started or time.time()
        contents = [bytes(row) for row in batch["bytes"]] if "bytes" in batch else [t.encode() for t in batch["input"]]
        size, times = self.execution.batch.rows, InferTimes()
        answers = []
        for start in range(0, len(contents), size):
            answers += self.execution.answer(contents[start : start + size], times)
        self.count += len(answers)
        self.report.write_text(f"{self.count} {self.started} {time.time()}", encoding="utf-8")
        return {"row": batch["path" if "bytes" in batch else "id"], "output": [answer.decode() for answer in answers]}


def read(data):
    if data.is_dir():
        return ray.data.read_binary_files(str(data), include_paths=True, file_extensions=["jpg"])
    return ray.data.read_json(str(data), lines=True).drop_columns(["label"])


def main():
    model, data, batch_size, results = sys.argv[1:]
    artefact = train_model(registry()[model], Path(results)).artefact
    ray.init()
    rows = read(Path(data)).map_batches(
        Answer,
        batch_size=int(batch_size),
        compute=ray.data.ActorPoolStrategy(size=2),
        num_cpus=1,
        fn_constructor_args=(model, str(artefact), results),
    )
    rows.write_json(str(Path(results, "rows")))
    times = [path.read_text(encoding="utf-8").split() for path in Path(results).glob("answered-*")]
    seconds = max(float(ended) for _, _, ended in times) - min(float(started) for _, started, _ in times)
    print(json.dumps({"seconds": seconds}))


if __name__ == "__main__":
    main()
