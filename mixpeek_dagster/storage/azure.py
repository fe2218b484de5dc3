"""Files in Azure Blob Storage, through its REST API: listings parsed directly, as the vendor's client takes 20 times the CPU."""

import base64
import hashlib
import hmac
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from email.utils import formatdate, parsedate_to_datetime
from functools import lru_cache
from typing import BinaryIO, Literal, Self
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator
from urllib3.exceptions import HTTPError
from urllib3.response import BaseHTTPResponse

from mixpeek_dagster.errors import (
    AccessDenied,
    Archived,
    BadListing,
    Changed,
    Invalid,
    MixpeekError,
    ProviderDown,
    ProviderError,
    WrongConnection,
)
from mixpeek_dagster.settings import Settings
from mixpeek_dagster.storage.azure_login import own_identity
from mixpeek_dagster.storage.content_types import guess_content_type
from mixpeek_dagster.storage.egress import check_url
from mixpeek_dagster.storage.http import Http, Request, body_stream, no_answer_now, read_all, read_chunks
from mixpeek_dagster.storage.parts import READABLE, range_header
from mixpeek_dagster.storage.places import Place, ServerUrl, place_of
from mixpeek_dagster.storage.provider import Capabilities, Entry, Page, reads_a_file
from mixpeek_dagster.storage.tokens import BearerToken, host_of
from mixpeek_dagster.storage.xml_answers import parse_xml

API_VERSION = "2021-12-02"

Meaning = tuple[type[MixpeekError], str]

MEANINGS: dict[str, Meaning] = {
    "AuthenticationFailed": (AccessDenied, "check account_key or sas_token (which expires), and this machine's clock"),
    "InvalidAuthenticationInfo": (AccessDenied, "check account_key or sas_token, and this machine's clock"),
    "AuthorizationFailure": (
        AccessDenied,
        "the account's network rules, or what the role or sas_token allows, do not let this server in",
    ),
    "AuthorizationPermissionMismatch": (
        AccessDenied,
        "give the identity the role Storage Blob Data Reader, or the SAS token the permissions r and l",
    ),
    "AuthorizationResourceTypeMismatch": (AccessDenied, "give the SAS token the resource types c and o"),
    "InsufficientAccountPermissions": (AccessDenied, "give the identity the role Storage Blob Data Reader"),
    "KeyBasedAuthenticationNotPermitted": (AccessDenied, "the account allows no account keys: use managed_identity"),
    "AccountIsDisabled": (AccessDenied, "the account is disabled"),
    "ContainerNotFound": (WrongConnection, "the container does not exist: check its name and account_name"),
    "ContainerBeingDeleted": (WrongConnection, "the container is being deleted"),
    "ContainerDisabled": (WrongConnection, "the container is disabled"),
    "InvalidResourceName": (WrongConnection, "the container's name is not valid"),
    "BlobArchived": (Archived, "it is archived: move it to the hot, cool or cold tier first"),
    "BlobBeingRehydrated": (Archived, "it is on its way back from the archive"),
    "ConditionNotMet": (Changed, "it is not the revision that was listed"),
    "OutOfRangeInput": (BadListing, "it refuses the marker: start the pass again"),
    "ServerBusy": (ProviderDown, "it asks for fewer requests"),
}

BY_STATUS: dict[int, str] = {401: "AuthenticationFailed", 403: "AuthenticationFailed", 412: "ConditionNotMet", 429: "ServerBusy"}
"""What an answer without a code is taken for."""


