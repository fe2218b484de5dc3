"""How a route of the API takes a request: the key first, then the body, checked before any model sees it."""

import json
import math
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter, Request, Response, Security
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from starlette.concurrency import run_in_threadpool

from mixpeek_dagster.api.errors import DECLARED
from mixpeek_dagster.api.guard import Guard
from mixpeek_dagster.errors import Invalid

MAX_DEPTH = 64
_bearer = HTTPBearer(auto_error=False, description="API key: `Authorization: Bearer sk_…`")
Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class Guarded(APIRoute):
    """A route that needs a key and takes JSON, or an empty body whatever its content type says."""

    def get_route_handler(self) -> Handler:
        handle = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            guard: Guard = request.app.state.guard
            authorization = request.headers.get("authorization", "")
            caller = guard.remembered(authorization)
            if caller is None:
                caller = await run_in_threadpool(guard.admit, authorization)
            request.state.caller = caller
            guard.spend(caller)
            if "\x00" in request.scope["path"] or "%00" in request.url.query:
                raise Invalid("Paths and query parameters may not hold the character NUL.")
            await _read_json(request)
            return await handle(request)

        return guarded


def new_router(tag: str, *, prefix: str = "/v1") -> APIRouter:
    """A router of guarded routes, for one noun."""
    return APIRouter(prefix=prefix, tags=[tag], route_class=Guarded, dependencies=[Security(_bearer)], responses=DECLARED)


async def _read_json(request: Request) -> None:
    """Parse the body once, strictly, and leave it where FastAPI looks for it."""
    body = await request.body()
    if not body.strip():
        request._body = b""
        return
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise Invalid(f"Send the body as application/json, not as {kind or 'no content type'}.")
    request._json = parse(body)


def parse(body: bytes) -> Any:
    """JSON as this API accepts it.

    Raises:
        RequestValidationError: not JSON, or not UTF-8.
        Invalid: nested too deep, or with values no database takes: NaN, infinite numbers, NUL, halves of surrogate pairs.
    """
    try:
        value = json.loads(body.decode())
    except json.JSONDecodeError as error:
        raise _not_json(f"Not JSON: {error.msg}", at=error.pos) from error
    except UnicodeDecodeError as error:
        raise _not_json("Not JSON: the body is not UTF-8", at=error.start) from error
    except RecursionError as error:
        raise Invalid(f"The body is nested deeper than {MAX_DEPTH} levels.") from error
    except ValueError as error:  # a number of more digits than Python converts
        raise _not_json("A number in the body has too many digits", at=0) from error
    _check(value, depth=0)
    return value


def _not_json(message: str, *, at: int) -> RequestValidationError:
    return RequestValidationError([{"type": "json_invalid", "loc": ("body", at), "msg": message, "input": {}}])


def _check(value: Any, *, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise Invalid(f"The body is nested deeper than {MAX_DEPTH} levels.")
    if isinstance(value, str):
        _check_text(value)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise Invalid("Numbers have to be finite; NaN and Infinity are not JSON.")
    elif isinstance(value, int):
        if not -(2**63) <= value < 2**64:
            raise Invalid("Integers have to fit 64 bits.")
    elif isinstance(value, dict):
        for key, inner in value.items():
            _check_text(key)
            _check(inner, depth=depth + 1)
    elif isinstance(value, list):
        for inner in value:
            _check(inner, depth=depth + 1)


def _check_text(text: str) -> None:
    if text.isascii():
        if "\x00" in text:
            raise Invalid("Texts may not hold the character NUL.")
        return
    if "\x00" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise Invalid("Texts may not hold NUL or half a surrogate pair.")
