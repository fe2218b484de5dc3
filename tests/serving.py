"""The REST API in a process of its own, and a client that keeps its connection: for tests and benchmarks that burden it."""

import http.client
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

from tests.end_to_end.dev import free_port
from tests.end_to_end.home import Home

KEY = "sk_for_tests_of_a_served_api"
START_S = 60.0
KEPT_S = 4.0


@dataclass
class Caller:
    """One client of a served API, with one connection. Not for use by several threads."""

    port: int
    namespace: str = ""
    _connection: http.client.HTTPConnection | None = field(default=None, repr=False)
    _used_at: float = 0.0

    def send(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and parsed answer."""
        status, answer = self.exchange(method, path, None if body is None else json.dumps(body).encode())
        return status, json.loads(answer) if answer else None

    def exchange(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Status and answer as bytes; what a measurement times."""
        if time.monotonic() - self._used_at > KEPT_S:  # the server closes what is idle for 5 s
            self.close()
        if self._connection is None:
            self._connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=180)
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json", "X-Namespace": self.namespace}
        try:
            self._connection.request(method, path, body, headers)
            answer = self._connection.getresponse()
            told = answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            self.close()
            raise
        self._used_at = time.monotonic()
        return told

    def post(self, path: str, body: Any) -> Any:
        """The answer of a POST that succeeds."""
        status, answer = self.send("POST", path, body)
        assert 200 <= status < 300, (path, status, answer)
        return answer

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def serving(home: Home) -> Iterator[int]:
    """`mixpeek-dagster serve` over a home, without a rate limit, until the block ends; the port it listens on."""
    port = free_port()
    home.env |= {"MIXPEEK_API_KEY": KEY, "MIXPEEK_RATE_LIMIT_PER_MINUTE": "0"}
    process = home.start("serve", "--port", str(port), "--log-level", "warning")
    try:
        _wait(port, process, home)
        yield port
    finally:
        _stop(process)


def _wait(port: int, process: "subprocess.Popen[bytes]", home: Home) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with Caller(port) as caller:
                if caller.exchange("GET", "/v1/health")[0] == 200:
                    return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"the API did not start: {(home.folder / 'output.log').read_text(errors='replace')[-2000:]}")


def _stop(process: "subprocess.Popen[bytes]") -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            os.killpg(process.pid, number)
        try:
            process.wait(timeout=10)
            return
        except subprocess.TimeoutExpired:
            continue
