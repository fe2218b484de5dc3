"""Where this server may connect to on a tenant's behalf: public addresses, and hosts that the operator allows.

Names are resolved once and the connection goes to the very address that was checked, so a name that changes its answer between
check and use (DNS rebinding) gains nothing. Every connection of this package to a URL that a tenant wrote goes through here.
"""

import io
import ipaddress
import math
import socket
import ssl
import time
from collections.abc import Collection
from functools import cache
from http.client import HTTPResponse
from typing import Any
from urllib.parse import SplitResult, urlsplit

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.util import Timeout

from mixpeek_dagster.errors import UrlRefused

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

NAT64 = ipaddress.ip_network("64:ff9b::/96")
PUBLIC_PORTS = frozenset({80, 443})
CONNECT_S = 10.0
READ_S = 60.0
"""So long may a server say nothing."""
HEADERS_S = 90.0
"""So long may the headers of an answer take, waiting for them included; a server may say a byte of them at a time."""

_REMEDY = "an operator can allow it in MIXPEEK_ALLOWED_HOSTS"


def is_public(address: Address) -> bool:
    """Whether an address is on the public internet, also when it wraps another one (`::ffff:`, 6to4, Teredo, NAT64)."""
    inner = _wrapped(address)
    if inner:
        return all(is_public(wrapped) for wrapped in inner)
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


def _wrapped(address: Address) -> list[Address]:
    inner: list[Address] = []
    if isinstance(address, ipaddress.IPv4Address):
        return inner
    if address.ipv4_mapped:
        inner.append(address.ipv4_mapped)
    if address.sixtofour:
        inner.append(address.sixtofour)
    if address.teredo:
        inner.extend(address.teredo)
    if address in NAT64:
        inner.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return inner


def is_allowed(host: str, port: int, allowed_hosts: Collection[str]) -> bool:
    """Whether the operator lets tenants reach this host although it may not be public; entries are `host` or `host:port`."""
    name = host.strip("[]").rstrip(".").lower()
    return name in allowed_hosts or f"{name}:{port}" in allowed_hosts


