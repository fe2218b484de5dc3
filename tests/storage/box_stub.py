"""A Box of folders and files: the calls that we make, strict about what Box is strict about.

`test_vendor_sdks.py` shows that Box's own SDK takes it for Box.
"""

import hashlib
import itertools
import json
from typing import Any
from urllib.parse import parse_qs

from tests.storage.scripted import Answer, Asked, part_of

TOP = "100"
APP = {"client_id": "app", "client_secret": "hush"}
ALWAYS = ("type", "id", "etag")
"""What an item has, whichever `fields` were asked for."""


class BoxStub:
    """`expired` tokens are refused; the next `busy` calls are answered with 429."""

    def __init__(self) -> None:
        self._ids = itertools.count(1000)
        self.folders: dict[str, tuple[str, str]] = {"0": ("", "All Files"), TOP: ("0", "top")}
        """id → (parent, name)"""
        self.files: dict[str, tuple[str, str, bytes]] = {}
        """id → (parent, name, body)"""
        self.events: list[Any] = []
        """The stream, from its beginning; a position is a place in it."""
        self.expired: set[str] = set()
        self.used: set[str] = set()
        """Refresh tokens: each works once."""
        self.tokens = (f"token-{number}" for number in itertools.count())
        self.grants: list[dict[str, str]] = []
        self.busy = 0

    def folder(self, path: bytes) -> str:
        """The id of the folder that holds a file of this path; made on the way."""
        at = TOP
        for name in path.decode().split("/")[:-1]:
            found = next((key for key, value in self.folders.items() if value == (at, name)), None)
            if found is None:
                found = str(next(self._ids))
                self.folders[found] = (at, name)
            at = found
        return at

    def find(self, path: bytes) -> str | None:
        parent, name = self.folder(path), path.decode().rpartition("/")[2]
        return next((key for key, value in self.files.items() if value[:2] == (parent, name)), None)

    def put(self, path: bytes, body: bytes) -> None:
        file_id = self.find(path) or str(next(self._ids))
        self.files[file_id] = (self.folder(path), path.decode().rpartition("/")[2], body)

    def delete(self, path: bytes) -> None:
        del self.files[self.find(path) or ""]

    def tell(self, kind: str, item: object) -> None:
        """Add an event to the stream."""
        self.events.append({"type": "event", "event_id": f"e{len(self.events)}", "event_type": kind, "source": item})

    def answer(self, asked: Asked) -> Answer:
        if asked.path == "/oauth2/token":
            return self._grant({name: values[0] for name, values in parse_qs(asked.body.decode()).items()})
        if asked.path.startswith("/dl/"):
            assert "Authorization" not in asked.headers, "the token is for Box's API alone"
            return part_of(self.files[asked.path[4:]][2], asked)
        kind, _, token = asked.headers.get("Authorization", "").partition(" ")
        if kind != "Bearer" or token in self.expired:
            return Answer(401)
        if self.busy:
            self.busy -= 1
            return Answer(429, b"", {"Retry-After": "3"})
        match asked.path.split("/")[2:]:
            case ["folders", folder_id, "items"] if folder_id in self.folders:
                return self._items(folder_id, asked)
            case ["files", file_id] if file_id in self.files:
                return answered(_only(self._file(file_id), asked))
            case ["files", file_id, "content"] if file_id in self.files:
                files = asked.headers["Host"].replace("127.0.0.1", "localhost")  # which is another host
                return Answer(302, b"", {"Location": f"http://{files}/dl/{file_id}"})
            case ["events"]:
                return self._events(asked)
        return refused(404, "not_found")

    def _grant(self, grant: dict[str, str]) -> Answer:
        self.grants.append(grant)
        if {name: grant.get(name) for name in APP} != APP:
            return answered({"error": "invalid_client", "error_description": "The client credentials are invalid"}, 400)
        if grant.get("refresh_token") in self.used:
            return answered({"error": "invalid_grant", "error_description": "Invalid refresh token"}, 400)
        self.used |= {grant["refresh_token"]} if "refresh_token" in grant else set()
        given = {"access_token": next(self.tokens), "expires_in": 3600, "token_type": "bearer", "restricted_to": []}
        return answered({**given, "refresh_token": f"refresh-{len(self.grants)}"})

    def _items(self, folder_id: str, asked: Asked) -> Answer:
        assert asked.query["usemarker"].lower() == "true"  # Box's SDK writes True
        inside = [
            {"type": "folder", "id": key, "etag": "0", "sequence_id": "0", "name": name}
            for key, (parent, name) in self.folders.items()
            if parent == folder_id
        ]
        inside += [_only(self._file(key), asked) for key, value in self.files.items() if value[0] == folder_id]
        start, limit = int(asked.query.get("marker", 0)), int(asked.query["limit"])
        marker = str(start + limit) if start + limit < len(inside) else ""
        return answered({"entries": inside[start : start + limit], "limit": limit, "next_marker": marker})

    def _file(self, file_id: str) -> dict[str, Any]:
        parent, name, body = self.files[file_id]
        above: list[dict[str, str]] = []
        while parent:
            above.insert(0, {"type": "folder", "id": parent, "etag": "0", "sequence_id": "0", "name": self.folders[parent][1]})
            parent = self.folders[parent][0]
        return {
            "type": "file",
            "id": file_id,
            "etag": "0",
            "sequence_id": "0",
            "name": name,
            "size": len(body),
            "sha1": hashlib.sha1(body).hexdigest(),
            "modified_at": "2026-11-21T10:00:00-08:00",
            "item_status": "active",
            "path_collection": {"total_count": len(above), "entries": above},
        }

    def _events(self, asked: Asked) -> Answer:
        assert asked.query["stream_type"] == "changes"
        position = asked.query["stream_position"]
        start = len(self.events) if position == "now" else int(position) if position.isdecimal() else -1
        if not 0 <= start <= len(self.events):
            return refused(400, "invalid_stream_position")
        told = self.events[start : start + int(asked.query.get("limit", 100))]
        return answered({"chunk_size": len(told), "next_stream_position": start + len(told), "entries": told})


def answered(value: object, status: int = 200) -> Answer:
    return Answer(status, json.dumps(value).encode(), {"Content-Type": "application/json"})


def refused(status: int, code: str) -> Answer:
    """An error as Box words them."""
    return answered({"type": "error", "status": status, "code": code, "message": code, "request_id": "r1"}, status)


def _only(item: dict[str, Any], asked: Asked) -> dict[str, Any]:
    """An item with nothing but the `fields` that were asked for."""
    wanted = asked.query.get("fields")
    return item if wanted is None else {name: item[name] for name in item if name in (*ALWAYS, *wanted.split(","))}
