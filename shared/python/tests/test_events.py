"""Events: those of a member's death, of its return and of a job come as they happen."""

from __future__ import annotations

import asyncio
import collections
import json
import select
import socket
import subprocess
import sys
import threading

import idunno
import models
import pytest
from conftest import interrupt_the_main_thread, until

WITHIN_S = 60


def first(events: idunno.Events, *texts: str) -> idunno.Event:
    """The next event with one of these texts; others before it are passed over."""
    while True:
        event = events.get(timeout=WITHIN_S)
        if event["text"] in texts:
            return event


def all_up(client: idunno.Client) -> bool:
    return all(member["state"] == "up" for member in client.members())


def test_a_death_a_failover_and_a_return_are_seen(cluster: idunno.LocalCluster, client: idunno.Client) -> None:
    until("all members are up", lambda: all_up(client))
    coordinator = next(member["name"] for member in client.members() if member["role"] == "coordinator")
    events = client.events()
    assert cluster.kill(coordinator=True) == [coordinator]
    try:
        seen = {"election", "dead"}
        while seen:
            event = events.get(timeout=WITHIN_S)
            if event["subject"] == "election":
                assert " became coordinator in term " in event["text"]
                assert not event["text"].startswith(f"{coordinator} ")
                seen.discard("election")
            elif event["text"] == f"{coordinator} is dead":
                assert event["subject"] == "member"
                seen.discard("dead")
        assert set(event) == {"at_ms", "subject", "text"}
    finally:
        cluster.start()
    returned = first(events, f"{coordinator} restarted", f"{coordinator} is up")
    assert returned["subject"] == "member"
    until("all members are up", lambda: all_up(client))


def test_starts_and_ends_of_jobs_are_seen_in_their_order(client: idunno.Client) -> None:
    client.add_model(models.slow)
    events = client.events()
    # It runs for as long as it is let.
    job = client.run("slow", ["text"] * 2000, batch_size=4)
    started = first(events, f"{job.id} is running")
    job.cancel()
    ended = first(events, f"{job.id} is cancelled")
    assert started["subject"] == ended["subject"] == "job"
    assert started["at_ms"] <= ended["at_ms"]
    job = client.run("slow", ["a", "b", "c"])
    assert first(events, f"{job.id} is done: 3 answered, 0 dead")["subject"] == "job"


def test_no_event_within_the_time_is_a_timeout_and_a_later_one_is_not_lost(client: idunno.Client) -> None:
    client.add_model(models.slow)
    events = client.events()

    def drain() -> None:
        # Events of earlier tests may still arrive.
        while True:
            events.get(timeout=0.0)

    with pytest.raises(idunno.TimeoutError, match=r"no event within 0\.0 s"):
        drain()
    job = client.run("slow", ["a"])
    first(events, f"{job.id} is done: 1 answered, 0 dead")


def test_ctrl_c_ends_the_wait_and_the_iteration_goes_on(client: idunno.Client) -> None:
    client.add_model(models.slow)
    events = client.events()
    thread = threading.Thread(target=interrupt_the_main_thread)
    thread.start()
    with pytest.raises(KeyboardInterrupt) as raised:
        # Events of earlier tests may still arrive.
        collections.deque(events, maxlen=0)
    thread.join()
    # It is no wait for a job.
    assert raised.type is KeyboardInterrupt
    job = client.run("slow", ["a"])
    first(events, f"{job.id} is done: 1 answered, 0 dead")


def test_coroutines_see_them_and_a_cancelled_step_loses_none(cluster: idunno.LocalCluster) -> None:
    async def work() -> None:
        client = idunno.AsyncClient(dir=cluster.dir)
        await client.add_model(models.slow)
        events = await client.events()

        async def drain() -> None:
            # Events of earlier tests may still arrive.
            while True:
                await asyncio.wait_for(anext(events), 0.01)

        with pytest.raises(TimeoutError):
            await drain()
        job = await client.run("slow", ["a", "b"])
        async for event in events:
            if event["text"] == f"{job.id} is done: 2 answered, 0 dead":
                return

    asyncio.run(asyncio.wait_for(work(), WITHIN_S))


def test_a_cluster_that_never_answers_is_an_error() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        client = idunno.connect(f"127.0.0.1:{nobody.getsockname()[1]}", timeout=1)
        with pytest.raises(idunno.UnreachableError):
            client.events()


def test_they_are_those_of_the_command_line(cluster: idunno.LocalCluster, client: idunno.Client) -> None:
    client.add_model(models.slow)
    events = client.events()
    words = [sys.executable, "-m", "idunno", "--dir", str(cluster.dir), "--output", "jsonl", "events"]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as printing:
        assert printing.stdout is not None
        # It sees what happens after it has reached the cluster.
        while not select.select([printing.stdout], [], [], 0)[0]:
            client.run("slow", ["a"]).wait(timeout=WITHIN_S)
        job = client.run("slow", ["a", "b"])
        end = first(events, f"{job.id} is done: 2 answered, 0 dead")
        printed = next(line for line in map(json.loads, printing.stdout) if line["text"] == end["text"])
        printing.terminate()
    assert printed == {"apiVersion": "idunno/v1", "kind": "Event", **end}
