"""The HTTP surface: the Open Inference Protocol v2 with three extensions, and the "idunno" extension for training.

Handlers parse, call one thing, and render; what they call decides. Every error body is {"error": "..."}.

Bounds: body sizes (413), the time a body may take to arrive (408), infer calls at once (503).
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from . import __version__, protocol
from .artefacts import ArtefactStore, check_version
from .bodies import arriving_within, body_chunks, json_response, read_body, read_object, while_connected
from .errors import ApiError, ParameterError
from .faults import ENVIRONMENT, FAULTS_PATH, Faults
from .inference import InferencePool
from .models import registry
from .parameters import Value, resolve
from .plugins import discover
from .repository import Entry, Repository
from .training import Training

SERVER_NAME = "idunno-model-server"
EXTENSIONS = ["binary_tensor_data", "model_repository", "statistics", "idunno"]
SEED_MAX = 2**32 - 1

Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class Limits:
    """What one server takes on."""

    threads: int
    """Rows that run at once, 1 to 256."""
    calls_max: int = 8
    """Infer calls running or waiting; each may hold `body_bytes_max` of memory."""
    body_bytes_max: int = 256 * 1024 * 1024
    artefact_bytes_max: int = 1024 * 1024 * 1024
    body_s_max: int = 60
    """Seconds for the body of an infer request or an artefact to arrive."""


class Server:
    """The handlers, and what they share."""

    def __init__(self, work_dir: Path, models_dir: Path, limits: Limits) -> None:
        self.limits = limits
        store = ArtefactStore(work_dir, limits.artefact_bytes_max)
        predefined = registry()
        found = discover(models_dir, predefined)
        self.broken = found.broken
        self.repository = Repository({**predefined, **found.models}, store)
        self.training = Training(work_dir, models_dir)
        self.pool = InferencePool(limits.threads, limits.calls_max)

    # --- health and metadata ---

    async def live(self, _request: Request) -> Response:
        return json_response({"live": True})

    async def ready(self, _request: Request) -> Response:
        """The server takes calls; whether a model does is the model's own ready call."""
        return json_response({"ready": True})

    async def metadata(self, _request: Request) -> Response:
        return json_response({"name": SERVER_NAME, "version": __version__, "extensions": EXTENSIONS})

    async def model_metadata(self, request: Request) -> Response:
        entry = self.repository.entry(request.path_params["model"])
        version = request.path_params.get("version")
        if version is not None and version != entry.version:
            self.repository.serving(entry.model.name, version)  # raises what fits
        rows = [-1]
        value = {
            "name": entry.model.name,
            "versions": [entry.version] if entry.version else [],
            "platform": entry.model.platform,
            "inputs": [{"name": protocol.INPUT, "datatype": "BYTES", "shape": rows}],
            "outputs": [{"name": name, "datatype": "BYTES", "shape": rows} for name in protocol.OUTPUTS],
        }
        return json_response(value)

    async def model_ready(self, request: Request) -> Response:
        entry, _ = self.repository.serving(request.path_params["model"], request.path_params.get("version"))
        return json_response({"name": entry.model.name, "ready": True})

    # --- inference ---

    async def infer(self, request: Request) -> Response:
        name = request.path_params["model"]
        entry, runner = self.repository.serving(name, request.path_params.get("version"))
        version = entry.version  # as of now: a load during the call changes the entry, not this call's runner
        start = time.perf_counter_ns()
        try:
            with self.pool.admit():
                body = memoryview(await read_body(request, self.limits.body_bytes_max, self.limits.body_s_max))
                parsed = protocol.parse_infer(body, request.headers.get(protocol.HEADER_LENGTH))
                if parsed.parameters:
                    runner = runner.with_parameters(self._resolved(entry, parsed.parameters))
                work = self.pool.infer(runner, parsed.rows)
                outputs, errors, times = await while_connected(request, work)
        except MemoryError:
            entry.statistics.failed(time.perf_counter_ns() - start)
            raise ApiError(507, f"model {name} ran out of memory on this batch") from None
        except (ApiError, ClientDisconnect):
            entry.statistics.failed(time.perf_counter_ns() - start)
            raise
        except Exception as error:
            entry.statistics.failed(time.perf_counter_ns() - start)
            raise ApiError(500, f"model {name} failed: {type(error).__name__}: {error}") from error
        entry.statistics.succeeded(len(parsed.rows), time.perf_counter_ns() - start, times)
        tensors = {"output": outputs, "error": errors}
        content, header_length = protocol.encode_infer(parsed, name, version, tensors)
        if header_length is None:
            return Response(content, media_type="application/json")
        headers = {protocol.HEADER_LENGTH: str(header_length)}
        return Response(content, 200, headers, "application/octet-stream")

    def _resolved(self, entry: Entry, given: dict[str, Any]) -> dict[str, Value]:
        try:
            return resolve(entry.model.name, entry.model.parameters, given)
        except ParameterError as error:
            raise ApiError(400, str(error)) from None

    async def stats(self, request: Request) -> Response:
        name, version = request.path_params.get("model"), request.path_params.get("version")
        entries = [self.repository.entry(name)] if name else self.repository.entries.values()
        if name and version is not None:
            self.repository.serving(name, version)  # raises what fits
        rows = [entry.statistics.as_json(entry.model.name, entry.version) for entry in entries]
        return json_response({"model_stats": rows})

    # --- model repository ---

    async def index(self, request: Request) -> Response:
        only_ready = (await read_object(request)).get("ready") is True
        rows = [entry.as_json() for entry in self.repository.entries.values()]
        return json_response([row for row in rows if not only_ready or row["state"] == "READY"])

    async def load(self, request: Request) -> Response:
        options = protocol.parameters(await read_object(request))
        unknown = sorted(options.keys() - {"version"})
        if unknown:  # such as Triton's "config": what is not followed must not look as if it were
            raise ApiError(400, f'unknown load parameter {unknown[0]!r}: there is "version"')
        entry = await self.repository.load(request.path_params["model"], options.get("version"))
        return json_response(entry.as_json())

    async def unload(self, request: Request) -> Response:
        await self.repository.unload(request.path_params["model"])
        return json_response({})

    # --- the "idunno" extension ---

    async def models(self, _request: Request) -> Response:
        rows = [
            {
                **entry.as_json(),
                "description": entry.model.description,
                "dataset": entry.model.dataset,
                "parameters": {name: value.as_json() for name, value in entry.model.parameters.items()},
            }
            for entry in self.repository.entries.values()
        ]
        broken = [{"file": str(broken.file), "reason": broken.reason} for broken in self.broken]
        return json_response({"models": rows, "broken": broken})

    async def check_parameters(self, request: Request) -> Response:
        """What a job's parameters come to: asked before it starts, so that no batch fails for them."""
        entry = self.repository.entry(request.path_params["model"])
        given = protocol.parameters(await read_object(request))
        return json_response({"parameters": self._resolved(entry, given)})

    async def train(self, request: Request) -> Response:
        entry = self.repository.entry(request.path_params["model"])
        options = await read_object(request)
        seed, dataset = options.get("seed", 0), options.get("dataset")
        if type(seed) is not int or not 0 <= seed <= SEED_MAX:
            raise ApiError(400, f'"seed" must be an integer from 0 to {SEED_MAX}')
        if dataset is not None and (not isinstance(dataset, str) or "\0" in dataset):
            raise ApiError(400, '"dataset" must be the path of a folder or file')
        task = self.training.start(entry.model, seed, Path(dataset) if dataset is not None else None)
        return json_response({"task": task.id}, 202)

    async def task(self, request: Request) -> Response:
        return json_response(self.training.task(request.path_params["task"]).as_json())

    async def cancel_task(self, request: Request) -> Response:
        return json_response((await self.training.cancel(request.path_params["task"])).as_json())

    async def task_artefact(self, request: Request) -> Response:
        artefact, _ = self.training.task(request.path_params["task"]).results()
        return FileResponse(artefact, media_type="application/octet-stream")

    async def task_metrics(self, request: Request) -> Response:
        _, metrics = self.training.task(request.path_params["task"]).results()
        return FileResponse(metrics, media_type="application/json")

    async def faults_are_off(self, _request: Request) -> Response:
        """Where they are on, `Faults` answers before this does."""
        raise ApiError(403, f"fault switches are for tests: start the server with {ENVIRONMENT}={{}}")

    async def put_artefact(self, request: Request) -> Response:
        entry = self.repository.entry(request.path_params["model"])
        version = check_version(request.path_params["version"])
        chunks = body_chunks(request, self.limits.artefact_bytes_max)
        try:
            async with arriving_within(self.limits.body_s_max):
                size = await self.repository.store.write(entry.model, version, chunks, entry.version or None)
        except OSError as error:
            raise ApiError(507, f"cannot store version {version} of model {entry.model.name}: {error}") from error
        return json_response({"model": entry.model.name, "version": version, "bytes": size}, 201)


