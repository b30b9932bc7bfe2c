"""Responses: JSON, and the one form of every error, {"error": "..."}, with more entries if a model failed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from .errors import ApiError


def json_response(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(orjson.dumps(value), status, headers, "application/json")


def error_response(
    message: str,
    status: int,
    headers: Mapping[str, str] | None = None,
    traceback: str | None = None,
    runner: str | None = None,
) -> Response:
    """`traceback`, of a model's own code, and `runner`, what its process did, are entries beside the error."""
    details = {"traceback": traceback, "runner": runner}
    entries = {name: value for name, value in details.items() if value}
    return json_response({"error": message} | entries, status, headers)


async def _on_api_error(_request: Request, error: ApiError) -> Response:
    headers = {"Retry-After": str(error.retry_after_s)} if error.retry_after_s is not None else None
    return error_response(error.message, error.status, headers, error.traceback, error.runner)


async def _on_http_error(request: Request, error: HTTPException) -> Response:
    message = f"{request.method} {request.url.path}: {error.detail}"
    return error_response(message, error.status_code, error.headers)


async def _on_disconnect(_request: Request, _error: ClientDisconnect) -> Response:
    return Response(status_code=499)  # for the log: the client is gone


async def _on_unexpected_error(_request: Request, error: Exception) -> Response:
    return error_response(f"internal error: {type(error).__name__}: {error}", 500)


# Starlette calls each handler with an error of its class, which Starlette's types do not express.
ERROR_HANDLERS: Mapping[Any, Any] = {
    ApiError: _on_api_error,
    HTTPException: _on_http_error,
    ClientDisconnect: _on_disconnect,
    Exception: _on_unexpected_error,
}
