"""The official SDK drives the whole quickstart against a live server, with Dagster processing behind it."""

import json
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.api import KEY, running_api
from tests.end_to_end.dev import running_dev
from tests.end_to_end.home import Home
from tests.servers import S3Server, s3_client

PROGRAM = Path(__file__).with_name("sdk_quickstart.py")
pytestmark = [pytest.mark.sdk, pytest.mark.xdist_group("dev"), pytest.mark.timeout(600)]


@pytest.fixture
def receiver() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Where webhooks go: its host, and what came."""
    told: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            told.append({**json.loads(body), "signature": self.headers["X-Mixpeek-Signature"]})
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}", told
    server.shutdown()
    server.server_close()


def test_the_quickstart_from_namespace_to_search(
    sdk_python: str, moto: S3Server, receiver: tuple[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    host, told = receiver
    s3 = s3_client(moto)
    s3.create_bucket(Bucket="quickstart-shelf")
    for name, text in {"lamp.txt": "A brass lamp for the desk", "deep/rug.txt": "A woven rug"}.items():
        s3.put_object(Bucket="quickstart-shelf", Key=name, Body=text.encode())
    home = Home(tmp_path)
    home.env["MIXPEEK_ALLOWED_HOSTS"] = f"{moto.host},{host}"
    with running_dev(home), running_api(home) as api:
        s3_arguments = [moto.url, moto.access_key_id, moto.secret_access_key, "quickstart-shelf"]
        command = [sdk_python, str(PROGRAM), str(api.base_url).rstrip("/"), KEY, *s3_arguments, f"http://{host}/hook"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False, cwd=PROGRAM.parent)
        print(done.stdout)
        assert done.returncode == 0, done.stderr[-3000:]
        seen = json.loads(done.stdout.splitlines()[-1])
        batches = {one["metadata"]["batch_id"] for one in _wait_for(told, 3)}
    assert seen["batch_id"] in batches
    assert all(one["signature"].startswith("t=") for one in told)


def _wait_for(told: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """What was delivered, once that is so much; the sensor that delivers ticks every ten seconds."""
    waited = threading.Event()
    for _ in range(600):
        if len(told) >= count:
            break
        waited.wait(0.1)
    assert len(told) >= count, told
    return told
