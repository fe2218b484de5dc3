"""The run launcher: Dagster's public API above, the fork server below, an interpreter of its own for a run where that fails."""

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
from dagster._core.launcher import CheckRunHealthResult, LaunchRunContext, RunLauncher, WorkerStatus
from dagster._grpc.types import ExecuteRunArgs
from dagster._serdes import ConfigurableClass, ConfigurableClassData, serialize_value

from mixpeek_dagster.launcher.fork_server import ForkServer, Unavailable
from mixpeek_dagster.launcher.workers import RunWorker, this_host

logger = logging.getLogger(__name__)

WORKER_TAG = "mixpeek/run_worker"
_TRY_AGAIN_S = 60.0


class ForkRunLauncher(RunLauncher[dg.DagsterInstance], ConfigurableClass):
    """Executes each run in a process forked from one that has imported Dagster and the definitions already.

    The process does what `dagster api execute_run` does, on the host of the process that launches (the daemon) and in its environment.
    Where none can be forked, the run gets an interpreter of its own and a warning.

    Args:
        fork: False starts an interpreter for every run. Default: True on Linux only; system libraries of macOS may not be used in a
            forked process, and Windows cannot fork.
        preload: what to import ahead. These modules must start no thread and open nothing when they are imported.
    """

    def __init__(
        self,
        fork: bool = sys.platform == "linux",
        preload: Sequence[str] = ("mixpeek_dagster.definitions",),
        inst_data: ConfigurableClassData | None = None,
    ) -> None:
        self._fork = fork
        self._preload = ["dagster._cli", *preload]
        self._inst_data = inst_data
        self._lock = threading.Lock()
        self._server: ForkServer | None = None
        self._not_before = 0.0
        self._spawned: list[subprocess.Popen[bytes]] = []
        super().__init__()  # type: ignore[no-untyped-call]

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        return self._inst_data

    @classmethod
    def config_type(cls) -> Any:
        return {"fork": dg.Field(dg.BoolSource, is_required=False), "preload": dg.Field([str], is_required=False)}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> "ForkRunLauncher":
        return cls(inst_data=inst_data, **config_value)

    def launch_run(self, context: LaunchRunContext) -> None:
        run = context.dagster_run
        origin = context.job_code_origin
        if origin is None:
            raise ValueError(f"Run {run.run_id} does not say which code it executes (job_code_origin), so it cannot be launched.")
        arguments = ["api", "execute_run", serialize_value(ExecuteRunArgs(origin, run.run_id, self._instance.get_ref()))]
        with self._lock:
            pid = self._forked(run, origin.executable_path, arguments) or self._started(origin.executable_path, arguments)
        self._instance.add_run_tags(run.run_id, {WORKER_TAG: RunWorker.of(pid).tag})

    def _forked(self, run: dg.DagsterRun, python: str, arguments: Sequence[str]) -> int | None:
        """The id of a forked process that executes the run; None if there cannot be one, with a warning where one was expected."""
        if not self._fork or python != sys.executable or time.monotonic() < self._not_before:
            return None
        try:
            return self._ask(arguments)
        except Unavailable as error:
            self._close()
            self._not_before = time.monotonic() + _TRY_AGAIN_S
            warning = f"Run {run.run_id} gets an interpreter of its own, and so will others for a minute: {error}."
            logger.warning(warning)
            self._instance.report_engine_event(warning, run, cls=type(self))
            return None
        except BaseException:
            self._close()
            raise

    def _ask(self, arguments: Sequence[str]) -> int:
        """Launch through the fork server; one that has ended, or whose code or environment is not today's, is replaced first."""
        if self._server is not None:
            try:
                if self._server.has_this_environment:
                    return self._server.launch(arguments)
            except Unavailable as error:
                logger.info("The fork server is replaced: %s.", error)
            self._close()
        self._server = ForkServer.start(serialize_value(self._instance.get_ref()), self._preload)
        return self._server.launch(arguments)

    def _started(self, python: str, arguments: Sequence[str]) -> int:
        """The id of a new interpreter that executes the run."""
        self._spawned = [process for process in self._spawned if process.poll() is None]
        self._spawned.append(subprocess.Popen([python, "-m", "dagster", *arguments]))
        return self._spawned[-1].pid

    def terminate(self, run_id: str) -> bool:
        """Interrupt the run's process, from any process of its host. False if it has ended or cannot be reached."""
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        self._instance.report_run_canceling(run)
        run = self._instance.get_run_by_id(run_id)  # its worker may have been recorded in between
        if run is None:
            return False
        if WORKER_TAG in run.tags and RunWorker.from_tag(run.tags[WORKER_TAG]).interrupt():
            return True
        self._instance.report_engine_event(
            f"The run cannot be interrupted: {self.check_run_worker_health(run).msg}", run, cls=type(self)
        )
        return False

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """RUNNING or NOT_FOUND on the run's host. UNKNOWN elsewhere, which run monitoring takes for the end of the run."""
        if WORKER_TAG not in run.tags:
            return CheckRunHealthResult(
                WorkerStatus.UNKNOWN, f"Run {run.run_id} has no process recorded in its tag {WORKER_TAG}."
            )
        worker = RunWorker.from_tag(run.tags[WORKER_TAG])
        if worker.is_alive:
            return CheckRunHealthResult(WorkerStatus.RUNNING, run_worker_id=str(worker.pid))
        if worker.is_here:
            return CheckRunHealthResult(WorkerStatus.NOT_FOUND, f"Process {worker.pid} of run {run.run_id} has ended.")
        message = f"Run {run.run_id} was started on host {worker.host}; from {this_host()} its process cannot be seen."
        return CheckRunHealthResult(WorkerStatus.UNKNOWN, message)

    def dispose(self) -> None:
        """End the fork server; the runs go on."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
