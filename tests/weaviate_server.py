"""A real Weaviate for tests, as a pytest plugin: `pytest_plugins = ["tests.weaviate_server"]`, then ask for `weaviate_server`.

The program is the one that weaviate-client's embedded mode downloads; without it the tests that need it are skipped.
"""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from hashlib import sha256
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

VERSION = "1.39.0"
READY_S = 60.0


def program() -> Path:
    """Where weaviate-client's embedded mode keeps this version, there or not."""
    from weaviate.embedded import EmbeddedOptions

    tag = f"v{VERSION}"
    return Path(EmbeddedOptions().binary_path) / f"weaviate-{tag}-{sha256(tag.encode()).hexdigest()}"


class WeaviateServer:
    """One server process with its own data folder; it may be killed and started again on the same data and ports."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.http_port, self.grpc_port, self._gossip, self._data, self._raft, self._raft_rpc = _free_ports()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self, *, async_indexing: bool = False) -> None:
        """Returns when it answers. With `async_indexing` a search may miss what was written in the last seconds."""
        environment = {
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(self._folder),
            "ASYNC_INDEXING": str(async_indexing).lower(),
            "AUTHENTICATION_ANONYMOUS_ACCESS_ENABLED": "true",
            "CLUSTER_ADVERTISE_ADDR": "127.0.0.1",
            "CLUSTER_BIND_ADDR": "127.0.0.1",
            "CLUSTER_DATA_BIND_PORT": str(self._data),
            "CLUSTER_GOSSIP_BIND_PORT": str(self._gossip),
            "CLUSTER_HOSTNAME": "test",
            "CLUSTER_IN_LOCALHOST": "true",
            "DISABLE_TELEMETRY": "true",
            "DISK_USE_READONLY_PERCENTAGE": "0",
            "ENABLE_MODULES": "",
            "API_BASED_MODULES_DISABLED": "true",
            "GO_PROFILING_DISABLE": "true",
            "GRPC_PORT": str(self.grpc_port),
            "LOG_LEVEL": "warning",
            "PERSISTENCE_DATA_PATH": str(self._folder / "data"),
            "RAFT_BOOTSTRAP_EXPECT": "1",
            "RAFT_INTERNAL_RPC_PORT": str(self._raft_rpc),
            "RAFT_JOIN": f"test:{self._raft}",
            "RAFT_PORT": str(self._raft),
            "RAFT_TIMEOUTS_MULTIPLIER": "1",
        }
        command = [str(program()), "--host", "127.0.0.1", "--port", str(self.http_port), "--scheme", "http"]
        with (self._folder / "weaviate.log").open("ab") as log:
            # A session of its own, so that it and whatever it starts can be ended together.
            self._process = subprocess.Popen(
                command,
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,  # one system call, no locks
            )
        self._wait_until_ready()

    def kill(self) -> None:
        """End the process at once, as a crash would."""
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None

    def _wait_until_ready(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                with (
                    urlopen(f"{self.url}/v1/.well-known/ready", timeout=2),
                    socket.create_connection(("127.0.0.1", self.grpc_port)),
                ):
                    return
            except (URLError, OSError):
                time.sleep(0.1)
        log = (self._folder / "weaviate.log").read_text(errors="replace")[-2_000:]
        self.kill()
        raise RuntimeError(f"Weaviate did not become ready within {READY_S:.0f} s:\n{log}")


_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def _die_with_parent() -> None:
    """Let the kernel end the server when pytest itself is killed."""
    pr_set_pdeathsig = 1
    assert _libc is not None
    _libc.prctl(pr_set_pdeathsig, signal.SIGKILL)


def _free_ports() -> list[int]:
    """Two free ports, then four in a row: Weaviate expects data after gossip, and RAFT's calls after RAFT."""
    with ExitStack() as held:

        def hold(port: int = 0) -> int:
            listener = held.enter_context(socket.socket())
            listener.bind(("127.0.0.1", port))
            return int(listener.getsockname()[1])

        pair = [hold(), hold()]
        for _ in range(100):
            first = hold()
            with suppress(OSError, OverflowError):
                return [*pair, first, *(hold(first + step) for step in (1, 2, 3))]
    raise RuntimeError("found no four free ports in a row")


@pytest.fixture(scope="session")
def weaviate_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WeaviateServer]:
    """A running server, empty when the session starts. A test that kills it starts it again."""
    pytest.importorskip("weaviate")
    if not os.access(program(), os.X_OK):
        pytest.skip(f"no Weaviate server; run once with internet: weaviate.connect_to_embedded(version='{VERSION}')")
    server = WeaviateServer(tmp_path_factory.mktemp("weaviate"))
    server.start()
    yield server
    server.kill()