async def _api_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    headers = {"Retry-After": str(error.retry_after_s)} if error.retry_after_s is not None else None
    return json_response({"error": error.message}, error.status, headers)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path}: {error.detail}"
    return json_response({"error": message}, error.status_code, dict(error.headers or {}))


async def _client_gone(_request: Request, _error: Exception) -> Response:
    return Response(status_code=499)  # nobody reads it


async def _unexpected(_request: Request, error: Exception) -> Response:
    return json_response({"error": f"internal error: {type(error).__name__}: {error}"}, 500)


def _routes(server: Server) -> list[Route]:
    def both(path: str, handler: Handler, method: str) -> list[Route]:
        """A call about a model, with or without a version."""
        base, tail = "/v2/models/{model}", path
        return [
            Route(base + tail, handler, methods=[method]),
            Route(base + "/versions/{version}" + tail, handler, methods=[method]),
        ]

    return [
        Route("/v2/health/live", server.live),
        Route("/v2/health/ready", server.ready),
        Route("/v2", server.metadata),
        Route("/v2/models/stats", server.stats),
        *both("", server.model_metadata, "GET"),
        *both("/ready", server.model_ready, "GET"),
        *both("/infer", server.infer, "POST"),
        *both("/stats", server.stats, "GET"),
        Route("/v2/repository/index", server.index, methods=["POST"]),
        Route("/v2/repository/models/{model}/load", server.load, methods=["POST"]),
        Route("/v2/repository/models/{model}/unload", server.unload, methods=["POST"]),
        Route(FAULTS_PATH, server.faults_are_off, methods=["GET", "POST"]),
        Route("/idunno/models", server.models),
        Route("/idunno/models/{model}/parameters", server.check_parameters, methods=["POST"]),
        Route("/idunno/models/{model}/train", server.train, methods=["POST"]),
        Route("/idunno/models/{model}/artefacts/{version}", server.put_artefact, methods=["PUT"]),
        Route("/idunno/tasks/{task}", server.task),
        Route("/idunno/tasks/{task}", server.cancel_task, methods=["DELETE"]),
        Route("/idunno/tasks/{task}/artefact", server.task_artefact),
        Route("/idunno/tasks/{task}/metrics", server.task_metrics),
    ]


def create_app(work_dir: Path, models_dir: Path, limits: Limits, faults: str | None = None) -> ASGIApp:
    """The ASGI application. `work_dir` is created; it belongs to this process alone.

    `faults` is for tests only, see `faults.py`. Raises ValueError where it cannot be read.
    """
    work_dir.mkdir(parents=True, exist_ok=True)
    server = Server(work_dir, models_dir, limits)
    for broken in server.broken:
        print(f"ignored model file {broken}", file=sys.stderr, flush=True)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        yield
        await server.training.close()
        await asyncio.to_thread(server.pool.close)

    handlers = {
        ApiError: _api_error,
        HTTPException: _http_error,
        ClientDisconnect: _client_gone,
        Exception: _unexpected,
    }
    app = Starlette(routes=_routes(server), exception_handlers=handlers, lifespan=lifespan)
    return app if faults is None else Faults(app, faults)
