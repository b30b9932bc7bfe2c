"""The twins for coroutines."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Coroutine
from typing import Any

import idunno
import models
import pytest


@pytest.fixture(scope="module", autouse=True)
def _shipped(cluster: idunno.LocalCluster) -> None:
    cluster.connect().add_model(models.slow)


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 120))


def test_the_twins_do_the_same(cluster: idunno.LocalCluster) -> None:
    async def work() -> None:
        client = idunno.AsyncClient(dir=cluster.dir)
        stored = await asyncio.gather(*(client.put(str(n).encode(), f"async/{n}") for n in range(20)))
        assert [file["version"] for file in stored] == [1] * 20
        assert len(await client.ls("async/")) == 20
        opened = io.BytesIO()
        await client.get("async/7", opened)
        assert opened.getvalue() == await client.get("async/7") == b"7"
        assert await client.delete("async/7") == 1
        with pytest.raises(idunno.NotFoundError):
            await client.get("async/7")
        job = await client.run("slow", [str(n) for n in range(40)], batch_size=4, name="twin")
        found = [row["query"] async for row in job.results()]
        assert sorted(found) == list(range(40))
        assert (await job.wait())["state"] == (await job.stats())["state"] == "done"
        assert (await job.to_pandas())["output"].tolist() == [str(n) for n in range(40)]
        assert (await client.job("twin")).id == job.id
        assert len(await client.members()) == 3

    run(work())


def test_the_loop_goes_on_and_a_cancelled_wait_leaves_the_job(cluster: idunno.LocalCluster) -> None:
    async def work() -> None:
        client = idunno.AsyncClient(dir=cluster.dir)
        job = await client.run("slow", [str(n) for n in range(100)], batch_size=4)
        ticks = 0
        waiting = asyncio.create_task(job.wait())
        rows = job.results()
        for _ in range(20):
            await asyncio.sleep(0.01)
            ticks += 1
        assert ticks == 20
        assert not waiting.done()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        found = []
        while True:
            try:
                found.append((await asyncio.wait_for(anext(rows), 0.02))["query"])
            except TimeoutError:
                continue
            except StopAsyncIteration:
                break
        assert sorted(found) == list(range(100))

    run(work())
