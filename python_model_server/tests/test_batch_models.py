"""Models that answer whole batches: what they are given, what they may return, and what becomes of their mistakes."""

from __future__ import annotations

import asyncio
import errno
import gc
import json
import shutil
import threading
import weakref
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from conftest import wait_until

from idunno_model_server import execution as execution_module
from idunno_model_server.api import BatchModel, Model, Parameter, RowError, Runner, SetupContext
from idunno_model_server.artefact_store import ArtefactStore
from idunno_model_server.devices import resolve_device
from idunno_model_server.environments import Environments
from idunno_model_server.errors import MemoryShortageError, ModelFailure, ModelLoadError
from idunno_model_server.execution import RECOVERY_BATCHES, BatchSize, Execution, open_model
from idunno_model_server.gpus import Gpus
from idunno_model_server.inference_pool import InferencePool
from idunno_model_server.outputs import encode_json
from idunno_model_server.packages import Packages
from idunno_model_server.process_memory import available_bytes
from idunno_model_server.repository import Repository
from idunno_model_server.runners.host import RunnerHost
from idunno_model_server.runners.process_family import Families
from idunno_model_server.runners.runner_process import RunnerLimits
from idunno_model_server.serving import InServer
from idunno_model_server.statistics import InferTimes
from idunno_model_server.training_result import train_model
from idunno_model_server.user_code import is_out_of_memory
from idunno_model_server.user_models import discover

DEADLINE_S = 30.0


class Batches(BatchModel):
    """Answers the length of each input, and remembers how it was called."""

    name, description = "batches", "a model of the tests"
    batch_max = 8

    def setup(self, context: SetupContext) -> None:
        self.context = context
        self.setup_thread = threading.get_ident()
        self.sizes: list[int] = []
        self.threads: set[int] = set()

    def canary(self) -> bytes:
        return b"hello"

    def predict(self, inputs: list[Any]) -> Any:
        self.sizes.append(len(inputs))
        self.threads.add(threading.get_ident())
        return [len(row) for row in inputs]


def opened(kind: type[Model], folder: Path) -> Execution:
    return open_model(kind(), train_model(kind(), folder).artefact)


def answers(execution: Execution, *rows: bytes) -> list[bytes | str]:
    """Outputs as bytes, errors as text."""
    found = execution.answer(list(rows), InferTimes())
    return [answer if isinstance(answer, bytes) else f"error: {answer}" for answer in found]


def model_of(execution: Execution) -> Any:
    return vars(execution.runner)["_model"]


def pooled(execution: Execution, rows: list[bytes]) -> list[bytes | RowError]:
    """As the server answers a request."""
    pool = InferencePool(threads=2, requests_max=8)
    try:
        return asyncio.run(pool.infer(execution, rows)).answers
    finally:
        pool.close()


def test_setup_runs_once_and_predict_gets_whole_batches_on_its_thread(tmp_path: Path) -> None:
    execution = opened(Batches, tmp_path)
    rows = [b"x" * number for number in range(1, 30)]
    assert pooled(execution, rows) == [str(len(row)).encode() for row in rows]
    model = model_of(execution)
    assert model.sizes[:2] == [1, 2]  # the canary alone, and twice
    assert sorted(model.sizes[2:]) == [5, 8, 8, 8]
    assert model.threads == {model.setup_thread}
    assert model.setup_thread != threading.get_ident()
    assert (model.context.folder, model.context.device) == (Path(__file__).parent, "cpu")


class Generated(Batches):
    def predict(self, inputs: list[Any]) -> Iterator[int]:
        for row in inputs:
            yield len(row)


class Asynchronous(Batches):
    concurrency = 4

    async def predict(self, inputs: list[Any]) -> list[int]:
        await asyncio.sleep(0)
        return [len(row) for row in inputs]


class AsynchronouslyGenerated(Batches):
    async def predict(self, inputs: list[Any]) -> AsyncIterator[int]:
        for row in inputs:
            await asyncio.sleep(0)
            yield len(row)


