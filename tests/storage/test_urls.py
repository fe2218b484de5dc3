"""Fetching files by URL."""

from pathlib import Path
from typing import Any

import pytest

from mixpeek_dagster.errors import AccessDenied, ProviderDown, ProviderError, UrlRefused
from mixpeek_dagster.storage.urls import Limits, fetch_url
from tests.storage.scripted import Answer, Asked, Scripted, scripted


def read(url: str, server: Scripted, **limits: Any) -> bytes:
    with fetch_url(url, allowed_hosts={server.host}, limits=Limits(**limits)) as fetched:
        return fetched.stream.read()


def test_a_file_is_streamed_with_what_the_server_says_of_it() -> None:
    answer = Answer(body=b"hello", headers={"Content-Type": "Image/PNG; charset=x", "ETag": '"e"'})
    with scripted(lambda _asked: answer) as server, fetch_url(f"{server.url}/a", allowed_hosts={server.host}) as fetched:
        assert (fetched.size, fetched.content_type, fetched.etag) == (5, "image/png", "e")
        assert fetched.stream.read(2) + fetched.stream.read() == b"hello"


def test_a_missing_content_type_is_guessed_from_the_path() -> None:
    with scripted(lambda _asked: Answer(body=b"x")) as server:
        with fetch_url(f"{server.url}/caf\u00e9 1.jpg?x=y z", allowed_hosts={server.host}) as fetched:
            assert fetched.content_type == "image/jpeg"
        assert server.asked[0].path == "/caf%C3%A9%201.jpg"


def test_loopback_is_refused_without_the_operators_word() -> None:
    with scripted(lambda _asked: Answer()) as server:
        for url in (server.url, server.url.replace("127.0.0.1", "localhost")):
            with pytest.raises(UrlRefused), fetch_url(url):
                pass
        assert server.asked == []


@pytest.mark.parametrize(
    "target", ["http://169.254.169.254/", "http://10.0.0.1/", "file:///etc/passwd", "ftp://example.com/x", "http://[::1]/"]
)
def test_a_redirect_is_checked_like_the_url_itself(target: str) -> None:
    with scripted(lambda _asked: Answer(302, b"", {"Location": target})) as server:
        with pytest.raises(UrlRefused), fetch_url(server.url, allowed_hosts={server.host}):
            pass
        assert len(server.asked) == 1


def test_redirects_are_followed_a_few_times() -> None:
    def answer(asked: Asked) -> Answer:
        step = int(asked.path.strip("/") or 0)
        return Answer(body=b"end") if step == 3 else Answer(302, b"", {"Location": f"/{step + 1}"})

    with scripted(answer) as server:
        with fetch_url(f"{server.url}/0", allowed_hosts={server.host}) as fetched:
            assert fetched.stream.read() == b"end"
        with pytest.raises(UrlRefused, match="redirects"):
            read(f"{server.url}/0", server, max_redirects=2)


def test_a_file_that_says_it_is_too_large_is_refused_unread() -> None:
    with scripted(lambda _asked: Answer(body=b"x" * 100)) as server, pytest.raises(UrlRefused, match="100 bytes"):
        read(server.url, server, max_bytes=99)


def test_a_file_that_is_larger_than_it_says_is_cut_off() -> None:
    endless = Answer(body=b"x" * 100_000, headers={"Content-Length": "x"})
    with scripted(lambda _asked: endless) as server, pytest.raises((UrlRefused, ProviderDown)):
        read(server.url, server, max_bytes=5000)


def test_a_slow_server_is_given_up_after_the_total_time() -> None:
    with scripted(lambda _asked: Answer(body=b"x" * 1_000_000)) as server, pytest.raises(ProviderDown, match="too long"):
        read(server.url, server, total_s=0.0)


@pytest.mark.parametrize(
    ("status", "error"),
    [(404, FileNotFoundError), (410, FileNotFoundError), (401, AccessDenied), (403, AccessDenied), (418, ProviderError)],
)
def test_statuses_become_errors(status: int, error: type[Exception]) -> None:
    with scripted(lambda _asked: Answer(status)) as server, pytest.raises(error) as raised:
        read(f"{server.url}/x?token=secret", server)
    assert "secret" not in str(raised.value)


def test_file_urls_are_off_until_the_operator_opens_folders(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open" / "a b.txt").write_text("a")
    (tmp_path / "closed.txt").write_text("c")
    (tmp_path / "open" / "link.txt").symlink_to(tmp_path / "closed.txt")
    url = f"file://{tmp_path}/open/a%20b.txt"
    roots = (tmp_path / "open",)
    with pytest.raises(UrlRefused, match="MIXPEEK_LOCAL_ROOTS"), fetch_url(url):
        pass
    with fetch_url(url, local_roots=roots) as fetched:
        assert (fetched.stream.read(), fetched.size, fetched.content_type) == (b"a", 1, "text/plain")
    for path in (
        "closed.txt",
        "open/../closed.txt",
        "open/%2e%2e/closed.txt",
        "open/link.txt",
        "open/%00",
        "open/none.txt",
        "open",
    ):
        with pytest.raises((UrlRefused, FileNotFoundError)), fetch_url(f"file://{tmp_path}/{path}", local_roots=roots):
            pass
    with pytest.raises(UrlRefused, match="host"), fetch_url(f"file://elsewhere{tmp_path}/open/a%20b.txt", local_roots=roots):
        pass