class AzureCredentials(BaseModel):
    """An account key, a SAS token (with the permissions r and l), or this machine's managed identity (`client_id` picks one)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: Literal["account_key", "sas_token", "managed_identity"] | None = None
    account_name: str | None = Field(default=None, pattern=r"^[a-z0-9]{3,24}$")
    account_key: SecretStr | None = Field(default=None, min_length=1)
    sas_token: SecretStr | None = Field(default=None, min_length=1)
    client_id: str | None = None

    @field_validator("account_key")
    @classmethod
    def _is_base64(cls, value: SecretStr | None) -> SecretStr | None:
        try:
            base64.b64decode(value.get_secret_value() if value else "", validate=True)
        except ValueError:
            raise ValueError("account_key is not base64: copy it whole") from None
        return value

    @field_validator("sas_token")
    @classmethod
    def _is_signed(cls, value: SecretStr | None) -> SecretStr | None:
        text = value.get_secret_value().removeprefix("?") if value else "sig=none"
        if "sig" not in dict(parse_qsl(text)) or not {"?", "#", " "}.isdisjoint(text):
            raise ValueError("sas_token is what stands behind the ? of a SAS URL, with its sig: copy it whole")
        return value

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        given = [name for name in ("account_key", "sas_token") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError("give account_key or sas_token, not both")
        if self.type == "managed_identity" and given:
            raise ValueError(f"credentials of type managed_identity have no {given[0]}")
        if self.type in ("account_key", "sas_token") and self.type not in given:
            raise ValueError(f"credentials of type {self.type} need {self.type}")
        return self


class AzureConfig(BaseModel):
    """One connection.

    Attributes:
        container: the container, when the source path does not start with it.
        account_name: the storage account; the credentials may name it instead.
        prefix: put before the source path.
        endpoint_url: base URL of the account's blob service, for other clouds than the public one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    container: str | None = Field(
        default=None, min_length=1, validation_alias=AliasChoices("container", "container_name", "bucket_name", "bucket")
    )
    account_name: str | None = Field(default=None, pattern=r"^[a-z0-9]{3,24}$")
    prefix: str = ""
    endpoint_url: ServerUrl | None = None
    credentials: AzureCredentials = Field(default_factory=AzureCredentials)

    @model_validator(mode="after")
    def _has_an_account(self) -> Self:
        if self.account is None:
            raise ValueError("account_name is missing")
        return self

    @property
    def account(self) -> str | None:
        return self.account_name or self.credentials.account_name


