"""Files in S3 and its relatives: AWS, R2, Backblaze B2, Wasabi, Tigris, Supabase and any S3-compatible server.

botocore works out addresses and signs; our own HTTP and XML do the rest, so that every connection is checked (`egress`), keys
stay byte-exact, and a listing takes a tenth of boto3's CPU.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from functools import cache, cached_property
from threading import Lock
from typing import Any, BinaryIO, Literal
from urllib.parse import urlsplit

from botocore import UNSIGNED
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config as BotoConfig
from botocore.exceptions import BotoCoreError
from urllib3.exceptions import HTTPError
from urllib3.response import BaseHTTPResponse

from mixpeek_dagster.errors import Archived, BadListing, Changed, WrongConnection
from mixpeek_dagster.settings import Settings
from mixpeek_dagster.storage.content_types import guess_content_type
from mixpeek_dagster.storage.egress import check_url
from mixpeek_dagster.storage.http import Http, Request, body_stream, read_all
from mixpeek_dagster.storage.places import Place
from mixpeek_dagster.storage.provider import Capabilities, Entry, Page
from mixpeek_dagster.storage.s3_config import Endpoint, S3Config, endpoint_of, place_of
from mixpeek_dagster.storage.s3_credentials import CredentialSource, aws_session, credentials_of, discover_backblaze
from mixpeek_dagster.storage.s3_errors import error_from
from mixpeek_dagster.storage.s3_listing import parse_page, plain_etag

LARGEST_PAGE = 1000
LISTING_TRIES = 3
UNTYPED = frozenset({"", "binary/octet-stream", "application/octet-stream"})
"""What S3 says of a file that was put without a content type."""


class S3Source:
    """The files below one prefix of one bucket."""

    Config = S3Config

    def __init__(
        self, place: Place, *, config: S3Config, credentials: CredentialSource, http: Http, endpoint: Endpoint | None
    ) -> None:
        """`endpoint` None asks Backblaze for it at first use."""
        self.place = place
        self.capabilities = Capabilities(order=config.order, start_after=config.order == "bytes", presign=True)
        self._config = config
        self._credentials = credentials
        self._http = http
        self._known_endpoint = endpoint

    @classmethod
    def connect(cls, config: S3Config, *, source_path: str, settings: Settings) -> "S3Source":
        endpoint = endpoint_of(config)
        if endpoint is not None and endpoint.url is not None:
            check_url(endpoint.url, allowed_hosts=settings.allowed_hosts)
        return cls(
            place_of(config, source_path),
            config=config,
            credentials=credentials_of(config, settings),
            http=Http(allowed_hosts=settings.allowed_hosts, verify=config.verify_ssl),
            endpoint=endpoint,
        )

    @property
    def uri(self) -> str:
        return f"s3://{self.place.bucket}/{self.place.prefix}"

    def list_page(self, *, after: bytes | None = None, token: str | None = None, limit: int = LARGEST_PAGE) -> Page:
        params: dict[str, Any] = {
            "Bucket": self.place.bucket,
            "Prefix": self.place.prefix,
            "MaxKeys": max(1, min(limit, LARGEST_PAGE)),
            "EncodingType": "url",
        }
        if token is not None:
            params["ContinuationToken"] = token
        elif after:
            params["StartAfter"] = _longest_text(after)
        page = self._read_page(params)
        if token is not None and page.token == token:
            raise BadListing(f"The listing of {self.uri} goes round in a circle: the next page's token is this page's.")
        prefix = self.place.prefix.encode()
        if any(not entry.key.startswith(prefix) for entry in page.entries):
            raise BadListing(f"The listing of {self.uri} holds keys outside of it.")
        return page

    def head(self, key: bytes) -> Entry | None:
        if not self.place.holds(key):
            return None
        try:
            params = {"Bucket": self.place.bucket, "Key": _key_text(key)}
            response = self._send("HEAD", "head_object", params)
            read_all(response)  # nothing, but the connection is free again
            if response.status == 200:
                return _entry(key, response.headers)
            # The answer to a HEAD has no body, so it cannot tell a missing key from a missing bucket: ask again in full.
            with self._send("GET", "get_object", params) as response:
                if response.status != 200:
                    raise self._error(response, self.location(key))
                return _entry(key, response.headers)
        except FileNotFoundError:
            return None

    @contextmanager
    def open(self, key: bytes, *, if_match: Entry | None = None) -> Iterator[BinaryIO]:
        params: dict[str, Any] = {"Bucket": self.place.bucket, "Key": _key_text(key)}
        headers = {}
        if if_match is not None and if_match.etag:
            headers["If-Match"] = f'"{if_match.etag}"'
        if if_match is not None and if_match.version:
            params["VersionId"] = if_match.version
        response = self._send("GET", "get_object", params, headers)
        if response.status != 200:
            raise self._error(response, self.location(key))
        with body_stream(response, host=self._host) as stream:
            found = _entry(key, response.headers)
            # Some servers ignore If-Match.
            if if_match is not None and if_match.etag and found.etag != if_match.etag:
                raise Changed(f"{self.location(key)} changed since it was listed.")
            yield stream

    def relative(self, key: bytes) -> str:
        return key[self.place.parent :].decode("utf-8", "surrogateescape")

    def location(self, key: bytes) -> str:
        return f"s3://{self.place.bucket}/{key.decode('utf-8', 'backslashreplace')}"

    def check(self) -> None:
        for entry in self.list_page(limit=1).entries:
            try:
                with self.open(entry.key) as stream:
                    stream.read(1)
            except (Archived, FileNotFoundError):
                pass  # readable, but for this file

    def _read_page(self, params: dict[str, Any]) -> Page:
        """One listing request; an answer that broke off is asked for again, as it may be the connection's fault."""
        for attempt in range(LISTING_TRIES):
            response = self._send("GET", "list_objects_v2", params)
            if response.status != 200:
                raise self._error(response, self.uri)
            try:
                return parse_page(response.stream(65536), what=self.uri)
            except (BadListing, HTTPError) as error:
                response.close()
                wait_s = self._http.backoff.wait_s(attempt, None)
                if attempt + 1 == LISTING_TRIES or wait_s is None:
                    if isinstance(error, BadListing):
                        raise
                    raise BadListing(f"The listing of {self.uri} broke off ({type(error).__name__}).") from error
                self._http.backoff.sleep(wait_s)
            finally:
                response.release_conn()
        raise AssertionError("unreachable")

    def _send(
        self, method: str, operation: str, params: Mapping[str, Any], headers: Mapping[str, str] | None = None
    ) -> BaseHTTPResponse:
        return self._http.send(self._signer(method, operation, params, headers or {}))

    def _signer(
        self, method: str, operation: str, params: Mapping[str, Any], headers: Mapping[str, str]
    ) -> Callable[[], Request]:
        endpoint = self._endpoint
        try:
            url = _addresses(endpoint, self._config.use_ssl).generate_presigned_url(operation, Params=params, HttpMethod=method)
        except BotoCoreError as error:
            raise WrongConnection(f"{self.uri} has no address: {error}") from error

        def sign() -> Request:
            request = AWSRequest(method, url, headers=dict(headers))
            S3SigV4Auth(self._credentials.get_frozen_credentials(), "s3", endpoint.region).add_auth(request)
            return Request(method, url, dict(request.headers.items()))

        return sign

    @cached_property
    def _endpoint(self) -> Endpoint:
        return self._known_endpoint or discover_backblaze(self._http, self._credentials)

    @property
    def _host(self) -> str:
        return urlsplit(self._endpoint.url).hostname or "S3" if self._endpoint.url else f"S3 in {self._endpoint.region}"

    def _error(self, response: BaseHTTPResponse, what: str) -> Exception:
        return error_from(response.status, response.headers, read_all(response), what=what)


