"""Files in Box, below one folder. A key is `<file id>/<path below the folder>`: Box knows files by id, people by path.

A renamed or moved file is another key: `head` of the old one says that it is gone. Folders are walked depth first, one by one.
"""

import base64
import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any, BinaryIO, ClassVar, NamedTuple
from urllib.parse import quote, urlencode

from pydantic import BaseModel, ConfigDict, Field
from urllib3.response import BaseHTTPResponse

from mixpeek_dagster.errors import AccessDenied, BadListing, Changed, Invalid, ProviderDown, ProviderError, WrongConnection
from mixpeek_dagster.settings import Settings
from mixpeek_dagster.storage.box_events import told_by
from mixpeek_dagster.storage.box_login import BoxCredentials, fetcher
from mixpeek_dagster.storage.content_types import guess_content_type
from mixpeek_dagster.storage.egress import check_url
from mixpeek_dagster.storage.feed import News
from mixpeek_dagster.storage.http import LONGEST_ERROR_BODY, Http, Request, body_stream, no_answer_now, read_all
from mixpeek_dagster.storage.json_answers import MALFORMED, read_json
from mixpeek_dagster.storage.parts import READABLE, range_header
from mixpeek_dagster.storage.places import ServerUrl
from mixpeek_dagster.storage.provider import Capabilities, Entry, Page, reads_a_file
from mixpeek_dagster.storage.tokens import BearerToken, TokenKeeper

FIELDS = "type,id,name,size,sha1,content_modified_at,modified_at"
EVENTS_AT_ONCE = 100
REQUESTS_PER_PAGE = 20
"""A page of a tree of many empty folders ends after so many requests, so that a listing keeps its place."""


