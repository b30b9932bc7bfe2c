"""The process of one runner: opens one model, and answers the frames of the server until that is gone.

Frames in: open (once), infer, cancel, end. Frames out: opened or refused (once); answered or failed for each infer. A
cancelled request is answered, too, once the batches that run have finished: so the server knows that nothing hangs.
"""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Any

from ..bytes_tensor import join_rows, split_rows
from ..devices import CPU, UNLESS_ON_GPU, resolve_device
from ..errors import ModelFileError, PackageError
from ..execution import Execution, Opening, open_model
from ..freed_memory import keep_freed_memory
from ..inference_pool import InferencePool, RowQueue
from ..models import Model
from ..models.description import ModelDescription
from ..os_process import EXIT_PARENT_DIED, one_thread_per_library, signal_at_parent_death
from ..packages import open_package
from ..user_code import model_failure
from ..user_models import open_user_model
from .carried_errors import CARRIED, error_as_json
from .frames import Frame, receive_frame, send_frame


def main(descriptor: int, parent: int, threads: int) -> None:
    faulthandler.enable(all_threads=False)  # the line that crashed is among the last lines of output
    if sys.platform == "linux":
        signal_at_parent_death(signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(EXIT_PARENT_DIED)
    one_thread_per_library()
    keep_freed_memory()
    sys.set_int_max_str_digits(0)  # integers of rows and answers have any size; what takes too long is ended
    os.set_inheritable(descriptor, False)  # what the model starts must not hold it
    asyncio.run(_serve(socket.socket(fileno=descriptor), threads))


async def _serve(connection: socket.socket, threads: int) -> None:
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    child = _Child(connection, threads)

    def receive() -> None:
        while (frame := receive_frame(connection)) is not None:
            if frame.head["do"] == "end":
                loop.call_soon_threadsafe(ended.set)
                return
            loop.call_soon_threadsafe(child.handle, frame)
        os._exit(EXIT_PARENT_DIED)  # whatever the model's threads do

    threading.Thread(target=receive, name="receive", daemon=True).start()
    await ended.wait()


class _Child:
    """What the event loop owns. It sends answers itself: the server reads them at once."""

    def __init__(self, connection: socket.socket, threads: int) -> None:
        self._connection = connection
        self._pool = InferencePool(threads, requests_max=0)
        self._execution: Execution | None = None
        self._queues: dict[int, RowQueue] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def handle(self, frame: Frame) -> None:
        do, head = frame.head["do"], frame.head
        if do == "open":
            self._start(self._open(head))
        elif do == "infer":
            self._start(self._infer(head["id"], head["parameters"], frame.body))
        elif do == "cancel" and head["id"] in self._queues:
            self._queues[head["id"]].cancel()

    def _start(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _open(self, source: dict[str, Any]) -> None:
        try:
            model, execution = await asyncio.to_thread(_open, source)
        except CARRIED as error:
            send_frame(self._connection, {"do": "refused", "error": error_as_json(error)})
        else:
            self._execution = execution
            opening = execution.opening if execution else Opening()
            seconds = {"load_s": opening.load_s, "canary_s": opening.canary_s}
            device = resolve_device(type(model).device) if execution else None
            head = {"do": "opened", "model": ModelDescription.of(model).as_json(), "device": device, **seconds}
            send_frame(self._connection, head, [opening.canary or b""])

    async def _infer(self, number: int, parameters: dict[str, Any] | None, body: bytes | bytearray) -> None:
        try:
            execution = self._execution
            if execution is None:
                raise RuntimeError("no model is loaded")
            if parameters:
                execution = execution.with_parameters(parameters)
            queue = self._queues[number] = RowQueue(execution, split_rows(memoryview(body)))
            result = await self._pool.answer(queue)
            outputs, errors = (join_rows(rows) for rows in result.tensors().tensors.values())
        except BaseException as error:
            failure = model_failure(error, None)
            send_frame(self._connection, {"do": "failed", "id": number, "error": error_as_json(failure)})
        else:
            times = {"queue_ns": result.times.queue_ns, "compute_ns": result.times.compute_ns}
            head = {"do": "answered", "id": number, "times": times, "output_bytes": len(outputs)}
            send_frame(self._connection, head, (outputs, errors))
        finally:
            self._queues.pop(number, None)


def _open(source: dict[str, Any]) -> tuple[Model, Execution | None]:
    """Opens a package, or a user's model file with its artefact. Raises what CARRIED lists."""
    if "package" in source:
        package = open_package(Path(source["package"]), source["name"])
        model, artefact = package.model, package.manifest
    else:
        artefact = Path(source["artefact"])
        try:
            model = open_user_model(Path(source["file"]), source["name"])
        except ModelFileError as error:
            raise PackageError(str(error)) from None
    must_load = source["load"] is True or (source["load"] == UNLESS_ON_GPU and type(model).device == CPU)
    execution = open_model(model, artefact) if must_load else None
    gc.collect()
    gc.freeze()  # a full collection visits every object of the model
    return model, execution