class AzureSource:
    """The files below one prefix of one container."""

    Config = AzureConfig
    capabilities = Capabilities(order="bytes", start_after=False, shows_restored=True)

    def __init__(self, place: Place, *, http: Http, base_url: str, authorize: Callable[[Request], Request]) -> None:
        self.place = place
        self._http = http
        self._base_url = base_url
        self._authorize = authorize

    @classmethod
    def connect(cls, config: AzureConfig, *, source_path: str, settings: Settings) -> "AzureSource":
        account = config.account or ""
        base_url = (config.endpoint_url or f"https://{account}.blob.core.windows.net").rstrip("/")
        check_url(base_url, allowed_hosts=settings.allowed_hosts)
        return cls(
            place_of(source_path, bucket=config.container, prefix=config.prefix),
            http=Http(allowed_hosts=settings.allowed_hosts, host_from="endpoint_url" if config.endpoint_url else "account_name"),
            base_url=base_url,
            authorize=_authorizer(config, account, settings),
        )

    @property
    def uri(self) -> str:
        return f"azure://{self._base_url.partition('://')[2]}/{self.place.bucket}/{self.place.prefix}"

    def list_page(self, *, after: bytes | None = None, token: str | None = None, limit: int = 1000, known: bytes = b"") -> Page:
        """As the port says; `after` without a token lists from the start, as the service knows no keys to start after."""
        query = {
            "restype": "container",
            "comp": "list",
            "prefix": self.place.prefix,
            "maxresults": str(max(1, min(limit, 5000))),
        }
        if token is not None:
            query["marker"] = token
        response = self._send(f"/{quote(self.place.bucket)}?{urlencode(query)}", {})
        if response.status != 200:
            raise self._error(response, self.uri)
        try:
            page = _page(read_chunks(response))
        except (ValueError, OverflowError, HTTPError) as error:
            response.close()
            raise BadListing(f"The listing of {self.uri} {error}.") from error
        finally:
            response.release_conn()
        if page.token is not None and page.token == token:
            raise BadListing(f"The listing of {self.uri} goes round in a circle: the next page's marker is this page's.")
        if any(not entry.key.startswith(self.place.prefix.encode()) for entry in page.entries):
            raise BadListing(f"The listing of {self.uri} holds keys outside of it.")
        return page

    def head(self, key: bytes) -> Entry | None:
        if not self.place.holds(key):
            return None
        response = self._send(self._path(key), {}, method="HEAD")
        read_all(response)  # nothing, but the connection is free again
        if response.status == 200:
            try:
                return _entry(key, response.headers)
            except (ValueError, OverflowError) as failure:
                raise ProviderDown(f"{self.location(key)}: not an answer of Azure: is endpoint_url right?") from failure
        error = self._error(response, self.location(key))
        if isinstance(error, FileNotFoundError):
            return None
        raise error

    @contextmanager
    def open(self, key: bytes, *, if_match: Entry | None = None, start: int = 0, length: int | None = None) -> Iterator[BinaryIO]:
        headers = range_header(start, length)
        if if_match is not None and if_match.etag:
            headers["If-Match"] = f'"{if_match.etag}"'
        response = self._send(self._path(key), headers)
        if response.status not in READABLE:
            error = self._error(response, self.location(key))
            if isinstance(error, Changed) and self.head(key) is None:
                raise FileNotFoundError(f"{self.location(key)} does not exist.")  # Azure looks at If-Match first
            raise error
        with body_stream(response, host=host_of(self._base_url), start=start, length=length) as stream:
            if if_match is not None and if_match.etag and response.status != 416 and _etag(response.headers) != if_match.etag:
                raise Changed(f"{self.location(key)} changed since it was listed.")
            yield stream

    def relative(self, key: bytes) -> str:
        return key[self.place.parent :].decode("utf-8", "surrogateescape")

    def location(self, key: bytes) -> str:
        return f"azure://{self._base_url.partition('://')[2]}/{self.place.bucket}/{key.decode('utf-8', 'backslashreplace')}"

    def check(self) -> bool:
        return reads_a_file(self)

    def _path(self, key: bytes) -> str:
        return f"/{quote(self.place.bucket)}/{quote(key, safe='/~')}"

    def _send(self, target: str, headers: Mapping[str, str], *, method: str = "GET") -> BaseHTTPResponse:
        return self._http.send(lambda: self._authorize(dated(Request(method, self._base_url + target, headers))))

    def _error(self, response: BaseHTTPResponse, what: str) -> Exception:
        return error_from(response, what)


def dated(request: Request) -> Request:
    """The request with the headers that Azure wants of all."""
    return request._replace(headers={"x-ms-date": formatdate(usegmt=True), "x-ms-version": API_VERSION, **request.headers})


def error_from(response: BaseHTTPResponse, what: str, *, also: Mapping[str, Meaning] = {}) -> Exception:
    """What an answer that is no success means; `also` goes before `MEANINGS`."""
    status, code = response.status, response.headers.get("x-ms-error-code", "")
    read_all(response)
    if code == "BlobNotFound":
        return FileNotFoundError(f"{what} does not exist.")
    known, unknown = {**MEANINGS, **also}, (ProviderError, "an answer that was not expected")
    kind, cause = known.get(code) or known.get(BY_STATUS.get(status, "")) or unknown
    if kind is ProviderError and (status >= 500 or status == 404):
        kind, cause = ProviderDown, "it failed inside, or is not Azure"
    said = f"{what}: Azure answered {status} {code or '(no code)'}: {cause}"
    details = {"code": code, "status": status}
    return no_answer_now(said, response.headers, details=details) if kind is ProviderDown else kind(f"{said}.", details=details)


