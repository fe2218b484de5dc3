"""`dagster dev` over a test's warehouse: the UI, the daemon and their run workers, all gone when the block ends."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psutil

from mixpeek_dagster.launcher.launcher import WORKER_TAG
from tests.end_to_end.home import ROOT, Home

START_S = 120.0


@dataclass(frozen=True)
class Dev:
    """A running UI and daemon. `url` has no trailing slash."""

    url: str
    process: "subprocess.Popen[bytes]"

    def run_workers(self) -> list[int]:
        """Process ids of runs that are executing batches."""
        query = """{ runsOrError(filter: {statuses: [STARTED]}) { ... on Runs { results { tags { key value } } } } }"""
        runs = [{tag["key"]: tag["value"] for tag in run["tags"]} for run in graphql(self, query)["runsOrError"]["results"]]
        return [json.loads(tags[WORKER_TAG])["pid"] for tags in runs if WORKER_TAG in tags and "mixpeek/batch" in tags]

    def fork_server(self) -> int | None:
        """Process id of the fork server, if a run has started one; its children keep its command line."""
        family = psutil.Process(self.process.pid).children(recursive=True)
        return next((one.pid for one in family if _is_forked(one) and not _is_forked(one.parent())), None)


def _is_forked(process: psutil.Process | None) -> bool:
    try:
        return process is not None and "mixpeek_dagster.launcher.server" in process.cmdline()
    except psutil.Error:
        return False


@contextmanager
def running_dev(home: Home, **environment: str) -> Iterator[Dev]:
    """Start `dagster dev` with the repository's own dagster.yaml and workspace.yaml, and wait until it serves."""
    (home.folder / "dagster" / "dagster.yaml").write_text((ROOT / "dagster.yaml").read_text())
    port = free_port()
    command = [sys.executable, "-m", "dagster", "dev", "-w", str(ROOT / "workspace.yaml"), "-h", "127.0.0.1", "-p", str(port)]
    log = (home.folder / "dev.log").open("ab")
    env = {
        **home.env,
        "DAGSTER_STATE": str(home.folder / "dagster"),
        "DAGSTER_RUN_STATUS_SENSOR_PROCESS_LIMIT": "50",
        **environment,
    }
    process = subprocess.Popen(command, env=env, cwd=home.folder, stdout=log, stderr=log, start_new_session=True)
    try:
        url = f"http://127.0.0.1:{port}"
        _wait(url, process, home)
        yield Dev(url, process)
    finally:
        _stop(process)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait(url: str, process: "subprocess.Popen[bytes]", home: Home) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/server_info", timeout=2):
                return
        except OSError:
            time.sleep(0.3)
    raise AssertionError(f"dagster dev did not start: {(home.folder / 'dev.log').read_text(errors='replace')[-2000:]}")


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """End it and everything it started; some of that is in process groups of its own."""
    family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(timeout=8)
        except subprocess.TimeoutExpired:
            continue
    for child in family:
        try:
            child.kill()
        except psutil.Error:
            continue
    psutil.wait_procs(family, timeout=5)


def graphql(dev: Dev, query: str, **variables: Any) -> Any:
    """Ask the webserver's GraphQL API."""
    body = json.dumps({"query": query, "variables": variables}).encode()
    request = urllib.request.Request(f"{dev.url}/graphql", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)["data"]
