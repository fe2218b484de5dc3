"""Videos in Mux: the best MP4 rendition of every asset that is ready and has one. A key is `<asset id>.mp4`.

An asset without static renditions has no file to read, so it is not listed; it appears once a rendition is made.
"""

import base64
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, BinaryIO, Literal, NamedTuple
from urllib.parse import quote, urlencode

from pydantic import BaseModel, ConfigDict, SecretStr
from urllib3.response import BaseHTTPResponse

from mixpeek_dagster.errors import (
    AccessDenied,
    BadListing,
    Changed,
    Forbidden,
    Invalid,
    ProviderDown,
    ProviderError,
    WrongConnection,
)
from mixpeek_dagster.settings import Settings
from mixpeek_dagster.storage.egress import check_url
from mixpeek_dagster.storage.feed import News
from mixpeek_dagster.storage.http import LONGEST_ERROR_BODY, Http, Request, body_stream, no_answer_now
from mixpeek_dagster.storage.json_answers import MALFORMED, read_json
from mixpeek_dagster.storage.mux_webhooks import news_of
from mixpeek_dagster.storage.parts import READABLE, range_header
from mixpeek_dagster.storage.places import ServerUrl
from mixpeek_dagster.storage.provider import Capabilities, Entry, Page

ASSETS_PER_PAGE = 100
REQUESTS_PER_PAGE = 10
SUFFIX = b".mp4"


class MuxCredentials(BaseModel):
    """An access token of an environment."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: Literal["access_token"] = "access_token"
    access_token_id: str
    access_token_secret: SecretStr
    webhook_secret: SecretStr | None = None


class MuxConfig(BaseModel):
    """One connection. The two URLs are Mux's API and the host that serves its files."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    endpoint_url: ServerUrl = "https://api.mux.com"
    stream_url: ServerUrl = "https://stream.mux.com"
    credentials: MuxCredentials


class _Asset(NamedTuple):
    """What matters of an asset: its file, if it has one, and where that is read; `playback` None is nowhere for everybody."""

    asset_id: str
    entry: Entry | None
    playback: str | None
    rendition: str