_ADDRESSES_LOCK = Lock()


@cache
def _make_addresses(endpoint: Endpoint, use_ssl: bool) -> Any:
    style: Literal["path", "virtual"] = "path" if endpoint.path_style else "virtual"
    return aws_session().create_client(
        "s3",
        region_name=endpoint.region,
        endpoint_url=endpoint.url,
        use_ssl=use_ssl,
        config=BotoConfig(signature_version=UNSIGNED, s3={"addressing_style": style, "us_east_1_regional_endpoint": "regional"}),
    )


def _addresses(endpoint: Endpoint, use_ssl: bool) -> Any:
    """A botocore client that is only asked for the URLs of operations: `generate_presigned_url` without signing them."""
    with _ADDRESSES_LOCK:  # making clients is not thread-safe, using them is
        return _make_addresses(endpoint, use_ssl)


def _key_text(key: bytes) -> str:
    try:
        return key.decode()
    except UnicodeDecodeError as error:
        raise FileNotFoundError("S3 keys are UTF-8; there is none like this.") from error


def _longest_text(after: bytes) -> str:
    """The start of a key that is valid UTF-8: listing from there gives all that is above the key, and perhaps a little more."""
    try:
        return after.decode()
    except UnicodeDecodeError as error:
        return after[: error.start].decode()


def _entry(key: bytes, headers: Mapping[str, str]) -> Entry:
    modified = headers.get("Last-Modified")
    content_type = headers.get("Content-Type", "")
    return Entry(
        key=key,
        size=int(headers.get("Content-Length") or 0),
        etag=plain_etag(headers.get("ETag", "")),
        modified_at=parsedate_to_datetime(modified).timestamp() if modified else 0.0,
        content_type=content_type if content_type not in UNTYPED else guess_content_type(key) or content_type,
        storage_class=headers.get("x-amz-storage-class") or "STANDARD",
    )
