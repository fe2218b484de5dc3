"""An environment of Mux assets, and the host that serves their files: the calls that we make.

`test_vendor_sdks.py` shows that Mux's own SDK takes it for Mux.
"""

import base64
import json
from typing import Any

from tests.storage.scripted import Answer, Asked, part_of

CREDENTIALS = {"access_token_id": "id", "access_token_secret": "hush"}


def rendition(name: str, body: bytes = b"movie", **changes: Any) -> dict[str, Any]:
    return {"name": name, "ext": "mp4", "filesize": str(len(body)), "height": 720, "status": "ready", **changes}


def asset(asset_id: str, *files: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "id": asset_id,
        "status": "ready",
        "created_at": "1795000000",
        "playback_ids": [{"id": f"signed{asset_id}", "policy": "signed"}, {"id": f"play{asset_id}", "policy": "public"}],
        "static_renditions": {"status": "ready", "files": list(files)},
        **changes,
    }


class MuxStub:
    """`bodies` are the files by asset; an asset that has none there is a `movie`."""

    def __init__(self) -> None:
        self.assets: dict[str, dict[str, Any]] = {}
        self.bodies: dict[str, bytes] = {}

    def add(self, *assets: dict[str, Any]) -> None:
        self.assets |= {each["id"]: each for each in assets}

    def answer(self, asked: Asked) -> Answer:
        if asked.path.startswith("/play"):
            assert "Authorization" not in asked.headers, "the token is for Mux's API alone"
            return part_of(self.bodies.get(asked.path.split("/")[1].removeprefix("play"), b"movie"), asked)
        if asked.headers.get("Authorization") != f"Basic {base64.b64encode(b'id:hush').decode()}":
            return refused(401, "unauthorized")
        found = asked.path.removeprefix("/video/v1/assets").strip("/")
        if found:
            return answered({"data": self.assets[found]}) if found in self.assets else refused(404, "not_found")
        start, limit = int(asked.query.get("cursor", 0)), int(asked.query["limit"])
        assert limit <= 100
        rest = list(self.assets.values())[start:]
        return answered({"data": rest[:limit], "next_cursor": str(start + limit) if len(rest) > limit else None})


def answered(value: object, status: int = 200) -> Answer:
    return Answer(status, json.dumps(value).encode(), {"Content-Type": "application/json"})


def refused(status: int, kind: str) -> Answer:
    """An error as Mux words them."""
    return answered({"error": {"type": kind, "messages": [kind]}}, status)
