"""Files in Google Cloud Storage, through its JSON API. The generation of an object is its version."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, Self
from urllib.parse import quote, urlencode

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from urllib3.response import BaseHTTPResponse

from mixpeek_dagster.errors import AccessDenied, BadListing, Changed, Invalid, ProviderDown, ProviderError, WrongConnection
from mixpeek_dagster.settings import Settings
from mixpeek_dagster.storage.content_types import guess_content_type
from mixpeek_dagster.storage.egress import check_url
from mixpeek_dagster.storage.http import Http, Request, body_stream, no_answer_now, read_all
from mixpeek_dagster.storage.json_answers import MALFORMED, read_json
from mixpeek_dagster.storage.parts import READABLE, range_header
from mixpeek_dagster.storage.places import Place, ServerUrl, place_of
from mixpeek_dagster.storage.provider import Capabilities, Entry, Page, reads_a_file
from mixpeek_dagster.storage.tokens import BearerToken, Grant, ask_for_token, form_request, host_of, send_as, sign_jwt

READ_ONLY = "https://www.googleapis.com/auth/devstorage.read_only"
ENDPOINT = "https://storage.googleapis.com"
TOKEN_URL = "https://oauth2.googleapis.com/token"  # noqa: S105 - an address, not a secret
"""Fixed: the `token_uri` of a service account file is the tenant's word, and we would send a signed assertion there."""

METADATA_HOST = "metadata.google.internal"
FIELDS = "name,size,md5Hash,crc32c,generation,updated,contentType,storageClass"


class GCSCredentials(BaseModel):
    """A service account's key file, as text or as an object."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    type: str | None = Field(default=None, pattern=r"^service_account(_key)?$")
    service_account_json: SecretStr = Field(validation_alias=AliasChoices("service_account_json", "service_account_key"))

    @field_validator("service_account_json", mode="before")
    @classmethod
    def _as_text(cls, value: object) -> object:
        return json.dumps(value) if isinstance(value, Mapping) else value

    @model_validator(mode="after")
    def _is_a_key_file(self) -> Self:
        try:
            account = json.loads(self.service_account_json.get_secret_value())
            if not (account["client_email"] and account["private_key"]):
                raise KeyError
        except (ValueError, KeyError, TypeError):
            raise ValueError("service_account_json must hold client_email and private_key") from None
        return self

    @property
    def account(self) -> dict[str, str]:
        """The key file's fields."""
        return dict(json.loads(self.service_account_json.get_secret_value()))


