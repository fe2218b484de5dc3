"""One way to send HTTP requests to other people's storage: checked addresses, retries, transport failures as our errors.

Statuses are left to the caller, which knows its vendor's error bodies; `Http.send` only retries the ones that ask for it.
"""

import email.utils
import io
import random
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple, cast
from urllib.parse import urlsplit

from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NameResolutionError,
    NewConnectionError,
    ProtocolError,
    ReadTimeoutError,
    SSLError,
)
from urllib3.response import BaseHTTPResponse

from mixpeek_dagster.errors import MixpeekError, ProviderDown, WrongConnection
from mixpeek_dagster.storage.egress import check_url, open_pools
from mixpeek_dagster.storage.parts import cut

BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses that ask to be tried again."""

LONGEST_ERROR_BODY = 64 * 1024
ANSWER_S = 60.0
"""So long may an answer that is read whole take, from its headers to its end; files take as long as they take."""

CHUNK = 256 * 1024

LONGEST_WAIT_S = 24 * 3600.0
"""What a server asks beyond it is a mistake, or malice."""


class Request(NamedTuple):
    """One request, as it goes out. `url` is complete and percent-encoded; it is sent byte for byte. A `body` that is a file is read
    from where it stands, and needs a Content-Length."""

    method: str
    url: str
    headers: Mapping[str, str] = {}
    body: bytes | BinaryIO | None = None


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """Seconds to wait between tries: doubling from `first_s` with jitter, or what the server asks, up to `longest_s`. No try begins
    more than `most_s` after the first one did."""

    tries: int = 4
    first_s: float = 0.4
    longest_s: float = 20.0
    most_s: float = 90.0
    sleep: Callable[[float], None] = time.sleep

    def wait_s(self, attempt: int, retry_after: str | None) -> float | None:
        """Seconds to wait after the attempt (from 0); None when there is no point in another one."""
        if attempt + 1 >= self.tries:
            return None
        asked = retry_after_s(retry_after)
        if asked is not None and asked > self.longest_s:
            return None
        delay: float = self.first_s * 2**attempt * (0.5 + random.random())
        return min(max(delay, asked or 0.0), self.longest_s)


def retry_after_s(value: str | None) -> float | None:
    """Seconds that a Retry-After header asks for, a day at most; it may be a number or a date."""
    if not value:
        return None
    try:
        asked = float(value)
    except ValueError:
        try:
            asked = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return None
    return min(max(0.0, asked), LONGEST_WAIT_S)


def no_answer_now(said: str, headers: Mapping[str, str], *, details: Mapping[str, Any] | None = None) -> ProviderDown:
    """The error of a server that is overloaded or ill; `said` is its message without the full stop."""
    wait_s = retry_after_s(headers.get("Retry-After"))
    again = "" if wait_s is None else f"; it wants to be asked again in {wait_s:.0f} s"
    return ProviderDown(f"{said}{again}.", details=details, retry_after_s=wait_s)


class Http:
    """Sends requests for one provider. Safe to share between threads; connections are pooled and reused."""

    def __init__(
        self,
        *,
        allowed_hosts: Collection[str] = (),
        verify: bool = True,
        backoff: Backoff | None = None,
        host_from: str = "",
        tls_from: str = "",
    ) -> None:
        """`host_from` and `tls_from` are the settings that lead to a host and to its certificate, for messages: `a and b`."""
        self._host_from = host_from
        self._tls_from = tls_from or host_from
        self._allowed_hosts = allowed_hosts
        self._pools = open_pools(allowed_hosts=allowed_hosts, verify=verify)
        self.backoff = backoff or Backoff()

    def send(self, make_request: Callable[[], Request]) -> BaseHTTPResponse:
        """The response to the first try that is not `BUSY`, or to the last one; its body is still to be read and released.

        `make_request` is called for each try, as signatures age.

        Raises:
            ProviderDown: no response: unknown host, refused, timed out, broken off.
            WrongConnection: TLS failed.
            UrlRefused: the address may not be reached.
        """
        attempt, last = 0, time.monotonic() + self.backoff.most_s
        while True:
            request = make_request()
            try:
                response = self._send_once(request)
            except HTTPError as error:
                from_ = self._tls_from if isinstance(error, SSLError) else self._host_from
                failure = translate(error, urlsplit(request.url).hostname or "", check=from_)
                wait_s = None if isinstance(failure, WrongConnection) else self.backoff.wait_s(attempt, None)
                if wait_s is None or time.monotonic() + wait_s > last:
                    raise failure from error
            else:
                if response.status not in BUSY:
                    return response
                wait_s = self.backoff.wait_s(attempt, response.headers.get("Retry-After"))
                if wait_s is None or time.monotonic() + wait_s > last:
                    return response
                response.close()  # not drained: its body may be endless
            self.backoff.sleep(wait_s)
            attempt += 1

    def _send_once(self, request: Request) -> BaseHTTPResponse:
        parts = check_url(request.url, allowed_hosts=self._allowed_hosts)
        pool = self._pools.connection_from_host(parts.hostname, parts.port, parts.scheme)
        # The target goes to the pool as it is: urllib3 would otherwise fold `a/../b`, which is a different key.
        target = (parts.path or "/") + ("?" + parts.query if parts.query else "")
        return pool.urlopen(
            request.method,
            target,
            body=request.body,
            headers={"Accept-Encoding": "identity", "User-Agent": "mixpeek-dagster", **request.headers},
            retries=False,
            redirect=False,
            assert_same_host=False,
            preload_content=False,
            decode_content=False,
        )


def translate(error: Exception, host: str, *, check: str = "") -> MixpeekError:
    """What a transport failure means, with the settings to check; names the host, never the URL (it may be signed)."""
    remedy = f" Check {check}." if check else ""
    if isinstance(error, SSLError):
        reason = str(error.args[0]) if error.args else str(error)
        return WrongConnection(f"TLS with {host} failed: {reason}.{remedy}")
    if isinstance(error, NameResolutionError):
        return ProviderDown(f"{host} has no address in DNS.{remedy}")
    if isinstance(error, NewConnectionError):
        return ProviderDown(f"{host} refused the connection or cannot be reached. Is it up?{remedy}")
    if isinstance(error, ConnectTimeoutError):
        return ProviderDown(f"{host} did not answer in time.{remedy}")
    if isinstance(error, ReadTimeoutError | TimeoutError):
        return ProviderDown(f"{host} did not answer in time.")
    return ProviderDown(f"{host} broke the connection off ({type(error).__name__}).")


def read_all(response: BaseHTTPResponse, *, limit: int = LONGEST_ERROR_BODY) -> bytes:
    """At most `limit` bytes of the body, or those before it broke off; the connection goes back to its pool when it was read to the
    end, else it is closed. Raises ProviderDown as `read_chunks` does."""
    body = bytearray()
    try:
        with suppress(ProtocolError):
            for chunk in read_chunks(response):
                body += chunk
                if len(body) > limit:
                    response.close()
                    break
        return bytes(body[:limit])
    finally:
        response.release_conn()


def read_chunks(response: BaseHTTPResponse, *, host: str = "The provider") -> Iterator[bytes]:
    """The body of an answer as it comes, so that a server that drips it is found out.

    Raises:
        ProviderDown: it takes longer than `ANSWER_S`, or nothing comes any more. WrongConnection: TLS failed.
        ProtocolError: it broke off.
    """
    deadline = time.monotonic() + ANSWER_S
    try:
        while chunk := response.read1(CHUNK):
            yield chunk
            if time.monotonic() > deadline:
                response.close()
                raise ProviderDown(f"{host} has not ended an answer within {ANSWER_S:g} s.")
    except ProtocolError:
        raise
    except HTTPError as error:
        raise translate(error, host) from error


class Body(io.RawIOBase):
    """A response's body as a file, whose failures are our errors."""

    def __init__(self, response: BaseHTTPResponse, *, host: str, as_it_comes: bool) -> None:
        self._response = response
        self._read = response.read1 if as_it_comes else response.read
        self._host = host

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            return self.readall()
        try:
            return self._read(size)
        except ProtocolError as error:
            raise ProviderDown(f"{self._host} broke a download off before its end.") from error
        except HTTPError as error:
            raise translate(error, self._host) from error

    def readinto(self, buffer: object) -> int:
        view = memoryview(cast(bytearray, buffer))
        chunk = self.read(len(view))
        view[: len(chunk)] = chunk
        return len(chunk)

    def close(self) -> None:
        # Closing beats draining: what is left may be gigabytes.
        if not self.closed:
            self._response.close()
            self._response.release_conn()
        super().close()


def body_stream(
    response: BaseHTTPResponse, *, host: str, start: int = 0, length: int | None = None, as_it_comes: bool = False
) -> BinaryIO:
    """The body of a `READABLE` response to read once; closing it gives the connection up.

    Args:
        start, length: the part that was asked for (`range_header`); of a server that answers with the whole file the rest is left out.
        as_it_comes: a read hands on what is there, so that a caller may look at its deadline between a slow server's bytes.

    Raises:
        ProviderDown: the answer is another part.
    """
    body = Body(response, host=host, as_it_comes=as_it_comes)
    if response.status == 416:  # the file ends before the part
        body.close()
        return io.BytesIO()
    if response.status == 206 and not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
        body.close()
        raise ProviderDown(f"{host} answered with another part of the file than was asked for.")
    left = start if response.status == 200 else 0
    while left and (skipped := body.read(min(left, 256 * 1024))):
        left -= len(skipped)
    return cast(BinaryIO, body) if length is None else cut(body, length)
