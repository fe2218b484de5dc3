"""What may be connected to on a tenant's behalf."""

import ipaddress
import socket

import pytest

from mixpeek_dagster.errors import Invalid, UrlRefused
from mixpeek_dagster.settings import Settings
from mixpeek_dagster.storage.egress import check_url, connect, is_public, resolve


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("240.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("::", False),
        ("fe80::1", False),
        ("fd00::1", False),
        ("ff02::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:8.8.8.8", True),
        ("2002:7f00:1::", False),  # 6to4 of 127.0.0.1
        ("64:ff9b::7f00:1", False),  # NAT64 of 127.0.0.1
        ("64:ff9b::808:808", True),  # NAT64 of 8.8.8.8
        ("2001:0:4136:e378:8000:63bf:80ff:fffe", False),  # Teredo of 127.0.0.1
    ],
)
def test_only_public_addresses_are_public_however_they_are_wrapped(address: str, public: bool) -> None:
    assert is_public(ipaddress.ip_address(address)) is public


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://169.254.169.254/latest/meta-data",
        "http://user:secret@example.com/",
        "http://user@example.com/",
        "ftp://example.com/",
        "file:///etc/passwd",
        "gopher://example.com/",
        "http:///path",
        "http://",
        "http://example.com:22/",
        "http://example.com:99999/",
        "http://[broken/",
        "http://exa mple.com/",
        "http://example.com\\@127.0.0.1/",
        "http://" + "a" * 64 + ".example/",
        "http://a..example/",
        "//example.com/",
        "example.com",
    ],
)
def test_urls_that_can_be_told_to_be_wrong_are_refused(url: str) -> None:
    with pytest.raises(UrlRefused) as raised:
        check_url(url)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    "url", ["http://example.com/", "https://example.com/a?b=c", "https://example.com:443/", "http://8.8.8.8/"]
)
def test_public_urls_pass(url: str) -> None:
    assert check_url(url).hostname


def test_an_allowed_host_passes_on_its_port_only() -> None:
    check_url("http://127.0.0.1:9000/", allowed_hosts={"127.0.0.1"})
    check_url("http://127.0.0.1:9000/", allowed_hosts={"127.0.0.1:9000"})
    check_url("http://[::1]:9000/", allowed_hosts={"::1"})
    with pytest.raises(UrlRefused):
        check_url("http://127.0.0.1:9001/", allowed_hosts={"127.0.0.1:9000"})


@pytest.mark.parametrize(
    ("written", "url"),
    [
        ("[::1]:9000", "http://[::1]:9000/"),
        ("[::1]", "http://[::1]:9000/"),
        ("::1", "http://[::1]:9000/"),
        ("MinIO:9000", "http://minio:9000/"),
        ("minio", "http://MinIO:9000/"),
        ("minio.:9000", "http://minio:9000/"),
        (" a.example , MinIO. ,", "http://minio:9000/"),
    ],
)
def test_the_operator_may_write_hosts_as_people_do(written: str, url: str) -> None:
    settings = Settings.from_env({"MIXPEEK_ALLOWED_HOSTS": written})
    check_url(url, allowed_hosts=settings.allowed_hosts)
    with pytest.raises(UrlRefused):
        check_url("http://127.0.0.1:9000/", allowed_hosts=settings.allowed_hosts)


@pytest.mark.parametrize("written", ["http://minio:9000", "10.0.0.0/8", "minio:", "minio:port", "[::1", "mi nio", "*.example"])
def test_what_is_no_host_is_no_allowed_host(written: str) -> None:
    with pytest.raises(Invalid, match="MIXPEEK_ALLOWED_HOSTS"):
        Settings.from_env({"MIXPEEK_ALLOWED_HOSTS": f"localhost,{written}"})


@pytest.mark.parametrize("host", ["localhost", "127.1", "2130706433", "0x7f000001"])
def test_names_and_odd_spellings_of_loopback_are_refused(host: str) -> None:
    try:
        socket.getaddrinfo(host, 80)
    except socket.gaierror:
        pytest.skip("this resolver does not know the spelling")
    with pytest.raises(UrlRefused):
        resolve(host, 80)


def test_one_private_address_among_public_ones_refuses_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80)) for address in ("8.8.8.8", "10.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_a, **_k: answers)
    with pytest.raises(UrlRefused):
        resolve("mixed.example", 80)


def test_the_connection_goes_to_the_address_that_was_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that turns to loopback after the check (DNS rebinding) is not asked a second time."""
    asked = []
    real = socket.getaddrinfo

    def rebinding(host: str, port: int, *arguments: object, **options: object) -> object:
        if host == "rebinding.example":
            asked.append(host)
            address = "8.8.8.8" if len(asked) == 1 else "127.0.0.1"
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]
        return real(host, port)

    tried = []

    def refuse(address: tuple[str, int], **_options: object) -> socket.socket:
        tried.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    monkeypatch.setattr(socket, "create_connection", refuse)
    with pytest.raises(ConnectionRefusedError):
        connect("rebinding.example", 80, timeout_s=1)
    assert tried == [("8.8.8.8", 80)]
    assert len(asked) == 1
