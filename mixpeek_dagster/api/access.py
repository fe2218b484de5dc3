"""What happens around every request: an id, a size limit, one line in the access log, and an answer when the code fails.

The log holds method, path, status, times and the key's id: no query string, no header, no body, so no secret.
"""

import json
import logging
import re
import time
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mixpeek_dagster.api.errors import envelope, error_response
from mixpeek_dagster.models.ids import new_id

access_log = logging.getLogger("mixpeek_dagster.access")
logger = logging.getLogger("mixpeek_dagster.api")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
UPLOAD = re.compile(r"/v1/uploads/[^/]+/blob/?")


class _TooLarge(Exception):
    pass


class Access:
    """ASGI middleware. Bodies above `max_body_bytes` are refused before they are read; uploads have a limit of their own."""

    def __init__(self, app: ASGIApp, *, max_body_bytes: int, max_upload_bytes: int) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._max_upload_bytes = max_upload_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else new_id("req")
        path = scope["path"]
        if len(path) > 1 and path.endswith("/"):
            scope["path"] = path.rstrip("/") or "/"
        scope.setdefault("state", {})["request_id"] = request_id
        started, status = time.perf_counter(), 500
        is_begun = False

        async def sent(message: Message) -> None:
            nonlocal status, is_begun
            if message["type"] == "http.response.start":
                status, is_begun = message["status"], True
                out = MutableHeaders(scope=message)
                out["X-Request-Id"] = request_id
                out.setdefault("X-Content-Type-Options", "nosniff")
            await send(message)

        limit = self._max_upload_bytes if UPLOAD.fullmatch(path) else self._max_body_bytes
        length = headers.get("content-length", "")
        try:
            if length.isdigit() and int(length) > limit:
                raise _TooLarge
            await self._app(scope, _counted(receive, limit), sent)
        except _TooLarge:
            if not is_begun:
                message = f"The body is larger than the {limit} bytes that this server accepts."
                answer = envelope(413, message, type="PayloadTooLargeError", code="payload_too_large")
                await answer(scope, receive, sent)
        except Exception as error:
            logger.exception("request %s %s %s failed", request_id, scope["method"], scope["path"])
            if is_begun:
                raise
            await error_response(error)(scope, receive, sent)
        finally:
            _log(scope, request_id, status, time.perf_counter() - started)


def _counted(receive: Receive, limit: int) -> Receive:
    taken = 0

    async def counted() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > limit:
            raise _TooLarge
        return message

    return counted


def _log(scope: Scope, request_id: str, status: int, seconds: float) -> None:
    if not access_log.isEnabledFor(logging.INFO):
        return
    state: dict[str, Any] = scope.get("state", {})
    caller = state.get("caller")
    line = {
        "request_id": request_id,
        "method": scope["method"],
        "path": scope["path"],
        "status": status,
        "ms": round(seconds * 1000, 1),
        "key": getattr(caller, "key_id", None),
        "namespace": state.get("namespace_id"),
        "client": (scope.get("client") or [None])[0],
    }
    access_log.info(json.dumps(line, ensure_ascii=True))