class GCSConfig(BaseModel):
    """One connection.

    Attributes:
        bucket: the bucket, when the source path does not start with it (`bucket_name` is the same).
        prefix: put before the source path.
        requester_pays: bill the project `project_id` for requests, as buckets want whose owner does not pay for them.
        endpoint_url: another server that speaks the JSON API. Without credentials it is used anonymously.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    bucket: str | None = Field(default=None, min_length=1, validation_alias=AliasChoices("bucket", "bucket_name"))
    prefix: str = ""
    project_id: str | None = None
    requester_pays: bool = False
    endpoint_url: ServerUrl | None = None
    credentials: GCSCredentials | None = None

    @model_validator(mode="after")
    def _names_who_pays(self) -> Self:
        if self.requester_pays and not self.project_id:
            raise ValueError("requester_pays needs project_id, the project that is billed")
        return self


class GCSSource:
    """The files below one prefix of one bucket."""

    Config = GCSConfig
    capabilities = Capabilities(order="bytes", start_after=True)

    def __init__(self, place: Place, *, http: Http, token: BearerToken | None, base_url: str, payer: str | None = None) -> None:
        """`token` None reads anonymously; `payer` is the project that is billed, None the bucket's own."""
        self.place = place
        self._http = http
        self._token = token
        self._base_url = base_url
        self._billed = {"userProject": payer} if payer else {}

    @classmethod
    def connect(cls, config: GCSConfig, *, source_path: str, settings: Settings) -> "GCSSource":
        if config.endpoint_url is not None:
            check_url(config.endpoint_url, allowed_hosts=settings.allowed_hosts)
        http = Http(allowed_hosts=settings.allowed_hosts, host_from="endpoint_url" if config.endpoint_url else "")
        base_url = (config.endpoint_url or ENDPOINT).rstrip("/")
        return cls(
            place_of(source_path, bucket=config.bucket, prefix=config.prefix),
            http=http,
            token=_token_of(config, http, settings),
            base_url=base_url,
            payer=config.project_id if config.requester_pays else None,
        )

    @property
    def uri(self) -> str:
        return f"gs://{self.place.bucket}/{self.place.prefix}"

    def list_page(self, *, after: bytes | None = None, token: str | None = None, limit: int = 1000, known: bytes = b"") -> Page:
        query = {
            "prefix": self.place.prefix,
            "maxResults": str(max(1, min(limit, 1000))),
            "fields": f"nextPageToken,items({FIELDS})",
        }
        if token is not None:
            query["pageToken"] = token
        elif after:
            # startOffset takes in the key itself: the smallest key above it is the key with a NUL behind.
            query["startOffset"] = after.decode("utf-8", "ignore") + "\0"
        response = self._send(f"/storage/v1/b/{quote(self.place.bucket, safe='')}/o", query)
        if response.status != 200:
            error = self._error(response, self.uri)
            raise WrongConnection(f"{self.uri}: there is no such bucket.") if isinstance(error, FileNotFoundError) else error
        try:
            answer = read_json(response)
            entries = [_entry(item) for item in answer.get("items", [])]
            next_token = answer.get("nextPageToken") or None
        except MALFORMED as error:
            raise BadListing(f"The listing of {self.uri} is not what a listing is ({type(error).__name__}).") from error
        if next_token is not None and next_token == token:
            raise BadListing(f"The listing of {self.uri} goes round in a circle: the next page's token is this page's.")
        if any(not entry.key.startswith(self.place.prefix.encode()) for entry in entries):
            raise BadListing(f"The listing of {self.uri} holds keys outside of it.")
        return Page(entries, next_token)

    def head(self, key: bytes) -> Entry | None:
        if not self.place.holds(key):
            return None
        response = self._send(self._object_path(key), {"fields": FIELDS})
        if response.status != 200:
            error = self._error(response, self.location(key))
            if not isinstance(error, FileNotFoundError):
                raise error
            self.list_page(limit=1)  # a missing bucket must not look like a deleted file
            return None
        try:
            entry = _entry(read_json(response))
            if entry.key != key:
                raise ValueError
        except MALFORMED as error:
            raise ProviderDown(f"{self.location(key)}: not an answer of the JSON API: is endpoint_url right?") from error
        return entry

    @contextmanager
    def open(self, key: bytes, *, if_match: Entry | None = None, start: int = 0, length: int | None = None) -> Iterator[BinaryIO]:
        query = {"alt": "media"}
        if if_match is not None and if_match.version:
            query["ifGenerationMatch"] = if_match.version
        response = self._send(self._object_path(key), query, range_header(start, length))
        if response.status not in READABLE:
            raise self._error(response, self.location(key))
        with body_stream(response, host=host_of(self._base_url), start=start, length=length) as stream:
            found = response.headers.get("x-goog-generation")
            if if_match is not None and if_match.version and found not in (None, if_match.version):
                raise Changed(f"{self.location(key)} changed since it was listed.")
            yield stream

    def relative(self, key: bytes) -> str:
        return key[self.place.parent :].decode("utf-8", "surrogateescape")

    def location(self, key: bytes) -> str:
        return f"gs://{self.place.bucket}/{key.decode('utf-8', 'backslashreplace')}"

    def check(self) -> bool:
        return reads_a_file(self)

    def _object_path(self, key: bytes) -> str:
        return object_path(self.place.bucket, key)

    def _send(self, path: str, query: Mapping[str, str], headers: Mapping[str, str] = {}) -> BaseHTTPResponse:
        url = f"{self._base_url}{path}?{urlencode({**query, **self._billed})}"
        return send_as(self._token, self._http, lambda: Request("GET", url, headers))

    def _error(self, response: BaseHTTPResponse, what: str) -> Exception:
        return error_from(response, what, needs="storage.objects.list and storage.objects.get")


def object_path(bucket: str, key: bytes) -> str:
    """Where the JSON API has an object."""
    return f"/storage/v1/b/{quote(bucket, safe='')}/o/{quote(key, safe='')}"


