"""The launcher's side of the fork server: start it, ask it for a process, tell why it could not give one."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

PROGRAM = "mixpeek_dagster.launcher.server"
START_S = 60.0
ANSWER_S = 30.0


class Unavailable(Exception):
    """The fork server did not take the run, and no process of its executes it. The message says why."""


class ForkServer:
    """A running fork server; it ends when this is closed or this process ends, and the runs it forked go on."""

    def __init__(self, process: "subprocess.Popen[bytes]", connection: Connection) -> None:
        self._process = process
        self._connection = connection
        self._environment = dict(os.environ)

    @classmethod
    def start(cls, instance: str, modules: Sequence[str]) -> "ForkServer":
        """Start one and wait until it has imported `modules`.

        Args:
            instance: Dagster's serialized reference to the instance of the runs.

        Raises:
            Unavailable: It ended, or was not ready within a minute.
        """
        ours, its = Pipe()
        with its:
            command = [sys.executable, "-m", PROGRAM, str(its.fileno())]
            server = cls(subprocess.Popen(command, pass_fds=[its.fileno()]), ours)
        try:
            server._ask(START_S, instance=instance, modules=modules)
        except BaseException:
            server.close()
            raise
        return server

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def has_this_environment(self) -> bool:
        """Whether the environment variables are still those that it was started with."""
        return self._environment == dict(os.environ)

    def launch(self, arguments: Sequence[str]) -> int:
        """Fork a process that becomes `python -m dagster ARGUMENTS…`; its id.

        Raises:
            Unavailable: The server has ended, its source code has changed, or it cannot fork. Close it.
        """
        answer = self._ask(ANSWER_S, arguments=arguments)
        if "stale" in answer:
            raise Unavailable(f"{answer['stale']} has changed")
        if "error" in answer:
            raise Unavailable(str(answer["error"]))
        return int(answer["pid"])

    def _ask(self, timeout_s: float, **question: object) -> Mapping[str, Any]:
        """The answer. Once the server is killed, the socket stays silent only while a child lives that has yet to answer."""
        try:
            self._connection.send_bytes(json.dumps(question).encode())
            if not self._connection.poll(timeout_s):
                self._process.kill()
                if not self._connection.poll(timeout_s):
                    raise RuntimeError(
                        f"A process of the fork server (pid: {self.pid}) has not answered for {2 * timeout_s:.0f} s."
                    )
            return dict(json.loads(self._connection.recv_bytes()))
        except (EOFError, OSError) as error:
            raise Unavailable(f"the fork server (pid: {self.pid}) ended without an answer; its output may say why") from error

    def close(self) -> None:
        """End it; runs that it forked go on."""
        self._connection.close()
        self._process.kill()
        self._process.wait()
