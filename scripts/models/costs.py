"""Models whose queries take a known time and no CPU, so that ten workers fit on two cores."""

import json
import time

from idunno_model_server.api import Model, Runner


class Cost(Model):
    description = "sleeps for as many milliseconds as its name says"
    suffix = ".json"
    dataset = "none"

    def train(self, dataset, run):
        run.artefact.write_text(json.dumps(int(self.name.rpartition("-")[2])))
        return {}

    def load(self, artefact):
        return Sleeper(json.loads(artefact.read_text()))

    def canary(self):
        return b"x"


class Cost10(Cost):
    name = "cost-10"


class Cost30(Cost):
    name = "cost-30"


class Cost100(Cost):
    name = "cost-100"


class Sleeper(Runner):
    def __init__(self, pause_ms):
        self.pause_ms = pause_ms

    def decode(self, content):
        return None

    def predict(self, decoded):
        time.sleep(self.pause_ms / 1000)
        return self.pause_ms

    def encode(self, predicted):
        return json.dumps({"slept_ms": predicted}).encode()