def _authorizer(config: AzureConfig, account: str, settings: Settings) -> Callable[[Request], Request]:
    if config.credentials.account_key is not None:
        secret = base64.b64decode(config.credentials.account_key.get_secret_value())
        return lambda request: sign(request, account=account, secret=secret)
    if config.credentials.sas_token is not None:
        sas = config.credentials.sas_token.get_secret_value().removeprefix("?")
        return lambda request: request._replace(url=f"{request.url}{'&' if '?' in request.url else '?'}{sas}")
    if not settings.ambient_credentials:
        raise Invalid(
            "The connection has no account_key or sas_token, and managed identities are this machine's own: an operator can lend them to "
            "syncs (MIXPEEK_AMBIENT_CREDENTIALS=1)."
        )
    token = BearerToken(own_identity(settings.azure_identity, config.credentials.client_id))
    return lambda request: request._replace(headers={**request.headers, "Authorization": f"Bearer {token.value()}"})


def sign(request: Request, *, account: str, secret: bytes) -> Request:
    """The request with a Shared Key signature, as Azure's storage services define it."""
    headers = {name.lower(): value for name, value in request.headers.items()}
    parts = urlsplit(request.url)
    length = headers.get("content-length") or (len(request.body) if isinstance(request.body, bytes) else 0)
    standard = [
        headers.get("content-encoding", ""),
        headers.get("content-language", ""),
        "" if length in (0, "0") else str(length),
        *(headers.get(name, "") for name in ("content-md5", "content-type", "date", "if-modified-since", "if-match")),
        *(headers.get(name, "") for name in ("if-none-match", "if-unmodified-since", "range")),
    ]
    own = [f"{name}:{headers[name].strip()}" for name in sorted(headers) if name.startswith("x-ms-")]
    query: dict[str, list[str]] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        query.setdefault(name.lower(), []).append(value)
    resource = [f"/{account}{parts.path}", *(f"{name}:{','.join(sorted(query[name]))}" for name in sorted(query))]
    text = "\n".join([request.method, *standard, *own, *resource])
    signature = base64.b64encode(hmac.new(secret, text.encode(), hashlib.sha256).digest()).decode()
    return request._replace(headers={**request.headers, "Authorization": f"SharedKey {account}:{signature}"})


def _page(chunks: Iterable[bytes]) -> Page:
    root = parse_xml(chunks)
    blobs, marker = root.find("Blobs"), root.find("NextMarker")
    if root.tag != "EnumerationResults" or blobs is None or marker is None:
        raise ValueError("is not a listing")
    entries = []
    for blob in blobs.iterfind("Blob"):
        name, properties = blob.find("Name"), blob.find("Properties")
        if name is None or not name.text or properties is None:
            raise ValueError("holds a blob without name or properties")
        fields = {field.tag: field.text or "" for field in properties}
        if fields.get("ResourceType") == "directory":
            continue  # of an account with a hierarchical namespace: not a file
        text = unquote(name.text) if name.get("Encoded") == "true" else name.text
        entries.append(_entry(text.encode(), fields))
    return Page(entries, marker.text or None)


def _entry(key: bytes, fields: Mapping[str, str]) -> Entry:
    """From the properties of a listing or the headers of an answer: nearly the same names. Raises ValueError, OverflowError."""
    etag = _etag(fields)
    if not etag:
        raise ValueError("holds a blob without an ETag")
    return Entry(
        key=key,
        size=int(fields.get("Content-Length") or 0),
        etag=etag,
        modified_at=_timestamp(fields.get("Last-Modified") or ""),
        content_type=_content_type(key, fields.get("Content-Type") or ""),
        storage_class=fields.get("AccessTier") or fields.get("x-ms-access-tier") or "",
    )


def _etag(fields: Mapping[str, str]) -> str:
    return (fields.get("Etag") or fields.get("ETag") or "").strip('"')


def _content_type(key: bytes, said: str) -> str:
    return said if said not in ("", "application/octet-stream") else guess_content_type(key) or said


@lru_cache(maxsize=1024)
def _timestamp(text: str) -> float:
    return parsedate_to_datetime(text).timestamp() if text else 0.0