class Arrays(Batches):
    def predict(self, inputs: list[Any]) -> np.ndarray:
        return np.array([[len(row)] for row in inputs])


@pytest.mark.parametrize("kind", [Generated, Asynchronous, AsynchronouslyGenerated, Arrays])
def test_outputs_may_be_yielded_awaited_and_arrays(tmp_path: Path, kind: type[Batches]) -> None:
    found = [json.loads(answer) for answer in answers(opened(kind, tmp_path), b"a", b"bb", b"ccc")]
    assert found == ([[1], [2], [3]] if kind is Arrays else [1, 2, 3])


def broken(result: Any) -> type[Batches]:
    """A model that answers its canary, and returns `result` for other batches."""

    class Broken(Batches):
        def predict(self, inputs: list[Any]) -> Any:
            return [1] * len(inputs) if inputs[0] == b"hello" else result

    return Broken


async def _coroutine() -> list[int]:
    return [1, 2, 3]


def _forever() -> Iterator[int]:
    while True:
        yield 1


@pytest.mark.parametrize(
    ("result", "says"),
    [
        ([1, 2], "predict returned 2 outputs for 3 inputs"),
        ([1, 2, 3, 4], "predict returned 4 outputs for 3 inputs"),
        ([], "predict returned 0 outputs for 3 inputs"),
        (np.zeros((2, 3)), "predict returned 2 outputs for 3 inputs"),
        (_forever(), "predict returned more than 3 outputs for 3 inputs"),
        (None, "predict returned None, not a list"),
        ("abc", "predict returned str, not a list"),
        ({1: 2, 3: 4, 5: 6}, "predict returned dict, not a list"),
        ([object(), 1, 2], "object cannot be written as JSON"),
    ],
)
def test_a_wrong_result_fails_the_whole_batch(tmp_path: Path, result: Any, says: str) -> None:
    execution = opened(broken(result), tmp_path)
    with pytest.raises(ModelFailure) as failure:
        answers(execution, b"a", b"b", b"c")
    assert says in failure.value.message + failure.value.traceback
    assert not failure.value.out_of_memory


def test_a_coroutine_of_an_ordinary_predict_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelFailure, match="declare predict itself as async def"):
        answers(opened(broken(_coroutine()), tmp_path), b"a", b"b", b"c")


class Refusing(Batches):
    """Refuses rows as they say: at a stage, with or without words."""

    def decode(self, content: bytes | memoryview) -> Any:
        text = str(content, "utf-8")
        if text.startswith("decode"):
            raise RowError(*text.split()[1:])
        return text

    def predict(self, inputs: list[Any]) -> Any:
        for text in inputs:
            if text.startswith("raise"):
                raise RowError(*text.split()[1:])
        return [RowError(*text.split()[1:]) if text.startswith("predict") else text for text in inputs]

    def encode(self, output: Any) -> bytes:
        if output.startswith("encode"):
            raise RowError(*output.split()[1:])
        return encode_json(output)


class RefusingRunner(Runner):
    def decode(self, content: bytes | memoryview) -> Any:
        text = str(content, "utf-8")
        if text.startswith("decode"):
            raise RowError(*text.split()[1:])
        return text

    def predict(self, decoded: Any) -> Any:
        if decoded.startswith(("predict", "raise")):
            raise RowError(*decoded.split()[1:])
        return decoded

    def encode(self, predicted: Any) -> bytes:
        if predicted.startswith("encode"):
            raise RowError(*predicted.split()[1:])
        return encode_json(predicted)


class RefusingRows(Model):
    """The same, one row at a time."""

    name, description = "refusing-rows", "a model of the tests"

    def train(self, dataset: Any, run: Any) -> dict[str, float]:
        run.artefact.write_text("x")
        return {}

    def load(self, artefact: Path) -> Runner:
        return RefusingRunner()

    def canary(self) -> bytes:
        return b"hello"


