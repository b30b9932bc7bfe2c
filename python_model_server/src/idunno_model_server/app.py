"""The HTTP interface: the Open Inference Protocol v2 with three of its extensions, and `idunno` for training.

Handlers parse a request, call one function and render its result; policy belongs to the functions that they call. Every
error body is {"error": "..."}, with the "traceback" of a model's own code if that failed, and "runner" if its process
did.

Bounds: body sizes (413), the time that a body may take to arrive (408), concurrent infer requests (503).
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from . import __version__, open_inference
from .artefact_store import ArtefactStore, check_version
from .dialect import ReadOptions
from .environments import Environments
from .errors import ApiError, ModelFailure, ParameterError, RunnerError, RunnerNotReadyError
from .fault_injection import ENVIRONMENT, FAULTS_PATH, FaultInjector
from .gpus import Gpus
from .http_body import announced_bytes, body_chunks, read_body, read_object, steady_chunks, while_connected
from .http_response import ERROR_HANDLERS, json_response
from .inference_pool import InferencePool
from .models import Model, registry
from .models.description import ModelDescription
from .packages import Packages
from .parameters import Value, resolve
from .process_memory import MIB, ProcessMemory
from .repository import RETRY_AFTER_S, LoadedModel, ModelEntry, Repository
from .runners.cgroups import Cgroups, delegated
from .runners.host import RunnerHost
from .runners.process_family import Families
from .runners.runner_process import RunnerLimits
from .sandbox import Isolation
from .training_tasks import TrainingSubject, TrainingTasks, check_dataset_use
from .user_models import discover

SERVER_NAME = "idunno-model-server"
EXTENSIONS = ["binary_tensor_data", "model_repository", "statistics", "idunno"]
SEED_MAX = 2**32 - 1

Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class Limits:
    """The load that one server accepts."""

    threads: int
    """Rows that run at once, 1 to 256."""
    requests_max: int = 8
    """Infer requests running or waiting. Each may hold `body_bytes_max` of memory."""
    body_bytes_max: int = 256 * 1024 * 1024
    body_s_max: int = 60
    """Seconds for the body of an infer request to arrive, and between two pieces of an artefact."""


class Server:
    """The handlers and their shared state."""

    def __init__(self, work_dir: Path, models_dir: Path, packages_dir: Path | None, limits: Limits) -> None:
        self.limits = limits
        predefined = registry()
        found = discover(models_dir, predefined)
        self.broken = found.broken
        store = ArtefactStore(work_dir)
        self.pool = InferencePool(limits.threads, limits.requests_max)
        families = Families()
        hidden = [folder.resolve() for folder in (work_dir, packages_dir) if folder is not None]
        cgroups = Cgroups(delegated())
        host = RunnerHost(RunnerLimits(limits.threads), families, work_dir / "scratch", hidden, cgroups)
        self.isolation = Isolation.here()
        self.cgroups = cgroups.are_there
        packages, environments = Packages(packages_dir), Environments(work_dir / "environments", families)
        self.gpus = Gpus(families)
        self.repository = Repository(
            predefined, found.models, store, self.pool, host, packages, environments, self.gpus
        )
        self.training = TrainingTasks(work_dir, models_dir, families, hidden)
        self.repository.environments_elsewhere = self.training.environments

    # --- health and metadata ---

    async def live(self, _request: Request) -> Response:
        return json_response({"live": True})

    async def ready(self, _request: Request) -> Response:
        """Whether the server takes requests. `model_ready` answers for one model."""
        return json_response({"ready": True})

    async def metadata(self, _request: Request) -> Response:
        about = {"name": SERVER_NAME, "version": __version__, "extensions": EXTENSIONS}
        return json_response(about | {"isolation": self.isolation.as_json() | {"cgroups": self.cgroups}})

    async def model_metadata(self, request: Request) -> Response:
        entry = self.repository.entry(request.path_params["model"])
        version = request.path_params.get("version")
        if version is not None:
            self.repository.loaded(entry.name, version)  # raises unless this version is loaded
        rows = [-1]
        value = {
            "name": entry.name,
            "versions": list(entry.versions),
            "platform": entry.description().platform,
            "inputs": [{"name": open_inference.INPUT, "datatype": "BYTES", "shape": rows}],
            "outputs": [{"name": name, "datatype": "BYTES", "shape": rows} for name in open_inference.OUTPUTS],
        }
        return json_response(value)

    async def model_ready(self, request: Request) -> Response:
        loaded = self.repository.loaded(request.path_params["model"], request.path_params.get("version"))
        if not loaded.serving.is_ready:
            raise _not_ready(loaded, "it is being started again")
        return json_response({"name": loaded.entry.name, "ready": True})

    # --- inference ---

    async def infer(self, request: Request) -> Response:
        name = request.path_params["model"]
        loaded = self.repository.loaded(name, request.path_params.get("version"))
        statistics = loaded.entry.statistics
        start = time.perf_counter_ns()
        try:
            with self.pool.admit():
                body = memoryview(await read_body(request, self.limits.body_bytes_max, self.limits.body_s_max))
                parsed = open_inference.parse_infer(body, request.headers.get(open_inference.HEADER_LENGTH))
                parameters = _resolved(loaded.about, parsed.parameters) if parsed.parameters else None
                result = await while_connected(request, loaded.serving.infer(parsed, parameters))
        except RunnerError as error:
            statistics.failed(time.perf_counter_ns() - start)
            raise _ended(loaded, error, len(parsed.rows)) from None
        except RunnerNotReadyError as error:
            statistics.failed(time.perf_counter_ns() - start)
            raise _not_ready(loaded, str(error)) from None
        except ModelFailure as failure:
            statistics.failed(time.perf_counter_ns() - start)
            loaded.entry.failures.add(name, loaded.version, failure, len(parsed.rows))
            raise _failed_request(name, failure) from None
        except MemoryError:
            statistics.failed(time.perf_counter_ns() - start)
            raise ApiError(507, f"out of memory for a request to model {name}") from None
        except (ApiError, ClientDisconnect):
            statistics.failed(time.perf_counter_ns() - start)
            raise
        statistics.succeeded(len(parsed.rows), time.perf_counter_ns() - start, result.times)
        response = open_inference.encode_infer(parsed, name, loaded.version, result.tensors)
        if response.header_length is None:
            return Response(response.content, media_type="application/json")
        headers = {open_inference.HEADER_LENGTH: str(response.header_length)}
        return Response(response.content, 200, headers, "application/octet-stream")

    async def stats(self, request: Request) -> Response:
        name = request.path_params.get("model")
        version = request.path_params.get("version")
        entries = [self.repository.entry(name)] if name else self.repository.entries.values()
        if name and version is not None:
            self.repository.loaded(name, version)  # raises unless this version is loaded
        rows = [
            entry.statistics.as_json(entry.name, entry.version)
            | {"memory_bytes": entry.memory_bytes, "runners": entry.runners()}
            for entry in entries
        ]
        return json_response({"model_stats": rows, "process": ProcessMemory.read().as_json()})

    # --- model repository ---

    async def index(self, request: Request) -> Response:
        only_ready = (await read_object(request)).get("ready") is True
        rows = [entry.as_json() for entry in self.repository.entries.values()]
        return json_response([row for row in rows if not only_ready or row["state"] == "READY"])

    async def load(self, request: Request) -> Response:
        options = open_inference.parameters(await read_object(request))
        unknown = sorted(options.keys() - {"version", "package", "beside"})
        if unknown:  # such as Triton's "config": ignoring it would look like obeying it
            raise ApiError(400, f'unknown load parameter {unknown[0]!r}; known parameters: "version"')
        entry = await self.repository.load(
            request.path_params["model"],
            options.get("version"),
            package=options.get("package") is True,
            beside=options.get("beside") is True,
        )
        return json_response(entry.as_json() | entry.limits())

    async def unload(self, request: Request) -> Response:
        version = open_inference.parameters(await read_object(request)).get("version")
        await self.repository.unload(request.path_params["model"], version)
        return json_response({})

    # --- the "idunno" extension ---

    async def models(self, _request: Request) -> Response:
        rows = [
            {
                **entry.as_json(),
                **entry.limits(),
                "description": about.description,
                "dataset": about.dataset,
                "parameters": {name: value.as_json() for name, value in about.parameters.items()},
            }
            for entry in self.repository.entries.values()
            if (about := entry.about)
        ]
        broken = [{"file": str(broken.file), "reason": broken.reason} for broken in self.broken]
        return json_response({"models": rows, "broken": broken})

    async def runners(self, _request: Request) -> Response:
        """The GPUs, and the processes that run models: what a member polls."""
        shown = ("version", "device", "state", "pid")
        rows = [
            {"model": entry.name, **{key: runner[key] for key in shown}, "memory_mib": runner["memory_bytes"] // MIB}
            for entry in self.repository.entries.values()
            for runner in entry.runners()
        ]
        devices = [gpu.as_json() for gpu in await self.gpus.read()]
        return json_response({"devices": devices, "runners": rows})

    async def failures(self, request: Request) -> Response:
        """Why the model's code failed lately."""
        entry = self.repository.entry(request.path_params["model"])
        return json_response({"failures": entry.failures.as_json()})

    async def check_parameters(self, request: Request) -> Response:
        """Checks a job's parameters before it starts, so that no batch fails because of them."""
        entry = self.repository.entry(request.path_params["model"])
        version = request.path_params.get("version")
        loaded = entry.newest if version is None else entry.versions.get(version)
        about = loaded.about if loaded else entry.about
        if about is None or (loaded is None and entry.model is None):
            raise ApiError(503, f"model {entry.name} version {version} is not loaded", RETRY_AFTER_S)
        given = open_inference.parameters(await read_object(request))
        return json_response({"parameters": _resolved(about, given)})

    async def check_package(self, request: Request) -> Response:
        """Checks that a package is a model, before the cluster has it; or, given {"train": {"dataset": BOOL}}, that it
        can be trained so."""
        name, version = request.path_params["model"], request.path_params["version"]
        training = (await read_object(request)).get("train")
        if training is None:
            await self.repository.check_package(name, version)
        else:
            subject = await self.repository.package_to_train(name, version)
            has_dataset = isinstance(training, dict) and training.get("dataset") is True
            check_dataset_use(name, subject.dataset, has_dataset=has_dataset)
        return json_response({})

    async def restart(self, request: Request) -> Response:
        """Ends the process of a version at once, for whoever found that it hangs. It starts again by itself."""
        loaded = self.repository.loaded(request.path_params["model"], request.path_params["version"])
        reason = (await read_object(request)).get("reason")
        await loaded.serving.restart(str(reason) if reason else "somebody asked for it")
        return json_response({})

    async def train(self, request: Request) -> Response:
        name, options = request.path_params["model"], await read_object(request)
        package = options.get("package")
        if package is not None and not isinstance(package, str):
            raise ApiError(400, '"package" must be the version of a package')
        if package is None:
            subject = TrainingSubject.of_model(_trainable(self.repository.entry(name)))
        else:
            subject = await self.repository.package_to_train(name, package)
        seed = options.get("seed", 0)
        if type(seed) is not int or not 0 <= seed <= SEED_MAX:
            raise ApiError(400, f'"seed" must be an integer from 0 to {SEED_MAX}')
        dataset = options.get("dataset")
        if dataset is not None and (not isinstance(dataset, str) or "\0" in dataset):
            raise ApiError(400, '"dataset" must be the path of a folder or file')
        try:
            reading = ReadOptions.of_json(options.get("reading"))
        except ValueError as error:
            raise ApiError(400, str(error)) from None
        task = self.training.start(subject, seed, Path(dataset) if dataset is not None else None, reading)
        return json_response({"task": task.id}, 202)

    async def task(self, request: Request) -> Response:
        return json_response(self.training.task(request.path_params["task"]).as_json())

    async def cancel_task(self, request: Request) -> Response:
        return json_response(await self.training.end(request.path_params["task"]))

    async def task_artefact(self, request: Request) -> Response:
        artefact = self.training.task(request.path_params["task"]).artefact()
        return FileResponse(artefact, media_type="application/octet-stream")

    async def task_metrics(self, request: Request) -> Response:
        document = self.training.task(request.path_params["task"]).metrics_document()
        return FileResponse(document, media_type="application/json")

    async def put_artefact(self, request: Request) -> Response:
        entry = self.repository.entry(request.path_params["model"])
        model = _trainable(entry)
        version = check_version(request.path_params["version"])
        store = self.repository.store
        store.check_room(announced_bytes(request))
        chunks = steady_chunks(body_chunks(request), self.limits.body_s_max)
        try:
            size = await store.write(model, version, chunks, entry.version or None)
        except OSError as error:
            raise ApiError(507, f"cannot store version {version} of model {entry.name}: {error}") from error
        return json_response({"model": entry.name, "version": version, "bytes": size}, 201)

    async def refuse_faults(self, _request: Request) -> Response:
        """Reached only without fault injection; with it, `FaultInjector` handles the request."""
        raise ApiError(403, f"fault injection is for tests: start the server with {ENVIRONMENT}={{}}")