class BoxConfig(BaseModel):
    """One connection. `folder_id` is the folder when the source path names none; `0` is everything that the account sees. `events`
    follows the account's event stream, which makes changes known within seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder_id: str = Field(default="0", pattern=r"^\d+$")
    events: bool = False
    endpoint_url: ServerUrl = "https://api.box.com"
    credentials: BoxCredentials


class _Place(NamedTuple):
    """A folder to go on with: its id, its path below the source's (empty, or ending in `/`), and Box's marker within it."""

    folder_id: str
    path: str
    marker: str


class BoxSource:
    """The files below one folder, in no particular order. A file's revision is the SHA-1 of its content."""

    Config = BoxConfig
    rotates_tokens: ClassVar[bool] = True

    def __init__(self, folder_id: str, *, http: Http, token: BearerToken, base_url: str, events: bool = False) -> None:
        self.capabilities = Capabilities(order="unordered", start_after=False, feed=events)
        self.folder_id = folder_id
        self._http = http
        self._token = token
        self._base_url = base_url

    @classmethod
    def connect(
        cls,
        config: BoxConfig,
        *,
        source_path: str,
        settings: Settings,
        tokens: TokenKeeper | None = None,
    ) -> "BoxSource":
        """`tokens` keeps each new pair of OAuth tokens: Box's refresh tokens work once."""
        folder_id = source_path.removeprefix("box://").strip("/") or config.folder_id
        if not folder_id.isdecimal():
            raise Invalid(
                f"source_path {source_path!r} is not a Box folder id (the number at the end of the folder's web address)."
            )
        base_url = config.endpoint_url.rstrip("/")
        check_url(base_url, allowed_hosts=settings.allowed_hosts)
        http = Http(allowed_hosts=settings.allowed_hosts, host_from="endpoint_url")
        token = BearerToken(fetcher(config.credentials, http, f"{base_url}/oauth2/token", tokens))
        return cls(folder_id, http=http, token=token, base_url=base_url, events=config.events)

    @property
    def uri(self) -> str:
        return f"box://{self.folder_id}"

    def list_page(self, *, after: bytes | None = None, token: str | None = None, limit: int = 1000, known: bytes = b"") -> Page:
        """As the port says; `after` without a token lists from the start, as Box has no order of keys."""
        places = _unpack(token) if token is not None else [_Place(self.folder_id, "", "")]
        entries: list[Entry] = []
        for _ in range(REQUESTS_PER_PAGE):
            if not places or entries:
                break
            place = places.pop()
            files, folders, marker = self._items(place, limit)
            if marker:
                places.append(place._replace(marker=marker))
            entries += files
            places += folders
        return Page(entries, _pack(places) if places else None)

    def head(self, key: bytes) -> Entry | None:
        file_id, _ = _parse(key)
        entry = self._entry_now(file_id)
        return entry if entry is not None and entry.key == key else None

    @contextmanager
    def open(self, key: bytes, *, if_match: Entry | None = None, start: int = 0, length: int | None = None) -> Iterator[BinaryIO]:
        found = self.head(key)
        if found is None:
            raise FileNotFoundError(f"{self.location(key)} does not exist.")
        if if_match is not None and if_match.etag != found.etag:
            raise Changed(f"{self.location(key)} changed since it was listed.")
        response = self._download(_parse(key)[0], key, range_header(start, length))
        with body_stream(response, host="Box", start=start, length=length) as stream:
            yield stream

    def news(self, position: str | None) -> News:
        """The next events; the first call only finds out where the stream ends. A position that Box has forgotten starts anew there,
        and asks for a pass."""
        query = {"stream_type": "changes", "limit": str(EVENTS_AT_ONCE), "stream_position": position or "now"}
        response = self._send(f"/2.0/events?{urlencode(query)}")
        if response.status == 400 and position is not None:
            read_all(response)
            return replace(self.news(None), everything=True, messages=1)
        if response.status != 200:
            raise self._error(response, f"Events of {self.uri}")
        try:
            answer = read_json(response)
            events, after = list(answer["entries"]), str(answer["next_stream_position"])
        except MALFORMED as error:
            raise ProviderDown("Box answered with something that is no event stream.") from error
        told = told_by(events)
        keys = [entry.key for entry in map(self._entry_now, told.file_ids) if entry is not None]
        prefixes = [f"{file_id}/".encode() for file_id in told.file_ids]  # a renamed file is another key
        return News(keys=keys, prefixes=prefixes, everything=told.everything, position=after, messages=len(events))

    def acknowledge(self, news: News) -> None:
        """The position that is kept says it all."""

    def _entry_now(self, file_id: str) -> Entry | None:
        """A file under the key that it has now; None when it is gone, in the trash, or elsewhere."""
        response = self._send(f"/2.0/files/{quote(file_id)}?{urlencode({'fields': FIELDS + ',item_status,path_collection'})}")
        if response.status == 404 and _is_boxs(response):
            return None
        if response.status != 200:
            raise self._error(response, f"box://{file_id}")
        try:
            item = read_json(response)
            path = self._path_below(item)
            if str(item["id"]) != file_id:
                raise ValueError
            return None if path is None or item.get("item_status", "active") != "active" else _entry(item, path)
        except MALFORMED as error:
            raise ProviderDown(f"box://{file_id}: not an answer of Box: is endpoint_url right?") from error

    def relative(self, key: bytes) -> str:
        return _parse(key)[1]

    def location(self, key: bytes) -> str:
        return f"box://{_parse(key)[0]}"

    def check(self) -> bool:
        return reads_a_file(self)

    def _items(self, place: _Place, limit: int) -> tuple[list[Entry], list[_Place], str]:
        """Files and folders that are directly in a folder, and Box's marker for more of them."""
        query = {"usemarker": "true", "limit": str(max(1, min(limit, 1000))), "fields": FIELDS}
        if place.marker:
            query["marker"] = place.marker
        response = self._send(f"/2.0/folders/{place.folder_id}/items?{urlencode(query)}")
        if response.status == 404 and _is_boxs(response):
            if place.folder_id == self.folder_id:
                raise WrongConnection(f"Box folder {self.folder_id} does not exist, or the account does not see it.")
            return [], [], ""  # removed between listing its parent and now
        if response.status != 200:
            raise self._error(response, self.uri)
        try:
            answer = read_json(response)
            marker = str(answer.get("next_marker") or "")
            files = [_entry(item, place.path) for item in answer["entries"] if item["type"] == "file"]
            folders = [
                _Place(str(item["id"]), f"{place.path}{item['name']}/", "")
                for item in answer["entries"]
                if item["type"] == "folder"
            ]
        except MALFORMED as error:
            raise BadListing(f"The listing of Box folder {place.folder_id} is not what a listing is.") from error
        if marker and marker == place.marker:
            raise BadListing(f"The listing of Box folder {place.folder_id} goes round in a circle.")
        return files, folders, marker

    def _path_below(self, item: Mapping[str, Any]) -> str | None:
        """The path of the folder that a file is in, below the source's; None when it is elsewhere."""
        above = item["path_collection"]["entries"]
        ids = [str(folder["id"]) for folder in above]
        if self.folder_id not in ids:
            return None
        return "".join(f"{folder['name']}/" for folder in above[ids.index(self.folder_id) + 1 :])

    def _download(self, file_id: str, key: bytes, headers: Mapping[str, str]) -> BaseHTTPResponse:
        response = self._send(f"/2.0/files/{quote(file_id)}/content", headers)
        for attempt in range(self._http.backoff.tries):
            if response.status != 202:  # 202: just uploaded, not ready yet
                break
            wait_s = self._http.backoff.wait_s(attempt, response.headers.get("Retry-After"))
            response.close()
            if wait_s is None:
                raise no_answer_now(f"{self.location(key)} is not ready to be downloaded yet", response.headers)
            self._http.backoff.sleep(wait_s)
            response = self._send(f"/2.0/files/{quote(file_id)}/content", headers)
        if response.status in (302, 303, 307):
            target = response.headers.get("Location", "")
            response.close()
            response = self._http.send(lambda: Request("GET", target, headers))  # without the token: it is another host
        if response.status in READABLE:
            return response
        if response.status == 404 and _is_boxs(response):
            raise FileNotFoundError(f"{self.location(key)} does not exist.")
        raise self._error(response, self.location(key))

    def _send(self, target: str, headers: Mapping[str, str] = {}) -> BaseHTTPResponse:
        def request() -> Request:
            return Request("GET", self._base_url + target, {"Authorization": f"Bearer {self._token.value()}", **headers})

        response = self._http.send(request)
        if response.status == 401:
            response.close()
            self._token.forget()
            response = self._http.send(request)
        return response

    def _error(self, response: BaseHTTPResponse, what: str) -> Exception:
        status = response.status
        try:
            code = str(read_json(response, limit=LONGEST_ERROR_BODY).get("code", ""))[:60]
        except MALFORMED:
            code = ""
        said = f"{what}: Box answered {status} {code or '(no code)'}"
        if status in (401, 403):
            return AccessDenied(f"{said}: the app or user may not read this, or the connection's token has expired.")
        if status >= 500 or status in (404, 408, 429):
            return no_answer_now(said, response.headers)
        if status == 400 and "marker" in code:
            return BadListing(f"{said}: start the pass again.")
        return ProviderError(f"{said}.")


