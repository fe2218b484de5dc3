"""Files in S3 and its relatives: AWS, R2, Backblaze B2, Wasabi, Tigris, Supabase and any S3-compatible server.

Our own signatures, HTTP and XML: every connection is checked (`egress`), keys stay byte-exact, and a listing takes a thirtieth
of boto3's CPU. botocore is loaded only where roles or this machine's own credentials are asked for.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import BinaryIO
from urllib.parse import quote, urlsplit

from urllib3.exceptions import HTTPError
from urllib3.response import BaseHTTPResponse

from mixpeek_dagster.errors import BadListing, Changed, Invalid, WrongConnection
from mixpeek_dagster.models.values import storable
from mixpeek_dagster.settings import Settings
from mixpeek_dagster.storage.content_types import guess_content_type
from mixpeek_dagster.storage.egress import check_url
from mixpeek_dagster.storage.feed import News
from mixpeek_dagster.storage.http import Http, Request, body_stream, read_all, read_chunks
from mixpeek_dagster.storage.parts import READABLE, range_header
from mixpeek_dagster.storage.places import Place
from mixpeek_dagster.storage.provider import Capabilities, Entry, Page, reads_a_file
from mixpeek_dagster.storage.s3_config import Endpoint, S3Config, check_endpoint, endpoint_of, place_of
from mixpeek_dagster.storage.s3_credentials import CredentialSource, credentials_of, discover_backblaze
from mixpeek_dagster.storage.s3_errors import error_from
from mixpeek_dagster.storage.s3_events import QueueFeed
from mixpeek_dagster.storage.s3_listing import parse_page, plain_etag
from mixpeek_dagster.storage.s3_requests import bucket_url, is_aws, sign

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
        self.capabilities = Capabilities(
            order=config.order,
            start_after=config.order == "bytes",
            presign=True,
            digests=True,
            feed=config.events is not None,
            shows_restored=endpoint is not None and is_aws(endpoint),
        )
        self._config = config
        self._credentials = credentials
        self._http = http
        self._known_endpoint = endpoint

    @classmethod
    def connect(cls, config: S3Config, *, source_path: str, settings: Settings) -> "S3Source":
        endpoint = endpoint_of(config)
        for url in (endpoint.url if endpoint else None, config.events.queue_url if config.events else None):
            if url is not None:
                check_url(url, allowed_hosts=settings.allowed_hosts)
        place = place_of(config, source_path)
        check_endpoint(endpoint, place.bucket)
        return cls(
            place,
            config=config,
            credentials=credentials_of(config, settings),
            http=Http(
                allowed_hosts=settings.allowed_hosts,
                verify=config.verify_ssl,
                host_from="endpoint_url and region",
                tls_from="endpoint_url, use_ssl and verify_ssl",
            ),
            endpoint=endpoint,
        )

    @property
    def uri(self) -> str:
        return f"s3://{self.place.bucket}/{self.place.prefix}"

    def list_page(
        self, *, after: bytes | None = None, token: str | None = None, limit: int = LARGEST_PAGE, known: bytes = b""
    ) -> Page:
        query = {
            "list-type": "2",
            "prefix": self.place.prefix,
            "max-keys": str(max(1, min(limit, LARGEST_PAGE))),
            "encoding-type": "url",
        }
        if token is not None:
            query["continuation-token"] = token
        elif after:
            query["start-after"] = _longest_text(after)
        page = self._read_page(query, known)
        if token is not None and page.token == token:
            raise BadListing(f"The listing of {self.uri} goes round in a circle: the next page's token is this page's.")
        prefix, keys = self.place.prefix.encode(), [entry.key for entry in page.entries]
        # What lies between two keys with the prefix has the prefix.
        if keys and not (min(keys).startswith(prefix) and max(keys).startswith(prefix)):
            raise BadListing(f"The listing of {self.uri} holds keys outside of it.")
        return page

    def head(self, key: bytes) -> Entry | None:
        if not self.place.holds(key):
            return None
        try:
            response = self._send("HEAD", key)
            read_all(response)  # nothing, but the connection is free again
            if response.status == 200:
                return self._entry(key, response.headers)
            # The answer to a HEAD has no body, so it cannot tell a missing key from a missing bucket: ask again in full.
            with self._send("GET", key) as response:
                if response.status != 200:
                    raise self._error(response, key)
                return self._entry(key, response.headers)
        except FileNotFoundError:
            return None

    @contextmanager
    def open(self, key: bytes, *, if_match: Entry | None = None, start: int = 0, length: int | None = None) -> Iterator[BinaryIO]:
        headers, query = range_header(start, length), {}
        if if_match is not None and if_match.etag:
            headers["If-Match"] = f'"{if_match.etag}"'
        if if_match is not None and if_match.version:
            query["versionId"] = if_match.version
        response = self._send("GET", key, query, headers)
        if response.status not in READABLE:
            raise self._error(response, key)
        with body_stream(response, host=self._host, start=start, length=length) as stream:
            etag = plain_etag(response.headers.get("ETag", ""))
            # Some servers ignore If-Match. That a file ends before the part (416) is said without its ETag.
            if if_match is not None and if_match.etag and response.status != 416 and etag != if_match.etag:
                raise Changed(f"{self.location(key)} changed since it was listed.")
            yield stream

    def news(self, position: str | None) -> News:
        return self._queue.news()

    def acknowledge(self, news: News) -> None:
        self._queue.acknowledge(news)

    def relative(self, key: bytes) -> str:
        return key[self.place.parent :].decode("utf-8", "surrogateescape")

    def location(self, key: bytes) -> str:
        return f"s3://{self.place.bucket}/{storable(key.decode('utf-8', 'surrogateescape'))}"

    def check(self) -> bool:
        return reads_a_file(self)

    def _read_page(self, query: Mapping[str, str], known: bytes) -> Page:
        """One listing request; an answer that broke off is asked for again, as it may be the connection's fault."""
        # Others may refuse a header that they do not know.
        headers = {"x-amz-optional-object-attributes": "RestoreStatus"} if self.capabilities.shows_restored else {}
        for attempt in range(LISTING_TRIES):
            response = self._send("GET", None, query, headers)
            if response.status != 200:
                raise self._error(response)
            try:
                return parse_page(read_chunks(response, host=self._host), what=self.uri, known=known)
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
        self, method: str, key: bytes | None, query: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None
    ) -> BaseHTTPResponse:
        return self._http.send(self._signer(method, key, query or {}, headers or {}))

    def _signer(
        self, method: str, key: bytes | None, query: Mapping[str, str], headers: Mapping[str, str]
    ) -> Callable[[], Request]:
        """Makes requests for a file, or for the bucket where `key` is None."""
        endpoint = self._endpoint
        if self._config.requester_pays:
            headers = {**headers, "x-amz-request-payer": "requester"}
        url = bucket_url(endpoint, self.place.bucket) + ("" if key is None else "/" + quote(key, safe="/~"))
        return lambda: sign(method, url, query, headers, keys=self._credentials.get_frozen_credentials(), region=endpoint.region)

    @cached_property
    def _endpoint(self) -> Endpoint:
        return self._known_endpoint or discover_backblaze(self._http, self._credentials)

    @cached_property
    def _queue(self) -> QueueFeed:
        if self._config.events is None:
            raise Invalid(f"The connection of {self.uri} names no queue of events.")
        return QueueFeed(
            self._config.events.queue_url,
            self.place,
            credentials=self._credentials,
            http=self._http,
            region=self._endpoint.region,
        )

    @property
    def _host(self) -> str:
        return urlsplit(self._endpoint.url).hostname or "S3" if self._endpoint.url else f"S3 in {self._endpoint.region}"

    def _entry(self, key: bytes, headers: Mapping[str, str]) -> Entry:
        size, content_type = headers.get("Content-Length") or "0", headers.get("Content-Type", "")
        if not size.isdecimal():
            raise BadListing(f"{self.location(key)}: its Content-Length is no number.")
        is_restored = 'ongoing-request="false"' in headers.get("x-amz-restore", "")
        return Entry(
            key=key,
            size=int(size),
            etag=plain_etag(headers.get("ETag", "")),
            modified_at=_timestamp(headers.get("Last-Modified", "")),
            content_type=content_type if content_type not in UNTYPED else guess_content_type(key) or content_type,
            storage_class="STANDARD" if is_restored else headers.get("x-amz-storage-class") or "STANDARD",
        )

    def _error(self, response: BaseHTTPResponse, key: bytes | None = None) -> Exception:
        """What an answer about a file, or about the bucket where `key` is None, means."""
        what = self.uri if key is None else self.location(key)
        body = read_all(response)
        if response.status == 400 and key is not None and not _is_text(key):
            return FileNotFoundError(f"{what} does not exist: keys are UTF-8 here, and this is not.")
        error = error_from(response.status, response.headers, body, what=what)
        if key is None and isinstance(error, FileNotFoundError):
            return WrongConnection(f"{what}: the server takes the bucket for a file: endpoint_url must not hold a bucket.")
        return error


def _is_text(key: bytes) -> bool:
    try:
        key.decode()
    except UnicodeDecodeError:
        return False
    return True


def _longest_text(after: bytes) -> str:
    """The start of a key that is valid UTF-8: listing from there gives all that is above the key, and perhaps a little more."""
    try:
        return after.decode()
    except UnicodeDecodeError as error:
        return after[: error.start].decode()


def _timestamp(text: str) -> float:
    """Unix seconds, 0 where the text is no time: times are only shown and filtered on."""
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError):
        return 0.0