class MuxSource:
    """All assets of an environment, or one. A file's revision is its rendition and size: assets never change otherwise."""

    Config = MuxConfig
    capabilities = Capabilities(order="unordered", start_after=False)

    def __init__(self, asset_id: str, *, http: Http, config: MuxConfig) -> None:
        """An empty `asset_id` means all assets."""
        self.asset_id = asset_id
        self._http = http
        self._base_url = config.endpoint_url.rstrip("/")
        self._stream_url = config.stream_url.rstrip("/")
        self._webhook_secret = config.credentials.webhook_secret
        token = f"{config.credentials.access_token_id}:{config.credentials.access_token_secret.get_secret_value()}"
        self._authorization = f"Basic {base64.b64encode(token.encode()).decode()}"

    @classmethod
    def connect(cls, config: MuxConfig, *, source_path: str, settings: Settings) -> "MuxSource":
        for url in (config.endpoint_url, config.stream_url):
            check_url(url, allowed_hosts=settings.allowed_hosts)
        asset_id = source_path.removeprefix("mux://").strip("/")
        if asset_id and not asset_id.isalnum():
            raise Invalid(f"source_path {source_path!r} is neither mux:// (all assets) nor mux://<asset id>.")
        http = Http(allowed_hosts=settings.allowed_hosts, host_from="endpoint_url and stream_url")
        return cls(asset_id, http=http, config=config)

    @property
    def uri(self) -> str:
        return f"mux://{self.asset_id}"

    def webhook(self, body: bytes, signature: str) -> News:
        """What a webhook tells of this source's assets. Raises Forbidden when it is not genuine."""
        if self._webhook_secret is None:
            raise Forbidden("The connection has no webhook_secret to check webhooks with.")
        news = news_of(body, signature, secret=self._webhook_secret.get_secret_value())
        mine = [key for key in news.keys if self.asset_id in ("", _asset_id(key))]
        return replace(news, keys=mine)

    def list_page(self, *, after: bytes | None = None, token: str | None = None, limit: int = 1000, known: bytes = b"") -> Page:
        """As the port says; `after` without a token lists from the start, as assets come by age, not by key."""
        if self.asset_id:
            entry = self.head(self.asset_id.encode() + SUFFIX)
            if entry is None and self._asset(self.asset_id) is None:
                raise WrongConnection(f"Mux asset {self.asset_id} does not exist.")
            return Page([entry] if entry else [], None)
        entries: list[Entry] = []
        wanted = max(1, min(limit, ASSETS_PER_PAGE))
        for _ in range(REQUESTS_PER_PAGE):
            assets, token = self._assets(token, wanted)
            entries.extend(asset.entry for asset in assets if asset.entry is not None)
            if token is None or len(entries) + wanted > limit:
                break
        return Page(entries, token)

    def head(self, key: bytes) -> Entry | None:
        asset_id = _asset_id(key)
        if self.asset_id not in ("", asset_id):
            return None
        asset = self._asset(asset_id)
        return asset.entry if asset is not None else None

    @contextmanager
    def open(self, key: bytes, *, if_match: Entry | None = None, start: int = 0, length: int | None = None) -> Iterator[BinaryIO]:
        asset = self._asset(_asset_id(key))
        if asset is None or asset.entry is None:
            raise FileNotFoundError(f"{self.location(key)} does not exist, or has no MP4 rendition any more.")
        if if_match is not None and if_match.etag != asset.entry.etag:
            raise Changed(f"{self.location(key)} changed since it was listed.")
        if asset.playback is None:
            raise AccessDenied(f"{self.location(key)} has no public playback id: add one, so that its file can be downloaded.")
        url = f"{self._stream_url}/{quote(asset.playback)}/{quote(asset.rendition)}"
        response = self._http.send(lambda: Request("GET", url, range_header(start, length)))
        if response.status not in READABLE:
            raise self._error(response, self.location(key))
        with body_stream(response, host="Mux", start=start, length=length) as stream:
            yield stream

    def relative(self, key: bytes) -> str:
        return key.decode("utf-8", "surrogateescape")

    def location(self, key: bytes) -> str:
        return f"mux://{_asset_id(key)}"

    def check(self) -> bool:
        return bool(self.list_page(limit=1).entries)

    def _assets(self, token: str | None, limit: int) -> tuple[list[_Asset], str | None]:
        query = {"limit": str(limit), **({"cursor": token} if token else {})}
        response = self._send(f"/video/v1/assets?{urlencode(query)}")
        if response.status != 200:
            raise self._error(response, self.uri)
        try:
            answer = read_json(response)
            assets, cursor = [_read(asset) for asset in answer["data"]], answer.get("next_cursor") or None
        except MALFORMED as error:
            raise BadListing("The listing of Mux assets is not what a listing is.") from error
        if cursor is not None and cursor == token:
            raise BadListing("The listing of Mux assets goes round in a circle.")
        return assets, cursor

    def _asset(self, asset_id: str) -> _Asset | None:
        response = self._send(f"/video/v1/assets/{quote(asset_id, safe='')}")
        if response.status == 200:
            try:
                asset = _read(read_json(response)["data"])
                if asset.asset_id != asset_id:
                    raise ValueError
            except MALFORMED as failure:
                raise ProviderDown(f"mux://{asset_id}: not an answer of Mux: is endpoint_url right?") from failure
            return asset
        error = self._error(response, f"mux://{asset_id}")
        if isinstance(error, FileNotFoundError):
            return None
        raise error

    def _send(self, target: str) -> BaseHTTPResponse:
        return self._http.send(lambda: Request("GET", self._base_url + target, {"Authorization": self._authorization}))

    def _error(self, response: BaseHTTPResponse, what: str) -> Exception:
        status = response.status
        try:
            kind = str(read_json(response, limit=LONGEST_ERROR_BODY)["error"]["type"])[:60]
        except MALFORMED:
            kind = ""
        said = f"{what}: Mux answered {status} {kind or '(no type)'}"
        if status == 404 and kind == "not_found":
            return FileNotFoundError(f"{what} does not exist.")
        if status in (401, 403):
            return AccessDenied(f"{said}: check access_token_id and access_token_secret, and that the token may read Mux Video.")
        if status >= 500 or status in (404, 408, 412, 429):
            return no_answer_now(said, response.headers)  # 412: the file is still being made
        if status == 400 and "invalid" in kind:
            return BadListing(f"{said}: start the pass again.")
        return ProviderError(f"{said}.")


def _best(asset: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The ready MP4 rendition with the most pixels, the larger file deciding among equals."""
    made = asset.get("static_renditions") or {}
    ready = [
        file
        for file in made.get("files") or []
        if str(file.get("name", "")).endswith(".mp4") and file.get("status", made.get("status")) == "ready"
    ]
    return max(ready, key=lambda file: (int(file.get("height") or 0), int(file.get("filesize") or 0)), default=None)


def _read(asset: Mapping[str, Any]) -> _Asset:
    """Raises one of `MALFORMED`."""
    asset_id = str(asset["id"])
    rendition = _best(asset) if asset.get("status") == "ready" else None
    if rendition is None:
        return _Asset(asset_id, None, None, "")
    size = int(rendition.get("filesize") or 0)
    entry = Entry(
        key=asset_id.encode() + SUFFIX,
        size=size,
        etag=f"{rendition['name']}-{size}",
        modified_at=float(asset.get("created_at") or 0),
        content_type="video/mp4",
    )
    public = (str(each["id"]) for each in asset.get("playback_ids") or [] if each.get("policy") == "public")
    return _Asset(asset_id, entry, next(public, None), str(rendition["name"]))


def _asset_id(key: bytes) -> str:
    return key.decode("utf-8", "replace").removesuffix(".mp4")