@pytest.mark.parametrize("kind", [Refusing, RefusingRows])
def test_a_row_error_fails_its_row_alone(tmp_path: Path, kind: type[Model]) -> None:
    execution = opened(kind, tmp_path)
    rows = [
        b"good",
        b"decode bad",
        b"raise bad",
        b"predict bad",
        b"encode bad",
        b"decode",
        b"raise",
        b"predict",
        b"encode",
    ]
    found = pooled(execution, [*rows, b"last"])
    refused = [str(answer) for answer in found[1:-1] if isinstance(answer, RowError)]
    assert refused == ["bad"] * 4 + [""] * 4
    assert (found[0], found[-1]) == (b'"good"', b'"last"')


def test_a_runner_of_single_rows_answers_a_list_of_them() -> None:
    good, bad = RefusingRunner().predict_batch(["good", "raise bad"])
    assert (good, type(bad), str(bad)) == ("good", RowError, "bad")


def test_rows_that_cannot_be_decoded_or_encoded_do_not_divide_the_batch(tmp_path: Path) -> None:
    calls = []

    class Counted(Refusing):
        def predict(self, inputs: list[Any]) -> Any:
            calls.append(inputs)
            return super().predict(inputs)

    execution = opened(Counted, tmp_path)
    calls.clear()
    found = answers(execution, b"decode a", b"b", b"encode c", b"d", b"decode e", b"predict f")
    assert found == ["error: a", b'"b"', "error: c", b'"d"', "error: e", "error: f"]
    assert calls == [["b", "encode c", "d", "predict f"]]
    assert answers(execution, b"decode a", b"decode b") == ["error: a", "error: b"]
    assert len(calls) == 1


class Hungry(Batches):
    """Has memory for three rows."""

    error: ClassVar[type[BaseException]] = MemoryError

    def predict(self, inputs: list[Any]) -> Any:
        self.sizes.append(len(inputs))
        if len(inputs) > 3 or b"huge" in inputs:
            raise self.error("CUDA out of memory. Tried to allocate 2.00 GiB")
        return [len(row) for row in inputs]


class OutOfMemoryError(RuntimeError):
    """What torch calls its own."""


class HungryOnDevice(Hungry):
    error = OutOfMemoryError


class HungryOnOldDevice(Hungry):
    error = RuntimeError


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"), True),
        (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), True),
        (OSError(errno.ENOSPC, "No space left on device"), False),
        (RuntimeError("shapes differ"), False),
    ],
)
def test_memory_that_ran_out_is_recognised(error: BaseException, is_memory: bool) -> None:
    assert is_out_of_memory(error) is is_memory


class Tracked(Hungry):
    """Hungry, with rows whose lives are observed."""

    class Row(bytearray):
        """Can be referred to weakly."""

    alive: ClassVar[list[weakref.ref[Any]]] = []
    leftovers: ClassVar[list[int]] = []

    def decode(self, content: bytes | memoryview) -> Any:
        if content == b"refused":
            raise RowError("refused")
        row = self.Row(content)
        Tracked.alive.append(weakref.ref(row))
        return row

    def predict(self, inputs: list[Any]) -> Any:
        Tracked.leftovers.append(sum(ref() is not None for ref in Tracked.alive) - len(inputs))
        return super().predict(inputs)


class TrackedAsynchronously(Tracked):
    async def predict(self, inputs: list[Any]) -> Any:
        return super().predict(inputs)


@pytest.mark.parametrize("kind", [Tracked, TrackedAsynchronously])
def test_failed_attempts_and_refused_rows_hold_no_memory(tmp_path: Path, kind: type[Tracked]) -> None:
    execution = opened(kind, tmp_path)
    gc.disable()
    try:
        for rows in ([b"a", b"b", b"c", b"d"], [b"a", b"refused", b"b"], [b"c"]):
            Tracked.alive.clear()
            Tracked.leftovers.clear()
            found = answers(execution, *rows)
            assert (len(found), set(Tracked.leftovers)) == (len(rows), {0})
            assert [ref for ref in Tracked.alive if ref() is not None] == []
    finally:
        gc.enable()


