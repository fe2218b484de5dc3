"""A web server on loopback that answers as a test scripts it, for servers that misbehave."""

import contextlib
import io
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import parse_qs, urlsplit

from urllib3 import HTTPHeaderDict


@dataclass(frozen=True)
class Asked:
    """One request that the server got."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes = b""


@dataclass(frozen=True)
class Answer:
    """What to say. `cut` closes the connection after that many bytes of the body; `length` announces another length; `drip_s` are
    the seconds before every byte of the body, `drip_head_s` before every byte of what comes ahead of it."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int | None = None
    length: int | None = None
    drip_s: float = 0.0
    drip_head_s: float = 0.0


def part_of(body: bytes, asked: Asked) -> Answer:
    """The body, or the part that was asked for, as web servers answer `Range: bytes=first-last`."""
    first, dash, last = asked.headers.get("Range", "").removeprefix("bytes=").partition("-")
    if not dash:
        return Answer(body=body)
    start, end = int(first), min(int(last or len(body)), len(body) - 1)
    if start >= len(body):
        return Answer(416, b"", {"Content-Range": f"bytes */{len(body)}"})
    return Answer(206, body[start : end + 1], {"Content-Range": f"bytes {start}-{end}/{len(body)}"})


class Scripted:
    """A running server: `url`, `host` and an `other_host` that is the same server, what it was `asked`, and the client ports of its
    `connections`, and how many bytes it has `dripped`."""

    def __init__(self, port: int) -> None:
        self.host = f"127.0.0.1:{port}"
        self.other_host = f"localhost:{port}"
        self.url = f"http://{self.host}"
        self.asked: list[Asked] = []
        self.connections: set[int] = set()
        self.dripped = 0


@contextlib.contextmanager
def scripted(answer: Callable[[Asked], Answer]) -> Iterator[Scripted]:
    """Run a server that answers every request with `answer(asked)` until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version: ClassVar[str] = "HTTP/1.1"  # type: ignore[misc]  # the stub has it as an instance variable
        disable_nagle_algorithm: ClassVar[bool] = True  # else a body waits 40 ms behind its headers

        def handle(self) -> None:
            with contextlib.suppress(ConnectionError):  # the client may have hung up: no traceback among a command's words
                super().handle()

        def _respond(self) -> None:
            parts = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            asked = Asked(self.command, parts.path, query, HTTPHeaderDict(self.headers.items()), body)
            server.asked.append(asked)
            server.connections.add(self.client_address[1])
            said = answer(asked)
            self.send_response(said.status)
            for name, value in said.headers.items():
                self.send_header(name, value)
            if "Content-Length" not in said.headers:
                self.send_header("Content-Length", str(len(said.body) if said.length is None else said.length))
            wire, self.wfile = self.wfile, io.BytesIO()
            self.end_headers()
            head, self.wfile = self.wfile.getvalue(), wire
            with contextlib.suppress(OSError):  # the client may have hung up
                self._drip(head, said.drip_head_s)
                if self.command != "HEAD":
                    self._drip(said.body[: said.cut], said.drip_s)
            if said.cut is not None or said.length is not None:
                self.close_connection = True

        def _drip(self, data: bytes, each_s: float) -> None:
            if not each_s:
                self.wfile.write(data)
                return
            for byte in data:
                time.sleep(each_s)
                self.wfile.write(bytes([byte]))
                server.dripped += 1

        do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _respond  # the names that http.server calls

        def log_message(self, *_arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.daemon_threads = True
        server = Scripted(http.server_port)
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            http.shutdown()
            thread.join()