def check_url(url: str, *, allowed_hosts: Collection[str] = ()) -> SplitResult:
    """The parts of an http(s) URL that may be connected to, as far as the text can tell; addresses are checked on connecting.

    Raises:
        UrlRefused: another scheme, a user name in the URL, no host, a port other than 80 and 443.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError as error:
        raise UrlRefused(f"Not a URL: {error}.") from error
    host = parts.hostname
    if parts.scheme not in ("http", "https") or not host:
        raise UrlRefused("Only http:// and https:// URLs with a host can be reached.")
    if parts.username is not None or parts.password is not None:
        raise UrlRefused(f"The URL of {host} holds a user name or password: pass credentials in the connection instead.")
    try:
        host.encode("idna")
    except UnicodeError as error:
        raise UrlRefused("The URL's host is not a name that DNS can hold.") from error
    if any(character <= " " or character == "\\" for character in parts.netloc):
        raise UrlRefused("The URL's host holds a space, control character or backslash.")
    if port not in PUBLIC_PORTS and not is_allowed(host, port, allowed_hosts):
        raise UrlRefused(f"Port {port} of {host} is not open to tenants; {_REMEDY}.")
    literal = _literal(host)
    if literal is not None and not is_public(literal) and not is_allowed(host, port, allowed_hosts):
        raise UrlRefused(f"{host} is not a public address; {_REMEDY}.")
    return parts


def check_receiver(url: str, *, allowed_hosts: Collection[str] = ()) -> None:
    """Like `check_url`, for what is told of events: only https, but to hosts that the operator allows.

    Raises:
        UrlRefused: as `check_url`, or plain http.
    """
    parts = check_url(url, allowed_hosts=allowed_hosts)
    host, port = parts.hostname or "", parts.port or 80
    if parts.scheme != "https" and not is_allowed(host, port, allowed_hosts):
        raise UrlRefused(f"Webhooks need https; an operator can allow {host}:{port} in MIXPEEK_ALLOWED_HOSTS.")


def _literal(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None


def resolve(host: str, port: int, *, allowed_hosts: Collection[str] = ()) -> list[str]:
    """The addresses to connect to, in the resolver's order.

    Raises:
        UrlRefused: at least one of them is not public, and the operator did not allow the host.
        socket.gaierror: the name has no address.
    """
    found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))
    if not is_allowed(host, port, allowed_hosts):
        for address in addresses:
            if not is_public(ipaddress.ip_address(address.partition("%")[0])):
                raise UrlRefused(f"{host} resolves to an address that is not public; {_REMEDY}.")
    return addresses


def connect(host: str, port: int, *, timeout_s: float | None, allowed_hosts: Collection[str] = ()) -> socket.socket:
    """A TCP connection to the first checked address that answers."""
    failure: OSError = OSError(f"{host} has no address")
    for address in resolve(host, port, allowed_hosts=allowed_hosts):
        try:
            return socket.create_connection((address, port), timeout=timeout_s)
        except OSError as error:
            failure = error
    raise failure


class _Incoming(io.RawIOBase):
    """What comes over a connection, until a time on the monotonic clock."""

    def __init__(self, raw: io.RawIOBase) -> None:
        self._raw = raw
        self.until = math.inf

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if time.monotonic() > self.until:
            raise TimeoutError("The headers of an answer drip.")
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(HTTPResponse):
    """An answer whose headers take `HEADERS_S` at most."""

    def __init__(self, sock: socket.socket, *given: Any, **named: Any) -> None:
        super().__init__(sock, *given, **named)
        self._incoming = _Incoming(self.fp.detach())
        self.fp = io.BufferedReader(self._incoming)

    def begin(self) -> None:
        self._incoming.until = time.monotonic() + HEADERS_S
        super().begin()
        self._incoming.until = math.inf


def open_pools(*, allowed_hosts: Collection[str] = (), verify: bool = True, connections: int = 16) -> urllib3.PoolManager:
    """HTTP connection pools whose every connection goes to a checked address. They neither retry nor follow redirects.

    `verify` off skips the check of TLS certificates.
    """

    class _CheckedConnection(HTTPConnection):
        response_class = _Response

        def _new_conn(self) -> socket.socket:
            return _connect_for(self, allowed_hosts)

    class _CheckedTlsConnection(HTTPSConnection):
        response_class = _Response

        def _new_conn(self) -> socket.socket:
            return _connect_for(self, allowed_hosts)

    class _CheckedPool(HTTPConnectionPool):
        ConnectionCls = _CheckedConnection

    class _CheckedTlsPool(HTTPSConnectionPool):
        ConnectionCls = _CheckedTlsConnection

        def __init__(self, *given: Any, **named: Any) -> None:
            super().__init__(*given, **named, ssl_context=_tls(verify=verify))

    pools = urllib3.PoolManager(
        num_pools=8,
        maxsize=connections,
        retries=False,
        timeout=Timeout(connect=CONNECT_S, read=READ_S),
    )
    pools.pool_classes_by_scheme = {"http": _CheckedPool, "https": _CheckedTlsPool}
    return pools


@cache
def _tls(*, verify: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()  # reads the trusted roots: 20 ms and 2 MB, so once, and only for https
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _connect_for(connection: HTTPConnection, allowed_hosts: Collection[str]) -> socket.socket:
    timeout = connection.timeout if isinstance(connection.timeout, int | float) else CONNECT_S
    try:
        made = connect(
            connection.host, connection.port or connection.default_port, timeout_s=timeout, allowed_hosts=allowed_hosts
        )
    except socket.gaierror as error:
        raise NameResolutionError(connection.host, connection, error) from error
    except TimeoutError as error:
        raise ConnectTimeoutError(connection, f"no answer from {connection.host} within {timeout} s") from error
    except OSError as error:
        raise NewConnectionError(connection, f"cannot connect to {connection.host}: {error}") from error
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made