@pytest.mark.parametrize("kind", [Hungry, HungryOnDevice, HungryOnOldDevice])
def test_running_out_of_memory_halves_the_batch(tmp_path: Path, kind: type[Hungry]) -> None:
    execution = opened(kind, tmp_path)
    rows = [b"x" * number for number in range(1, 9)]
    assert answers(execution, *rows) == [str(len(row)).encode() for row in rows]
    assert model_of(execution).sizes[2:] == [8, 4, 2, 2, 4, 2, 2]
    assert execution.batch.rows == 2
    assert pooled(execution, rows) == [str(len(row)).encode() for row in rows]
    assert model_of(execution).sizes[9:] == [2, 2, 2, 2]
    with pytest.raises(ModelFailure) as failure:
        answers(execution, b"a", b"huge")
    assert failure.value.out_of_memory


def test_batches_grow_again_after_memory_ran_out() -> None:
    size = BatchSize(64)
    size.exhausted(64)
    assert size.rows == 32
    size.exhausted(5)
    assert size.rows == 2
    grown = []
    for _ in range(RECOVERY_BATCHES * 6):
        size.succeeded()
        grown.append(size.rows)
    assert grown[RECOVERY_BATCHES - 2 : RECOVERY_BATCHES] == [2, 4]
    assert grown[-1] == 64
    size.exhausted(1)
    assert size.rows == 1


class Meeting(Batches):
    """Waits in each batch until as many run as may."""

    batch_max = 1
    wanted: ClassVar[int] = 1

    def setup(self, context: SetupContext) -> None:
        super().setup(context)
        self.barrier = threading.Barrier(self.wanted)
        self.running, self.most = 0, 0
        self.lock = threading.Lock()

    def predict(self, inputs: list[Any]) -> Any:
        if inputs[0] == b"hello":
            return [0]
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
        self.barrier.wait(DEADLINE_S)
        with self.lock:
            self.running -= 1
        return [0]


class MeetingOfThree(Meeting):
    concurrency = 3
    wanted = 3


@pytest.mark.parametrize("kind", [Meeting, MeetingOfThree])
def test_as_many_batches_run_at_once_as_declared(tmp_path: Path, kind: type[Meeting]) -> None:
    execution = opened(kind, tmp_path)
    with ThreadPoolExecutor(2) as clients:
        for found in clients.map(lambda _: pooled(execution, [b"x"] * 12), range(2)):
            assert found == [b"0"] * 12
    assert model_of(execution).most == kind.concurrency


class AsynchronousMeeting(Batches):
    """Waits in each batch for the test."""

    batch_max = 1
    concurrency = 16

    def setup(self, context: SetupContext) -> None:
        super().setup(context)
        self.decoded, self.running, self.most = 0, 0, 0
        self.gate = asyncio.Event()
        asyncio.get_running_loop()  # setup, too, is called on the loop's thread

    def decode(self, content: bytes | memoryview) -> Any:
        self.decoded += content != b"hello"
        return bytes(content)

    async def predict(self, inputs: list[Any]) -> list[int]:
        if inputs[0] == b"hello":
            return [0]
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.wait_for(self.gate.wait(), DEADLINE_S)
        self.running -= 1
        return [0]


def test_as_many_asynchronous_batches_wait_at_once_as_declared(tmp_path: Path) -> None:
    """16, with two threads in the server; the next one is decoded meanwhile."""
    execution = opened(AsynchronousMeeting, tmp_path)
    model, threads = model_of(execution), execution.threads
    assert threads is not None
    with ThreadPoolExecutor(1) as client:
        answered = client.submit(pooled, execution, [b"x"] * 40)
        wait_until(lambda: model.decoded == 17 and model.running == 16, "16 batches that wait")
        for _ in range(100):  # time for one more to start, if it may
            threads.run(lambda: None)
        threads.run(model.gate.set)
        assert answered.result(DEADLINE_S) == [b"0"] * 40
    assert model.most == 16


class Optional(Batches):
    parameters: ClassVar[Any] = {"times": Parameter(2)}

    def predict(self, inputs: list[Any]) -> Any:
        return [len(row) * int(self.options["times"]) for row in inputs]