def _trainable(entry: ModelEntry) -> Model:
    """A model that is trained by its name alone. Raises ApiError 400 for a package."""
    if entry.model is None:
        raise ApiError(400, f'model {entry.name} is a package: name its version, as {{"package": VERSION}}')
    return entry.model


def _resolved(about: ModelDescription, given: Mapping[str, object]) -> dict[str, Value]:
    try:
        return resolve(about.name, about.parameters, given)
    except ParameterError as error:
        raise ApiError(400, str(error)) from None


def _failed_request(model: str, failure: ModelFailure) -> ApiError:
    if failure.out_of_memory:
        message = f"model {model} ran out of memory on one row: {failure.message}"
        return ApiError(507, message, traceback=failure.traceback)
    return ApiError(500, f"model {model} failed: {failure.message}", traceback=failure.traceback)


def _ended(loaded: LoadedModel, error: RunnerError, rows: int) -> ApiError:
    """The process of a model ended with the rows of a request."""
    name = loaded.entry.name
    failure = ModelFailure(f"the model's process ended: {error}")
    loaded.entry.failures.add(name, loaded.version, failure, rows)
    return ApiError(500, f"model {name}: {failure.message}", runner="ended")


def _not_ready(loaded: LoadedModel, reason: str) -> ApiError:
    message = f"model {loaded.entry.name} version {loaded.version} is not ready: {reason}"
    return ApiError(503, message, RETRY_AFTER_S, runner="restarting")


