"""Runs of `dagster dev` are forked: they can be canceled in the UI, survive what forked them, and nothing stays when it is stopped."""

import os
import signal
import sys
from pathlib import Path

import psutil
import pytest

from mixpeek_dagster.models.batches import BatchStatus
from tests.end_to_end.dev import graphql, running_dev
from tests.end_to_end.home import Home
from tests.end_to_end.test_dev import _status, _submit
from tests.waiting import until

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="runs are forked on Linux only"),
    pytest.mark.xdist_group("dev-launcher"),
    pytest.mark.timeout(400),
]

RUNS = """{ runsOrError { ... on Runs { results { runId status canTerminate } } } }"""
TERMINATE = """mutation($id: String!) { terminateRun(runId: $id) {
    __typename ... on TerminateRunFailure { message } ... on PythonError { message } } }"""


def test_runs_are_forked_canceled_and_replaced_and_leave_with_dagster_dev(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.write_texts(200)
    home.stub_library(sleep_s=0.05)
    home.command("run", "--now", "--quiet")
    with running_dev(home) as dev:
        # Canceled in the UI, by the webserver, whose process did not start the run.
        _submit(home, 200)
        (worker,) = until(dev.run_workers)
        server = dev.fork_server()
        assert psutil.Process(worker).ppid() == server
        (run,) = [one for one in graphql(dev, RUNS)["runsOrError"]["results"] if one["status"] == "STARTED"]
        assert run["canTerminate"]
        done = graphql(dev, TERMINATE, id=run["runId"])["terminateRun"]
        assert done["__typename"] == "TerminateRunSuccess", done
        until(
            lambda: (
                {one["runId"]: one["status"] for one in graphql(dev, RUNS)["runsOrError"]["results"]}[run["runId"]] == "CANCELED"
            )
        )

        # The fork server is killed while a run is executing: the run goes on, and the next one gets another server.
        batch = _submit(home, 100)
        until(dev.run_workers)
        assert dev.fork_server() == server
        os.kill(server, signal.SIGKILL)
        until(lambda: _status(home, batch) is BatchStatus.COMPLETED)
        batch = _submit(home, 1)
        until(lambda: _status(home, batch) is BatchStatus.COMPLETED)
        assert dev.fork_server() not in (None, server)
        with home.warehouse.catalog.reading() as records:
            assert records.batches.parts(batch.batch_id)[0].attempt == 1

        # The daemon is killed: `dagster dev` ends, and so does everything that it started.
        family = psutil.Process(dev.process.pid).children(recursive=True)
        (daemon,) = [one for one in family if _is_daemon(one)]
        daemon.kill()
        assert dev.process.wait(timeout=120) is not None
        _, alive = psutil.wait_procs(family, timeout=30)
        assert alive == []


def test_ctrl_c_ends_the_runs_too(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.write_texts(200)
    home.stub_library(sleep_s=0.1)
    home.command("run", "--now", "--quiet")
    with running_dev(home) as dev:
        batch = _submit(home, 200)
        until(dev.run_workers)
        family = psutil.Process(dev.process.pid).children(recursive=True)
        os.killpg(dev.process.pid, signal.SIGINT)
        assert dev.process.wait(timeout=120) is not None
        _, alive = psutil.wait_procs(family, timeout=30)
        assert alive == []
    assert not _status(home, batch).is_terminal  # the next `dagster dev` goes on with it


def _is_daemon(process: psutil.Process) -> bool:
    try:
        return "dagster._daemon" in process.cmdline()
    except psutil.NoSuchProcess:  # it ended just now, or waits for its parent to notice
        return False
