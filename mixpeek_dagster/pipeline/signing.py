"""URLs that work without a key, for a while: HMAC-signed, for uploads and downloads of single files."""

import hashlib
import hmac
import time
from collections.abc import Callable

from mixpeek_dagster.errors import Forbidden
from mixpeek_dagster.pipeline.connections import signing_key
from mixpeek_dagster.settings import Settings


def sign(method: str, path: str, *, expires_s: int, settings: Settings, clock: Callable[[], float] = time.time) -> str:
    """`path?expires=…&signature=…`, valid for `expires_s` seconds."""
    expires = int(clock()) + expires_s
    return f"{path}?expires={expires}&signature={_signature(method, path, expires, settings)}"


def check_signature(
    method: str, path: str, *, expires: int, signature: str, settings: Settings, clock: Callable[[], float] = time.time
) -> None:
    """Raises Forbidden when the URL was not signed here for this method, or its time is over."""
    wanted = _signature(method, path, expires, settings)
    if not hmac.compare_digest(wanted.encode(), signature.encode("utf-8", "replace")):
        raise Forbidden("The signature of this URL is wrong.")
    if clock() > expires:
        raise Forbidden("This URL has expired; ask for a new one.")


def _signature(method: str, path: str, expires: int, settings: Settings) -> str:
    return hmac.new(signing_key(settings), f"{method}\n{path}\n{expires}".encode(), hashlib.sha256).hexdigest()
