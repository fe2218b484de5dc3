"""The official Python SDK reads our answers."""

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn

from mixpeek_dagster.api import create_app
from mixpeek_dagster.pipeline.keys import create_key
from mixpeek_dagster.pipeline.warehouse import Warehouse

PROGRAM = Path(__file__).with_name("sdk_program.py")
pytestmark = pytest.mark.sdk


@pytest.fixture
def served(warehouse: Warehouse) -> Iterator[str]:
    """The API on a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(create_app(warehouse), host="127.0.0.1", port=port, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(timeout=20)


def test_the_official_sdk_reads_every_answer(sdk_python: str, served: str, warehouse: Warehouse) -> None:
    token = create_key(warehouse, name="sdk").token
    done = subprocess.run(
        [sdk_python, str(PROGRAM), served, token], capture_output=True, text=True, timeout=120, check=False, cwd=PROGRAM.parent
    )
    assert done.returncode == 0, done.stderr[-3000:]
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["create namespace"] == "NamespaceModel"
    assert seen["create sync"] == "SyncConfigurationModel"
    assert seen["list objects"] == "ListObjectsResponse"
    assert seen["missing bucket"] == "NotFoundException"
    assert len(seen) >= 45, sys.version