def error_from(response: BaseHTTPResponse, what: str, *, needs: str) -> Exception:
    """What an answer that is no success means; `needs` are the permissions that a refused account may lack."""
    status, body = response.status, read_all(response)
    reason = reason_of(body)
    said = f"{what}: Google answered {status} {reason or '(no reason)'}"
    if status == 404 and "specified bucket" in reason:
        return WrongConnection(f"{said}: the bucket does not exist.")
    if status == 404:
        if not body or body.lstrip()[:1] == b"<":
            return ProviderDown(f"{said}: not an answer of the JSON API: is endpoint_url right?")
        return FileNotFoundError(f"{what} does not exist.")
    if status == 400 and "requester pays" in reason.lower():
        return WrongConnection(f"{said}: set requester_pays, and project_id to the project that is billed.")
    if status in (401, 403):
        return AccessDenied(f"{said}: grant the service account {needs}.")
    if status == 412:
        return Changed(f"{what} changed since it was listed.")
    if status >= 500 or status in (408, 429):
        return no_answer_now(said, response.headers)
    if status == 400 and "token" in reason.lower():
        return BadListing(f"{said}: start the pass again.")
    return ProviderError(f"{said}.")


def reason_of(body: bytes) -> str:
    """What Google says is wrong, cut; empty when it says nothing."""
    try:
        error = json.loads(body)["error"]
        return str(error.get("message") or error["errors"][0]["reason"])[:120].rstrip(".")
    except MALFORMED:
        return body[:80].decode("utf-8", "replace") if body[:1] != b"<" else ""


def _entry(item: Mapping[str, Any]) -> Entry:
    key = str(item["name"]).encode("utf-8", "surrogatepass")
    return Entry(
        key=key,
        size=int(item.get("size") or 0),
        etag=str(item.get("md5Hash") or item.get("crc32c") or ""),  # its own etag changes with metadata too
        version=str(item.get("generation") or ""),
        modified_at=datetime.fromisoformat(item["updated"]).timestamp() if item.get("updated") else 0.0,
        content_type=str(item.get("contentType") or guess_content_type(key)),
        storage_class=str(item.get("storageClass") or ""),
    )


def _token_of(config: GCSConfig, http: Http, settings: Settings) -> BearerToken | None:
    if config.credentials is not None:
        return BearerToken(service_account(config.credentials, http, scope=READ_ONLY))
    if config.endpoint_url is not None:
        return None
    if not settings.ambient_credentials:
        raise Invalid(
            "The connection has no credentials: give service_account_json; or let syncs use this machine's own "
            "(operator: MIXPEEK_AMBIENT_CREDENTIALS=1)."
        )
    if settings.google_credentials is not None:
        return BearerToken(service_account(key_file(settings.google_credentials), http, scope=READ_ONLY))
    return BearerToken(own_account())


def own_account() -> Callable[[], Grant]:
    """Fetches tokens of the service account that Google gives to a pod, a service or a virtual machine."""
    http = metadata_http()
    remedy = "give the machine a service account"
    return lambda: ask_for_token(http, lambda: metadata_request("token"), who="This machine's Google identity", remedy=remedy)


def metadata_request(what: str) -> Request:
    """Asks the metadata server what it says of this machine's account: its `token`, its `email`."""
    url = f"http://{METADATA_HOST}/computeMetadata/v1/instance/service-accounts/default/{what}"
    return Request("GET", url, {"Metadata-Flavor": "Google"})


def metadata_http() -> Http:
    """What a `metadata_request` is sent with."""
    return Http(
        allowed_hosts={METADATA_HOST},
        host_from="that this machine is Google's, or name a service account's key file in GOOGLE_APPLICATION_CREDENTIALS",
    )


def key_file(file: Path) -> GCSCredentials:
    """What GOOGLE_APPLICATION_CREDENTIALS names. Raises Invalid when it is not the key file of a service account."""
    try:
        return GCSCredentials(service_account_json=file.read_text())
    except OSError as error:
        raise Invalid(f"GOOGLE_APPLICATION_CREDENTIALS: {file} cannot be read ({error.strerror}).") from error
    except (ValidationError, UnicodeDecodeError):
        raise Invalid(
            f"GOOGLE_APPLICATION_CREDENTIALS: {file} is not the key file of a service account, and nothing else is taken: "
            "make a key of the account in JSON, or leave it unset on a machine of Google's, which has an account of its own."
        ) from None


def service_account(credentials: GCSCredentials, http: Http, *, scope: str) -> Callable[[], Grant]:
    """Fetches tokens of a service account for what the scope allows."""
    account = credentials.account

    def fetch() -> Grant:
        now = int(time.time())
        claims = {"iss": account["client_email"], "scope": scope, "aud": TOKEN_URL, "iat": now, "exp": now + 3600}
        assertion = sign_jwt(claims, private_key=account["private_key"], key_id=account.get("private_key_id"))
        fields = {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": assertion}
        return ask_for_token(http, lambda: form_request(TOKEN_URL, fields), who="Google")

    return fetch
