"""Web pages of any origin may use signed URLs: the URL is the permission, and nothing is asked for that a browser adds by itself."""

import re

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from mixpeek_dagster.api.access import UPLOAD

_SIGNED = re.compile(rf"{UPLOAD.pattern}|/v1/objects/[^/]+/blobs/[^/]+/content/?")


class SignedCORS(CORSMiddleware):
    """CORS for signed URLs, and for no other: a key does not belong into a page."""

    def __init__(self, app: ASGIApp) -> None:
        super().__init__(
            app,
            allow_origins=["*"],
            allow_methods=["GET", "HEAD", "PUT"],
            allow_headers=["*"],
            expose_headers=["Accept-Ranges", "Content-Range", "ETag"],
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and _SIGNED.fullmatch(scope["path"]):
            await super().__call__(scope, receive, send)
        else:
            await self.app(scope, receive, send)