def _routes(server: Server) -> list[Route]:
    def model_routes(path: str, handler: Handler, method: str) -> list[Route]:
        """The same path with and without a version."""
        return [
            Route("/v2/models/{model}" + path, handler, methods=[method]),
            Route("/v2/models/{model}/versions/{version}" + path, handler, methods=[method]),
        ]

    return [
        *model_routes("/infer", server.infer, "POST"),  # matched in this order, so this one costs a batch least
        Route("/v2/health/live", server.live),
        Route("/v2/health/ready", server.ready),
        Route("/v2", server.metadata),
        Route("/v2/models/stats", server.stats),
        *model_routes("", server.model_metadata, "GET"),
        *model_routes("/ready", server.model_ready, "GET"),
        *model_routes("/stats", server.stats, "GET"),
        Route("/v2/repository/index", server.index, methods=["POST"]),
        Route("/v2/repository/models/{model}/load", server.load, methods=["POST"]),
        Route("/v2/repository/models/{model}/unload", server.unload, methods=["POST"]),
        Route(FAULTS_PATH, server.refuse_faults, methods=["GET", "POST"]),
        Route("/idunno/models", server.models),
        Route("/idunno/runners", server.runners),
        Route("/idunno/models/{model}/failures", server.failures),
        Route("/idunno/models/{model}/parameters", server.check_parameters, methods=["POST"]),
        Route("/idunno/models/{model}/versions/{version}/parameters", server.check_parameters, methods=["POST"]),
        Route("/idunno/models/{model}/packages/{version}/check", server.check_package, methods=["POST"]),
        Route("/idunno/models/{model}/versions/{version}/restart", server.restart, methods=["POST"]),
        Route("/idunno/models/{model}/train", server.train, methods=["POST"]),
        Route("/idunno/models/{model}/artefacts/{version}", server.put_artefact, methods=["PUT"]),
        Route("/idunno/tasks/{task}", server.task),
        Route("/idunno/tasks/{task}", server.cancel_task, methods=["DELETE"]),
        Route("/idunno/tasks/{task}/artefact", server.task_artefact),
        Route("/idunno/tasks/{task}/metrics", server.task_metrics),
    ]


def create_app(
    work_dir: Path,
    models_dir: Path,
    limits: Limits,
    fault_plan: str | None = None,
    packages_dir: Path | None = None,
) -> ASGIApp:
    """The ASGI application. `work_dir` is created, and must belong to this process alone. Packages are loaded from
    `packages_dir`, into which the member puts them.

    `fault_plan` is for tests, see `fault_injection`. Raises FaultPlanError, and OSError for an unusable `work_dir`.
    """
    work_dir.mkdir(parents=True, exist_ok=True)
    server = Server(work_dir, models_dir, packages_dir, limits)
    for broken in server.broken:
        print(f"ignored model file {broken}", file=sys.stderr, flush=True)
    shortcomings = server.isolation.shortcomings()
    if shortcomings:
        print(shortcomings, file=sys.stderr, flush=True)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        yield
        await server.training.close()
        await server.repository.close()
        await asyncio.to_thread(server.pool.close)

    app = Starlette(routes=_routes(server), exception_handlers=ERROR_HANDLERS, lifespan=lifespan)
    return app if fault_plan is None else FaultInjector(app, fault_plan)