def _entry(item: Mapping[str, Any], path: str) -> Entry:
    key = f"{item['id']}/{path}{item['name']}".encode("utf-8", "surrogatepass")
    modified = item.get("content_modified_at") or item.get("modified_at")
    return Entry(
        key=key,
        size=int(item.get("size") or 0),
        etag=str(item.get("sha1") or ""),
        modified_at=datetime.fromisoformat(modified).timestamp() if modified else 0.0,
        content_type=guess_content_type(key),
    )


def _parse(key: bytes) -> tuple[str, str]:
    file_id, _, path = key.decode("utf-8", "surrogateescape").partition("/")
    return file_id, path


def _is_boxs(response: BaseHTTPResponse) -> bool:
    """Whether Box itself says 404: a proxy's must not delete anything."""
    try:
        return str(read_json(response, limit=LONGEST_ERROR_BODY)["code"]) in ("not_found", "trashed")
    except MALFORMED:
        return False


def _pack(places: list[_Place]) -> str:
    return base64.urlsafe_b64encode(zlib.compress(json.dumps(places).encode())).decode()


def _unpack(token: str) -> list[_Place]:
    try:
        return [_Place(*place) for place in json.loads(zlib.decompress(base64.urlsafe_b64decode(token)))]
    except (ValueError, TypeError, zlib.error) as error:
        raise BadListing("The listing cannot go on from this token; start the pass again.") from error
