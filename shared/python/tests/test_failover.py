"""The coordinator is killed while rows are read: every row comes once."""

from __future__ import annotations

import idunno
import models
from conftest import until

ROWS = 240


def test_every_row_comes_once_when_the_coordinator_is_killed(
    cluster: idunno.LocalCluster, client: idunno.Client
) -> None:
    client.add_model(models.slow)
    texts = [f"text {number}" for number in range(ROWS)]
    job = client.run("slow", texts, batch_size=4, name="failover")
    coordinator = next(member["name"] for member in client.members() if member["role"] == "coordinator")
    rows = job.results()
    found = [next(rows) for _ in range(8)]
    killed = cluster.kill(coordinator=True)
    try:
        assert killed == [coordinator]
        found.extend(rows)
        assert sorted(row["query"] for row in found) == list(range(ROWS))
        assert all(row["output"] == texts[row["query"]] for row in found)
        stats = job.wait(timeout=60)
        assert (stats["done"], stats["dead_letters"]) == (ROWS, 0)
        now = next(member["name"] for member in client.members() if member["role"] == "coordinator")
        assert now != coordinator
    finally:
        cluster.start()
        until("all members are up", lambda: all(member["state"] == "up" for member in client.members()))
