"""The fork server: `python -m mixpeek_dagster.launcher.server FD`, started by `ForkServer` and by nobody else.

The first message on the socket FD says what to import. Then it takes one request at a time until the socket closes, and forks a child
for each that becomes `python -m dagster ARGUMENTS…`. It has one thread and holds open nothing that children must not share: no database,
channel or model.

A child answers by itself and then closes the socket. So a socket that closes without an answer proves that no child is left that might
execute the run, and its launcher may start the run in another way.
"""

import gc
import importlib
import json
import os
import runpy
import signal
import sys
import sysconfig
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from multiprocessing.connection import Connection, wait

import dagster as dg
from dagster._core.instance import InstanceRef
from dagster._grpc.types import ExecuteRunArgs
from dagster._serdes import deserialize_value

Task = Callable[[], None]
Sources = Mapping[str, tuple[int, int]]
"""Path of a source file → modification time in ns, size in bytes."""


def main() -> None:
    """Serve. A child returns from serving with its task, so that it ends as any interpreter does, with its exit handlers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the launcher, which then closes the socket, and for the runs
    connection = Connection(int(sys.argv[1]))
    os.set_inheritable(connection.fileno(), False)
    setup = json.loads(connection.recv_bytes())
    preload(setup["instance"], setup["modules"])
    task = Server(connection).serve()
    if task is not None:
        task()


def preload(instance: str, modules: Sequence[str]) -> None:
    """Import what runs import. Dagster imports its storage late, so the instance is opened and closed again.

    Raises:
        RuntimeError: An import started a thread, which the forked runs would lack, or left a file or connection open, which they
            would share.
    """
    before = set(os.listdir("/dev/fd"))
    for module in modules:
        importlib.import_module(module)
    with dg.DagsterInstance.from_ref(deserialize_value(instance, InstanceRef)) as opened:
        opened.get_runs_count()
    left_open = set(os.listdir("/dev/fd")) - before
    if threading.active_count() > 1 or left_open:
        raise RuntimeError(
            f"Importing {', '.join(modules)} started threads or left files open, so runs cannot be forked: {threading.enumerate()}, "
            f"{[_name_of(descriptor) for descriptor in left_open]}. Move that out of the import, or take the module out of preload."
        )
    gc.collect()
    gc.freeze()  # what a child's collections do not visit stays in memory shared with this process


def _name_of(descriptor: str) -> str:
    try:
        return os.readlink(f"/dev/fd/{descriptor}")
    except OSError:
        return descriptor


class Server:
    """One request at a time; `serve` returns in the server when the launcher is gone, and in every child with its task."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sources = on_disk(_own_sources())
        self._workers: dict[int, Sequence[str]] = {}
        self._ended, self._wakeup = os.pipe()
        os.set_blocking(self._wakeup, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wakeup, warn_on_full_buffer=False)
        self._answer(ready=os.getpid())

    def serve(self) -> Task | None:
        while True:
            ready = wait([self._connection, self._ended])
            if self._ended in ready:
                os.read(self._ended, 4096)
                if task := self._reap():
                    return task
            if self._connection in ready:
                try:
                    request = json.loads(self._connection.recv_bytes())
                except EOFError:
                    return None
                if task := self._launch(request["arguments"]):
                    return task

    def _launch(self, arguments: Sequence[str]) -> Task | None:
        now = on_disk(self._sources)
        if changed := [path for path, seen in self._sources.items() if now[path] != seen]:
            self._answer(stale=changed[0])
            return None
        try:
            pid = os.fork()
        except OSError as error:
            self._answer(error=f"{error.strerror}, so no process could be forked")
            return None
        if pid:
            self._workers[pid] = arguments
            return None
        self._answer(pid=os.getpid())
        self._leave()
        return partial(execute, arguments)

    def _reap(self) -> Task | None:
        """Let ended children go, and have a child look whether their runs ended, too: the server itself opens no database."""
        while (ended := _waited()) is not None:
            pid, status = ended
            arguments = self._workers.pop(pid, None)
            if arguments is None:
                continue
            try:
                is_child = not os.fork()
            except OSError:
                continue  # run monitoring will find it
            if is_child:
                self._leave()
                return partial(end, arguments, pid, os.waitstatus_to_exitcode(status))
        return None

    def _leave(self) -> None:
        """In a child: back to how an interpreter starts."""
        self._connection.close()
        signal.set_wakeup_fd(-1)
        os.close(self._ended)
        os.close(self._wakeup)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def _answer(self, **answer: object) -> None:
        self._connection.send_bytes(json.dumps(answer).encode())


def _waited() -> tuple[int, int] | None:
    """A child that has ended and its wait status."""
    try:
        pid, status = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return None
    return (pid, status) if pid else None


def _own_sources() -> list[str]:
    """The source files of loaded modules, without the standard library and installed packages."""
    installed = tuple(sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    files = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    return [file for file in files if file and not file.startswith(installed)]


def on_disk(paths: Sequence[str] | Sources) -> Sources:
    """The files as they are now; one that is gone has neither time nor size."""
    found = {}
    for path in paths:
        try:
            status = os.stat(path)
            found[path] = (status.st_mtime_ns, status.st_size)
        except OSError:
            found[path] = (0, 0)
    return found


def execute(arguments: Sequence[str]) -> None:
    """Be `python -m dagster ARGUMENTS…`."""
    sys.argv = ["dagster", *arguments]
    runpy.run_module("dagster", run_name="__main__")


def end(arguments: Sequence[str], pid: int, exit_code: int) -> None:
    """End the run of a worker that ended without ending it: it was killed, or canceled before it began."""
    args = deserialize_value(arguments[-1], ExecuteRunArgs)
    assert args.instance_ref is not None, "the launcher names the instance"
    with dg.DagsterInstance.from_ref(args.instance_ref) as instance:
        run = instance.get_run_by_id(args.run_id)
        if run is None or run.is_finished:
            return
        how = f"was killed by {signal.Signals(-exit_code).name}" if exit_code < 0 else f"exited with {exit_code}"
        message = f"The run's process (pid: {pid}) {how} and left the run {run.status.value}."
        if run.status is dg.DagsterRunStatus.CANCELING:
            instance.report_run_canceled(run, message)
        else:
            instance.report_run_failed(run, message)


if __name__ == "__main__":
    main()
