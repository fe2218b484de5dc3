"""`mixpeek-dagster serve` over a test's warehouse, and a client with a key that is valid there."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from tests.end_to_end.dev import free_port
from tests.end_to_end.home import CLI, ROOT, Home

KEY = "sk_test_of_this_machine_only"
START_S = 60.0


@contextmanager
def running_api(home: Home, **environment: str) -> Iterator[httpx.Client]:
    """Start the REST API, and wait until it answers; requests that fail raise."""
    port = free_port()
    env = {**home.env, "MIXPEEK_API_KEY": KEY, "MIXPEEK_LOCAL_ROOTS": str(home.folder), **environment}
    log = (home.folder / "api.log").open("ab")
    command = [*CLI, "serve", "--port", str(port)]
    process = subprocess.Popen(command, env=env, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
    headers = {"Authorization": f"Bearer {KEY}"}
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60, trust_env=False) as client:
            _wait(client, process, home)
            client.event_hooks["response"] = [_check]
            yield client
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        log.close()


def _check(response: httpx.Response) -> None:
    response.read()
    assert response.is_success, f"{response.request.method} {response.request.url} → {response.status_code}: {response.text}"


def _wait(client: httpx.Client, process: "subprocess.Popen[bytes]", home: Home) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if client.get("/v1/health/liveness").is_success:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise AssertionError(f"the API did not start: {(home.folder / 'api.log').read_text(errors='replace')[-2000:]}")
