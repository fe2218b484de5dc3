"""The one shape of every error answer: `{"success": false, "status": 404, "error": {message, type, code, details}}`."""

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError, ResponseValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field, ValidationError
from starlette.exceptions import HTTPException

from mixpeek_dagster.errors import MixpeekError, ProviderError, TooManyRequests

logger = logging.getLogger("mixpeek_dagster.api")
LONGEST, MOST = 2000, 100
"""Characters of a message, and faults of a request: some name what the request holds, and that may be much."""

_BY_STATUS: Mapping[int, tuple[str, str]] = {
    400: ("BadRequestError", "bad_request"),
    401: ("UnauthorizedError", "unauthorized"),
    403: ("ForbiddenError", "forbidden"),
    404: ("NotFoundError", "not_found"),
    405: ("MethodNotAllowedError", "method_not_allowed"),
    413: ("PayloadTooLargeError", "payload_too_large"),
    422: ("ValidationError", "invalid"),
}


class ErrorDetail(BaseModel):
    """What went wrong: `message` for people, `type` and `code` for programs."""

    message: str
    type: str
    code: str | None = None
    details: dict[str, Any] = Field(default_factory=dict)


class ErrorResponse(BaseModel):
    """The answer of every call that failed."""

    success: bool = False
    status: int
    error: ErrorDetail


DECLARED: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorResponse, "description": HTTPStatus(status).phrase}
    for status in (400, 401, 403, 404, 405, 409, 413, 422, 429, 500, 503)
}
"""What every operation may answer, for the OpenAPI description."""


def envelope(status: int, message: str, *, type: str, code: str | None, details: Mapping[str, Any] | None = None) -> JSONResponse:
    """An error answer, with `Retry-After` where the details name a delay."""
    error = ErrorDetail(message=_short(message, LONGEST), type=type, code=code, details=dict(details or {}))
    headers = {}
    if error.details.get("retry_after_seconds") is not None:
        headers["Retry-After"] = str(max(1, round(error.details["retry_after_seconds"])))
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    body = ErrorResponse(status=status, error=error).model_dump(mode="json")
    return JSONResponse(body, status_code=status, headers=headers)


def error_response(error: Exception) -> JSONResponse:
    """Any exception as an answer; those that are not ours say nothing about themselves."""
    if isinstance(error, TooManyRequests):
        return envelope(429, error.message, type=error.type, code=error.code, details=error.details)
    if isinstance(error, ProviderError):  # 502 is no status of this API: the request named a place that does not work
        return envelope(400, error.message, type=error.type, code=error.code, details=error.details)
    if isinstance(error, MixpeekError):
        details = _with_location(error)
        return envelope(error.status, error.message, type=error.type, code=error.code, details=details)
    if isinstance(error, RequestValidationError | ValidationError):
        faults = validation_errors(error)
        first = f"{'.'.join(map(str, faults[0]['location']))}: {faults[0]['message']}" if faults else "The request does not fit."
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        return envelope(422, first + more, type="ValidationError", code="invalid", details={"validation_errors": faults[:MOST]})
    if isinstance(error, HTTPException):
        type_, code = _BY_STATUS.get(error.status_code, ("HTTPError", f"http_{error.status_code}"))
        return envelope(error.status_code, str(error.detail), type=type_, code=code)
    return envelope(
        500,
        "The server failed; the log names this request by its X-Request-Id.",
        type="InternalServerError",
        code="internal_error",
    )


def validation_errors(error: RequestValidationError | ValidationError) -> list[dict[str, Any]]:
    """Pydantic's errors as the API lists them: never the value, which may be a secret."""
    return [
        {
            "type": str(one["type"]),
            "location": [_short(str(part), 200) for part in one["loc"]],
            "message": _short(str(one["msg"]), 500),
        }
        for one in error.errors()
    ]


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _with_location(error: MixpeekError) -> dict[str, Any]:
    """A 422 of ours lists itself like pydantic's do, so that clients read one place."""
    if error.status != 422:
        return error.details
    if "validation_errors" in error.details:
        return {**error.details, "validation_errors": error.details["validation_errors"][:MOST]}
    own = [{"type": error.code, "location": ["body"], "message": _short(error.message, LONGEST)}]
    return {**error.details, "validation_errors": own}


def install(app: FastAPI) -> None:
    """Answer every error of an application in the one shape."""

    def handle(request: Request, error: Exception) -> JSONResponse:
        if isinstance(error, HTTPException) and error.status_code == 404 and error.detail == "Not Found":
            message = f"No route {request.url.path}; GET /openapi.json lists them."
            return envelope(404, message, type="NotFoundError", code="unknown_route")
        if isinstance(error, HTTPException) and error.status_code == 405:
            message = f"{request.method} is not allowed on {request.url.path}."
            response = envelope(405, message, type="MethodNotAllowedError", code="method_not_allowed")
            response.headers.update(error.headers or {})
            return response
        if isinstance(error, ResponseValidationError):
            logger.error("answer of %s %s does not fit its model: %s", request.method, request.url.path, error)
        return error_response(error)

    for kind in (MixpeekError, RequestValidationError, ResponseValidationError, ValidationError, HTTPException):
        app.add_exception_handler(kind, handle)
