"""How a route of the API takes a request: the key first, then the body, checked before any model sees it."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter, Request, Response, Security
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from starlette.concurrency import run_in_threadpool

from mixpeek_dagster.api.errors import DECLARED
from mixpeek_dagster.api.guard import Guard
from mixpeek_dagster.api.strict_json import parse
from mixpeek_dagster.errors import Invalid

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
