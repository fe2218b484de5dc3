"""Webhooks of Mux: whether one is genuine, and which asset it is about."""

import hashlib
import hmac
import json
import time

from mixpeek_dagster.errors import Forbidden
from mixpeek_dagster.storage.feed import News

TOLERANCE_S = 300
"""A signature older than this may be a recording of an earlier one."""


def news_of(body: bytes, signature: str, *, secret: str, now: float | None = None) -> News:
    """The asset that a webhook names, if any; events about other things are no news.

    Args:
        signature: the header `Mux-Signature`, such as `t=1565220904,v1=20c75c…`: HMAC-SHA256 over time, dot and body.

    Raises:
        Forbidden: it is not signed with the secret, or its time is more than five minutes away.
    """
    parts = [part.strip().partition("=") for part in signature.split(",")]
    sent = next((value for name, _, value in parts if name == "t"), "")
    wanted = hmac.new(secret.encode(), sent.encode("utf-8", "replace") + b"." + body, hashlib.sha256).hexdigest()
    given = [value.encode("utf-8", "replace") for name, _, value in parts if name == "v1"]
    if not any(hmac.compare_digest(wanted.encode(), one) for one in given) or not (sent.isascii() and sent.isdigit()):
        raise Forbidden("The webhook is not signed with the connection's webhook_secret.")
    if abs((time.time() if now is None else now) - int(sent)) > TOLERANCE_S:
        raise Forbidden("The webhook was signed more than five minutes ago, or this machine's clock is off.")
    asset = _asset_of(body)
    return News(keys=[f"{asset}.mp4".encode()] if asset else [], messages=1)


def _asset_of(body: bytes) -> str | None:
    try:
        event = json.loads(body)
        if not str(event["type"]).startswith("video.asset."):
            return None
        data = event["data"]
        asset = data.get("asset_id") or data["id"]  # events about renditions name their asset beside themselves
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return asset if isinstance(asset, str) and asset.isalnum() else None
