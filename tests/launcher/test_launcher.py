"""Runs are executed by forked processes, by their own interpreters where that fails, and are found again whoever asks."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import pytest
import yaml
from dagster._core.launcher import WorkerStatus

from mixpeek_dagster.launcher.fork_server import ForkServer, Unavailable
from mixpeek_dagster.launcher.launcher import WORKER_TAG, ForkRunLauncher
from mixpeek_dagster.launcher.workers import RunWorker, start_time
from tests.launcher import jobs
from tests.waiting import until

ROOT = Path(__file__).parents[2]
Status = dg.DagsterRunStatus

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="runs are forked on Linux only"),
    pytest.mark.xdist_group("launcher"),
]


class Launches:
    """An instance with a fork launcher that imports nothing but Dagster ahead."""

    def __init__(self, instance: dg.DagsterInstance, folder: Path) -> None:
        self.instance = instance
        self.gate = folder / "gate"

    @property
    def launcher(self) -> ForkRunLauncher:
        launcher = self.instance.run_launcher
        assert isinstance(launcher, ForkRunLauncher)
        return launcher

    @property
    def server(self) -> ForkServer:
        server = self.launcher._server
        assert server is not None
        return server

    def launch(self, job: dg.JobDefinition) -> str:
        recon = dg.reconstructable(job)
        run = self.instance.create_run_for_job(job, job_code_origin=recon.get_python_origin())
        self.instance.launch_run(run.run_id, workspace=None)  # type: ignore[arg-type]
        return run.run_id

    def run(self, run_id: str) -> dg.DagsterRun:
        found = self.instance.get_run_by_id(run_id)
        assert found is not None
        return found

    def worker(self, run_id: str) -> RunWorker:
        return RunWorker.from_tag(self.run(run_id).tags[WORKER_TAG])

    def ended(self, run_id: str) -> dg.DagsterRunStatus:
        until(lambda: self.run(run_id).is_finished)
        return self.run(run_id).status

    def waiting(self) -> str:
        """A run that is executing and waits for `gate`."""
        run_id = self.launch(jobs.waits)
        until(lambda: "STEP_START" in {str(one.dagster_event_type and one.dagster_event_type.value) for one in self.log(run_id)})
        return run_id

    def log(self, run_id: str) -> list[dg.EventLogEntry]:
        return list(self.instance.all_logs(run_id))

    def said(self, run_id: str) -> str:
        return "\n".join(one.message or one.user_message for one in self.log(run_id))

    def output(self, run_id: str) -> str:
        (captured,) = [
            one.dagster_event.logs_captured_data
            for one in self.log(run_id)
            if one.dagster_event and one.dagster_event.event_type_value == "LOGS_CAPTURED"
        ]
        data = self.instance.compute_log_manager.get_log_data([run_id, "compute_logs", captured.file_key])
        return (data.stdout or b"").decode()


def opened(folder: Path, **config: Any) -> dg.DagsterInstance:
    launcher = {"module": "mixpeek_dagster.launcher", "class": "ForkRunLauncher", "config": {"preload": [], **config}}
    folder.mkdir(exist_ok=True)
    config = {"run_launcher": launcher, "run_monitoring": {"enabled": True}, "telemetry": {"enabled": False}}
    (folder / "dagster.yaml").write_text(yaml.safe_dump(config))
    return dg.DagsterInstance.from_config(str(folder))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launches]:
    """One launcher, and mostly one fork server, for the tests that do not need it to be new."""
    folder = tmp_path_factory.mktemp("launcher")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("WAIT_FOR", str(folder / "gate"))
        with opened(folder) as instance:
            yield Launches(instance, folder)


@pytest.fixture
def launches(shared: Launches) -> Iterator[Launches]:
    yield shared
    shared.gate.touch()
    until(lambda: all(run.is_finished for run in shared.instance.get_runs()))
    shared.gate.unlink()


def test_a_run_is_executed_by_a_child_of_the_fork_server_and_its_output_is_kept(launches: Launches) -> None:
    run_id = launches.launch(jobs.greets)
    assert launches.ended(run_id) is Status.SUCCESS
    pid = launches.worker(run_id).pid
    assert f"hello from {pid} of {launches.server.pid}" in launches.output(run_id)
    assert f"Started process for run (pid: {pid})" in launches.said(run_id)


def test_runs_share_the_server_and_leave_no_zombie(launches: Launches) -> None:
    first, second = launches.launch(jobs.greets), launches.launch(jobs.greets)
    server = launches.server.pid
    assert {launches.ended(first), launches.ended(second)} == {Status.SUCCESS}
    assert launches.server.pid == server
    assert launches.worker(first).pid != launches.worker(second).pid
    until(lambda: not psutil.Process(server).children())


def test_the_server_holds_nothing_open_and_sleeps(launches: Launches) -> None:
    launches.ended(launches.launch(jobs.greets))
    server = psutil.Process(launches.server.pid)
    until(lambda: not server.children())
    assert server.open_files() == [] or all("/dev/" in file.path or file.path.endswith(".log") for file in server.open_files())
    assert all(one.family.name == "AF_UNIX" for one in server.net_connections("all"))
    wakes = []
    for _ in range(3):
        time.sleep(1)
        wakes.append(server.num_ctx_switches().voluntary)
    assert wakes[2] == wakes[1], "it woke up without a reason"


def test_any_process_of_the_host_sees_and_cancels_a_run(launches: Launches) -> None:
    run_id = launches.waiting()
    with dg.DagsterInstance.from_ref(launches.instance.get_ref()) as elsewhere:
        assert elsewhere.run_launcher.check_run_worker_health(launches.run(run_id)).status is WorkerStatus.RUNNING
        assert elsewhere.run_launcher.terminate(run_id)
        assert launches.ended(run_id) is Status.CANCELED
        until(lambda: not launches.worker(run_id).is_alive)
        assert elsewhere.run_launcher.check_run_worker_health(launches.run(run_id)).status is WorkerStatus.NOT_FOUND
        assert not elsewhere.run_launcher.terminate(run_id)


def test_a_killed_process_fails_its_run_at_once(launches: Launches) -> None:
    run_id = launches.waiting()
    os.kill(launches.worker(run_id).pid, signal.SIGKILL)
    assert launches.ended(run_id) is Status.FAILURE
    assert "was killed by SIGKILL and left the run STARTED" in launches.said(run_id)


def test_a_run_canceled_before_it_began_ends_canceled(launches: Launches) -> None:
    run_id = launches.launch(jobs.waits)
    launches.launcher.terminate(run_id)
    assert launches.ended(run_id) is Status.CANCELED


def test_a_killed_fork_server_is_replaced_and_its_runs_go_on(launches: Launches) -> None:
    run_id, server = launches.waiting(), launches.server.pid
    os.kill(server, signal.SIGKILL)
    assert launches.ended(launches.launch(jobs.greets)) is Status.SUCCESS
    assert launches.server.pid != server
    assert launches.launcher.check_run_worker_health(launches.run(run_id)).status is WorkerStatus.RUNNING
    launches.gate.touch()
    assert launches.ended(run_id) is Status.SUCCESS


def test_another_environment_is_a_fresh_server(launches: Launches, monkeypatch: pytest.MonkeyPatch) -> None:
    launches.ended(launches.launch(jobs.greets))
    server = launches.server.pid
    monkeypatch.setenv("GREETING", "somebody else")
    run_id = launches.launch(jobs.greets)
    assert launches.ended(run_id) is Status.SUCCESS
    assert "somebody else" in launches.output(run_id)
    assert launches.server.pid != server


def test_changed_code_is_a_fresh_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{tmp_path}")
    module = tmp_path / "changing.py"
    module.write_text("import os\nos.environ['GREETING'] = 'the old code'\n")
    with opened(tmp_path / "home", preload=["changing"]) as instance:
        launches = Launches(instance, tmp_path)
        old = launches.launch(jobs.greets)
        server = launches.server.pid
        again = launches.launch(jobs.greets)
        assert launches.server.pid == server
        module.write_text("import os\nos.environ['GREETING'] = 'the code of today'\n")
        new = launches.launch(jobs.greets)
        assert launches.server.pid != server
        assert [launches.ended(one) for one in (old, again, new)] == [Status.SUCCESS] * 3
        assert "the old code" in launches.output(old)
        assert "the old code" in launches.output(again)
        assert "the code of today" in launches.output(new)


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("raise RuntimeError('broken import')", "ended without an answer"),
        (
            "import threading, time; threading.Thread(target=time.sleep, args=(30,), daemon=True).start()",
            "ended without an answer",
        ),
        (
            "import sqlite3; kept = sqlite3.connect(__file__ + '.db'); kept.execute('CREATE TABLE t (x)')",
            "ended without an answer",
        ),
    ],
    ids=["broken", "a thread", "a database"],
)
def test_a_module_that_cannot_be_forked_from_costs_an_interpreter_for_each_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, why: str, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{tmp_path}")
    (tmp_path / "unfit.py").write_text(code)
    with opened(tmp_path / "home", preload=["unfit"]) as instance:
        launches = Launches(instance, tmp_path)
        run_id = launches.launch(jobs.greets)
        assert launches.launcher._server is None
        assert launches.ended(run_id) is Status.SUCCESS
        assert "gets an interpreter of its own" in launches.said(run_id)
        assert why in launches.said(run_id)
    assert ("broken import" if "broken" in code else "runs cannot be forked") in capfd.readouterr().err


def test_without_forks_a_run_has_its_own_interpreter_and_can_be_canceled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("WAIT_FOR", str(tmp_path / "gate"))
    with opened(tmp_path / "home", fork=False) as instance:
        launches = Launches(instance, tmp_path)
        run_id = launches.waiting()
        assert "api execute_run" in " ".join(psutil.Process(launches.worker(run_id).pid).cmdline())
        assert launches.launcher.terminate(run_id)
        assert launches.ended(run_id) is Status.CANCELED
        until(lambda: not launches.worker(run_id).is_alive)  # a zombie is not alive


def test_the_server_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    program = f"""if True:
        import time, dagster as dg
        from dagster._serdes import serialize_value
        from mixpeek_dagster.launcher.fork_server import ForkServer
        with dg.DagsterInstance.local_temp({str(tmp_path)!r}) as instance:
            print(ForkServer.start(serialize_value(instance.get_ref()), ["dagster._cli"]).pid, flush=True)
            time.sleep(60)"""
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        server = int(parent.stdout.readline())
        assert start_time(server)
        parent.kill()
        until(lambda: start_time(server) is None)


def test_a_run_of_another_host_is_unknown_and_says_where_it_is(launches: Launches) -> None:
    run_id = launches.waiting()
    there = json.dumps({"host": "elsewhere", "pid": 4_000_000, "started": "1"})
    launches.instance.add_run_tags(run_id, {WORKER_TAG: there})
    health = launches.launcher.check_run_worker_health(launches.run(run_id))
    assert health.status is WorkerStatus.UNKNOWN
    assert "elsewhere" in str(health.msg)
    assert not launches.launcher.terminate(run_id)
    assert "elsewhere" in launches.said(run_id)


def test_a_process_id_that_was_given_to_another_process_is_not_the_worker() -> None:
    me = RunWorker.of(os.getpid())
    assert me.is_alive
    assert RunWorker.from_tag(me.tag) == me
    later = RunWorker(me.host, me.pid, me.started + "0")
    assert not later.is_alive
    assert not later.interrupt()
    assert not RunWorker.of(4_000_000).is_alive


def test_a_server_that_does_not_answer_is_killed_and_the_run_is_not_taken(
    launches: Launches, monkeypatch: pytest.MonkeyPatch
) -> None:
    launches.ended(launches.launch(jobs.greets))
    server = launches.server
    monkeypatch.setattr("mixpeek_dagster.launcher.fork_server.ANSWER_S", 0.5)
    os.kill(server.pid, signal.SIGSTOP)
    with pytest.raises(Unavailable, match="without an answer"):
        server.launch(["--version"])
    assert launches.ended(launches.launch(jobs.greets)) is Status.SUCCESS
    assert launches.server.pid != server.pid
