"""One cluster of real processes for all tests, with model servers and two trained models."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import idunno
import pytest

T = TypeVar("T")


def until(what: str, condition: Callable[[], T | None], timeout_s: float = 60) -> T:
    """Waits until a condition holds; returns what it returned."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout_s} s: {what}")
        time.sleep(0.02)


def waits_in_the_main_thread() -> bool:
    """Whether the main thread is within a step of an iteration over rows or events."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    return frame is not None and frame.f_code is idunno.Results.__next__.__code__


def interrupt_the_main_thread() -> None:
    """Sends it what Ctrl-C sends, once it is within such a step."""
    until("the main thread waits", waits_in_the_main_thread)
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> None:
    """A shell that starts this in the background has SIGINT ignored, here and in the programs that tests start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def cluster() -> Iterator[idunno.LocalCluster]:
    """Three members; one of them may be killed."""
    with idunno.LocalCluster(members=3, threads=1) as running:
        running.connect().train("mnist-mlp", "newsgroups-linear")
        yield running


@pytest.fixture
def client(cluster: idunno.LocalCluster) -> idunno.Client:
    """A client of the cluster."""
    return cluster.connect()


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of labelled images of digits."""
    folder = tmp_path_factory.mktemp("digits") / "digits"
    python = os.environ["IDUNNO_MODEL_SERVER_PYTHON"]
    words = [python, "-m", "idunno_model_server.make_dataset", "digits", str(folder), "--images", "60"]
    subprocess.run(words, check=True, capture_output=True)
    return folder
