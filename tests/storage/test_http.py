"""Retries and what they wait for."""

import time
from email.utils import formatdate

import pytest

from mixpeek_dagster.storage.content_types import guess_content_type
from mixpeek_dagster.storage.http import Backoff, Http, Request, no_answer_now
from tests.storage.scripted import Answer, scripted


def test_waits_double_and_end() -> None:
    backoff = Backoff(tries=4, first_s=1)
    waits = [backoff.wait_s(attempt, None) for attempt in range(4)]
    assert waits[3] is None
    for attempt, wait_s in enumerate(waits[:3]):
        assert wait_s is not None
        assert 0.5 * 2**attempt <= wait_s <= 1.5 * 2**attempt


@pytest.mark.parametrize(
    ("asked", "least", "most"),
    [("7", 7, 7), ("0", 0, 1), ("rubbish", 0, 1), ("-5", 0, 1)],
)
def test_a_server_may_ask_for_a_longer_wait(asked: str, least: float, most: float) -> None:
    wait_s = Backoff(first_s=0.1).wait_s(0, asked)
    assert wait_s is not None
    assert least <= wait_s <= most


def test_a_server_may_name_a_time_to_come_back() -> None:
    wait_s = Backoff(first_s=0.1).wait_s(0, formatdate(time.time() + 9, usegmt=True))
    assert wait_s is not None
    assert 7 <= wait_s <= 9.5
    assert Backoff().wait_s(0, formatdate(time.time() + 3600, usegmt=True)) is None


@pytest.mark.parametrize("asked", ["21", "3600", "inf"])
def test_a_wait_that_is_too_long_is_not_waited(asked: str) -> None:
    assert Backoff(longest_s=20).wait_s(0, asked) is None


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [("120", 120), ("0", 0), ("-5", 0), ("inf", 86400), ("1e300", 86400), ("nan", 0), ("rubbish", None), (None, None)],
)
def test_an_error_says_how_long_the_server_asks_to_be_left_alone(asked: str | None, seconds: float | None) -> None:
    headers = {"Retry-After": asked} if asked is not None else {}
    with scripted(lambda _asked: Answer(503, b"", headers)) as server:
        response = Http(allowed_hosts={server.host}, backoff=Backoff(tries=1)).send(lambda: Request("GET", server.url))
        error = no_answer_now("It is ill", response.headers)
    assert error.retry_after_s == seconds
    assert str(error) == ("It is ill." if seconds is None else f"It is ill; it wants to be asked again in {seconds} s.")


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        (b"a.jpg", "image/jpeg"),
        (b"x/A.JPEG", "image/jpeg"),
        (b"movie.mp4", "video/mp4"),
        (b"jpg", ""),
        (b"a.jpg/b", ""),
        (b"a.", ""),
        (b"a.unknown-and-long-extension", ""),
        (b"", ""),
    ],
)
def test_content_types_follow_from_extensions(key: bytes, kind: str) -> None:
    assert guess_content_type(key) == kind
