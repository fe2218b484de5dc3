"""A run's process, known by host, process id and start time: enough to find it again from any process of the host."""

import json
import os
import signal
import socket
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunWorker:
    """A process that executes a run. `started` distinguishes it from a later process with the same id."""

    host: str
    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> "RunWorker":
        """The worker that is process `pid` of this host; one that has ended already is never `alive`."""
        return cls(this_host(), pid, start_time(pid) or "")

    @classmethod
    def from_tag(cls, text: str) -> "RunWorker":
        return cls(**json.loads(text))

    @property
    def tag(self) -> str:
        """As a run's tag keeps it."""
        return json.dumps(asdict(self))

    @property
    def is_here(self) -> bool:
        """Whether it runs on this host; of another's processes nothing can be said."""
        return self.host == this_host()

    @property
    def is_alive(self) -> bool:
        """Whether a process with this id and start time runs here; should the host have been renamed since, it does all the same."""
        return bool(self.started) and start_time(self.pid) == self.started

    def interrupt(self) -> bool:
        """Ask it to cancel its run, as Ctrl-C would. False if it has ended, or runs on another host."""
        if not (self.is_here and self.is_alive):
            return False
        try:
            os.kill(self.pid, signal.SIGINT)
        except ProcessLookupError:
            return False
        return True


def this_host() -> str:
    return socket.gethostname()


def start_time(pid: int) -> str | None:
    """When process `pid` began: clock ticks since boot where there is /proc, else a date in UTC. None if it has ended."""
    if Path("/proc/self/stat").exists():
        try:
            # Fields of proc_pid_stat(5), counted behind the program's name, which may hold spaces and parentheses.
            fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            return None
        return None if fields[0] in "ZX" else fields[19]
    command = ["ps", "-o", "stat=,lstart=", "-p", str(pid)]
    said = subprocess.run(command, env={**os.environ, "LC_ALL": "C", "TZ": "UTC"}, capture_output=True, text=True, check=False)
    state, _, began = said.stdout.strip().partition(" ")
    return None if state[:1] in ("", "Z") else began.strip()
