"""What is done to the machines, and what must hold meanwhile."""

import json
import time

from machines import Failed, say, wait_for

MEMBER = "idunno-member"
INTRODUCER = "idunno-introducer"


class Scenario:
    def __init__(self, lab, introducer, members, cluster, photos, model, packages):
        self.lab, self.introducer, self.members, self.cluster = lab, introducer, members, cluster
        self.photos, self.model, self.packages = photos, model, packages
        self.figures = {}

    def run(self, only):
        start = time.monotonic()
        for m in [self.introducer, *self.members]:
            m.power_on()
        for m in [self.introducer, *self.members]:
            m.wait_up()
        say(f"up {time.monotonic()-start:.1f}")

    def report(self, place):
        print(json.dumps(self.figures))