def test_parameters_of_a_request_are_in_options(tmp_path: Path) -> None:
    execution = opened(Optional, tmp_path)
    assert answers(execution, b"abc") == [b"6"]
    assert answers(execution.with_parameters({"times": 5}), b"abc") == [b"15"]
    assert answers(execution, b"abc") == [b"6"]


def test_outputs_become_json() -> None:
    value = {"a": np.float32(0.5), "b": np.arange(4)[::2], "c": {1: None}, "d": "ü", "e": [True, {2}]}
    assert json.loads(encode_json(value)) == {"a": 0.5, "b": [0, 2], "c": {"1": None}, "d": "ü", "e": [True, [2]]}
    assert encode_json(b"{}") == b"{}"
    assert encode_json(None) == b"null"
    for bad in (float("nan"), np.float32("inf"), np.array([1, np.nan]), {"x": [1, (float("-inf"),)]}):
        with pytest.raises(RowError, match="NaN or an infinite number"):
            encode_json(bad)


class Needy(Batches):
    memory_mib = 1 << 24


class OnGpu(Batches):
    device = "cuda"


class RowsOnGpu(RefusingRows):
    device = "cuda"


def test_a_model_is_not_loaded_where_its_needs_are_not_met(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MemoryShortageError, match="it needs 16777216 MiB of memory, and"):
        opened(Needy, tmp_path)
    monkeypatch.setattr(execution_module, "available_bytes", lambda: None)
    assert answers(opened(Needy, tmp_path), b"a") == [b"1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(ModelLoadError, match="no GPU can be used"):
        opened(OnGpu, tmp_path)
    with pytest.raises(ModelLoadError, match="no GPU can be used"):
        opened(RowsOnGpu, tmp_path)


def test_the_device_is_a_gpu_that_may_be_opened(tmp_path: Path) -> None:
    assert resolve_device("auto", tmp_path, {}) == "cpu"
    with pytest.raises(ModelLoadError, match="has no nvidia device"):
        resolve_device("cuda", tmp_path, {})
    (tmp_path / "nvidia0").touch()
    assert [resolve_device(device, tmp_path, {}) for device in ("cpu", "cuda", "auto")] == ["cpu", "cuda:0", "cuda:0"]
    hidden = {"CUDA_VISIBLE_DEVICES": ""}
    assert resolve_device("auto", tmp_path, hidden) == "cpu"
    with pytest.raises(ModelLoadError, match="CUDA_VISIBLE_DEVICES hides them"):
        resolve_device("cuda", tmp_path, hidden)


def test_a_control_groups_limit_bounds_the_available_memory(tmp_path: Path) -> None:
    machine = available_bytes(tmp_path)
    (tmp_path / "memory.max").write_text("5000000\n")
    (tmp_path / "memory.current").write_text("2000000\n")
    (tmp_path / "memory.stat").write_text("anon 2000000\n")
    assert machine is not None
    assert machine > 3_000_000
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 1500000\n")
    assert available_bytes(tmp_path) == 4_500_000


def test_a_version_stands_for_one_state_of_the_files(tmp_path: Path) -> None:
    artefact = train_model(Batches(), tmp_path).artefact
    assert list(json.loads(artefact.read_text())["files"]) == ["test_batch_models.py"]
    artefact.write_text(artefact.read_text().replace('py": "', 'py": "0'))
    with pytest.raises(ModelLoadError, match=r"test_batch_models\.py is not as it was"):
        open_model(Batches(), artefact)


def test_the_threads_of_a_model_end_with_it(tmp_path: Path) -> None:
    for kind in (Batches, Asynchronous):
        before = set(threading.enumerate())
        execution = opened(kind, tmp_path)
        pooled(execution, [b"x"] * 20)
        own = [thread for thread in set(threading.enumerate()) - before if thread.name.startswith("batches")]
        assert len(own) >= 2
        del execution
        for thread in own:
            thread.join(DEADLINE_S)
            assert not thread.is_alive()


class Neither(Runner):
    def decode(self, content: bytes | memoryview) -> Any: ...
    def encode(self, predicted: Any) -> bytes:
        return b"1"


class NeitherModel(RefusingRows):
    def load(self, artefact: Path) -> Runner:
        return Neither()


def test_a_runner_that_cannot_predict_is_not_loaded(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="class Neither defines neither predict nor predict_batch"):
        opened(NeitherModel, tmp_path)


class Cyclic(Batches):
    def setup(self, context: SetupContext) -> None:
        super().setup(context)
        self.me = self


def test_a_model_that_is_replaced_or_unloaded_leaves_memory(tmp_path: Path) -> None:
    async def replaced_and_unloaded() -> None:
        store = ArtefactStore(tmp_path / "work")
        host = RunnerHost(RunnerLimits(1), Families(), tmp_path / "scratch")
        further = Packages(None), Environments(tmp_path / "environments", Families()), Gpus(Families())
        repository = Repository({"batches": Cyclic()}, {}, store, InferencePool(1, 1), host, *further)
        artefact = train_model(Cyclic(), tmp_path).artefact
        left: list[weakref.ref[Any]] = []
        for version in ("00000001", "00000002"):
            stored = repository.store.path(Cyclic(), version)
            stored.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(artefact, stored)
            entry = await repository.load("batches", version)
            assert [model() for model in left] == [None] * len(left)
            assert entry.newest is not None
            assert isinstance(entry.newest.serving, InServer)
            model = weakref.ref(model_of(entry.newest.serving.execution))
            assert not any(found is model() for found in gc.get_objects()), "later collections visit it"
            left.append(model)
        await repository.unload("batches")
        assert [model() for model in left] == [None, None]

    gc.disable()  # what is left would go by chance
    try:
        asyncio.run(replaced_and_unloaded())
    finally:
        gc.enable()


DECLARED = """
from idunno_model_server.api import BatchModel
class Base(BatchModel):
    def predict(self, inputs): return inputs
class Async:
    async def predict(self, inputs): return inputs
class Mine(Base):
    name, description = "mine", "a model of the tests"
    {declaration}
    def canary(self): return b"x"
"""


@pytest.mark.parametrize(
    ("declaration", "says"),
    [
        ("batch_max = 0", "batch_max must be from 1 to 65536, not 0"),
        ("batch_max = 65537", "batch_max must be from 1 to 65536, not 65537"),
        ("batch_max = True", "batch_max must be from 1 to 65536, not True"),
        ("batch_max = None", "batch_max must be from 1 to 65536, not None"),
        ("concurrency = 65", "concurrency must be from 1 to 64, not 65"),
        ("concurrency = 1.5", "concurrency must be from 1 to 64, not 1.5"),
        ("device = 'gpu'", "device 'gpu' must be one of cpu, cuda, auto"),
        ("memory_mib = '1G'", "memory_mib must be from 1 to 16777216, not '1G'"),
        ("row_timeout_s = 3601", "row_timeout_s must be from 1 to 3600, not 3601"),
        ("row_timeout_s = float('nan')", "row_timeout_s must be from 1 to 3600, not nan"),
        ("async def setup(self, context): ...", "setup must not be async"),
        ("concurrency = None; predict = Async.predict", "an async predict needs a concurrency"),
    ],
)
def test_a_bad_declaration_is_refused(tmp_path: Path, declaration: str, says: str) -> None:
    source = DECLARED.format(declaration=declaration)
    (tmp_path / "mine.py").write_text(source)
    (broken,) = discover(tmp_path, {}).broken
    assert broken.reason.startswith(f"class Mine: {says}")


def test_good_declarations_are_taken(tmp_path: Path) -> None:
    lines = ["batch_max = 65536", "concurrency = None", "device = 'auto'", "memory_mib = 1", "row_timeout_s = 1.5"]
    (tmp_path / "mine.py").write_text(DECLARED.format(declaration="\n    ".join(lines)))
    found = discover(tmp_path, {})
    assert (list(found.models), found.broken) == (["mine"], [])
