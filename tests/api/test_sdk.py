"""The official Python SDK reads our answers."""

import json
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import uvicorn

from mixpeek_dagster.api import create_app
from mixpeek_dagster.pipeline.batches import Superseded
from mixpeek_dagster.pipeline.keys import create_key
from mixpeek_dagster.pipeline.warehouse import Warehouse
from tests.api.running import run_all

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


@pytest.fixture
def processed(warehouse: Warehouse) -> Iterator[None]:
    """Submitted batches are run, as Dagster would."""
    stopped = threading.Event()

    def work() -> None:
        while not stopped.wait(0.05):
            with suppress(Superseded):  # the program cancels some
                run_all(warehouse)

    thread = threading.Thread(target=work)
    thread.start()
    yield
    stopped.set()
    thread.join(timeout=20)


@pytest.mark.usefixtures("processed")
def test_the_official_sdk_reads_every_answer(sdk_python: str, served: str, warehouse: Warehouse) -> None:
    token = create_key(warehouse, name="sdk").token
    done = subprocess.run(
        [sdk_python, str(PROGRAM), served, token], capture_output=True, text=True, timeout=270, check=False, cwd=PROGRAM.parent
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    seen = told["seen"]
    assert seen["NamespacesApi.create_namespace"] == "NamespaceModel"
    assert seen["BucketSyncsApi.create_sync_configuration_buckets"] == "SyncConfigurationModel"
    assert seen["missing bucket"] == "NotFoundException"
    assert told["never_called"] == [], "the server has operations of the SDK that this test does not call"
