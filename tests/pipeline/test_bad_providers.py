"""As `test_bad_sources.py`, for the providers that are not S3: whatever goes wrong there is a sync error with its cause and without
a secret; nothing is deleted, and when all is well again the pass goes on, ends right, and nothing is extracted twice."""

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from mixpeek_dagster.pipeline.creation import create_sync
from mixpeek_dagster.storage import gcs
from mixpeek_dagster.storage.http import Backoff
from tests.pipeline.bad_servers import NAMES, PAGE, SECRETS, Azure, Box, Google, Ill, Mux, Provider, answered, on, well
from tests.pipeline.worlds import NOW, Library, make_bucket
from tests.storage.scripted import Answer, Scripted, scripted


@pytest.fixture(params=[Google, Azure, Box, Mux], ids=lambda kind: str(kind.provider))
def provider(request: pytest.FixtureRequest) -> Provider:
    made: Provider = request.param()
    return made


@pytest.fixture
def server(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scripted]:
    with scripted(provider.answer) as running:
        monkeypatch.setattr(gcs, "TOKEN_URL", f"{running.url}/token")
        yield running


@pytest.fixture
def open_library(library: Library, provider: Provider) -> Library:
    """The library may reach the provider, and its bucket takes the provider's kind of files."""
    library.with_settings(allowed_hosts=frozenset({"127.0.0.1", "localhost"}), max_failed_ratio=0.5)
    if isinstance(provider, Mux):
        with library.warehouse.catalog.transaction() as records:
            schema = {"content": {"type": "video"}, "path": {"type": "string"}}
            library.bucket = make_bucket(records, library.namespace, schema=schema)
        source = {"type": "bucket", "bucket_ids": [library.bucket.bucket_id]}
        library.passages = library.collection("videos", source, input_mappings={"data": "content"})
    return library


@pytest.fixture
def waits(open_library: Library, provider: Provider, server: Scripted) -> list[float]:
    """The library follows the provider and has seen it well once; the seconds that retries waited from then on."""
    waited = follow(open_library, provider, server.url)
    assert open_library.poll().counters.new == len(NAMES)
    return waited


def follow(library: Library, provider: Provider, url: str) -> list[float]:
    source = follow_place(library, provider.provider, provider.path, provider.connection(url))
    waited: list[float] = []
    source._http.backoff = Backoff(sleep=waited.append)
    return waited


def follow_place(library: Library, provider: str, path: str, connection: dict[str, Any]) -> Any:
    """The source of a new sync."""
    body = {"provider": provider, "connection": connection, "sync_config": {"source_path": path}}
    with library.warehouse.catalog.transaction() as records:
        library.sync = create_sync(records, body, warehouse=library.warehouse, bucket=library.bucket, now=NOW)
    return library.warehouse.source(library.sync)


def assert_fails(library: Library, *words: str) -> None:
    """The pass ends early each time that it is gone on with, with an error that says why; nothing is lost, nor its place."""
    before, failures, begun = library.objects(), library.now().consecutive_failures, set()
    for attempt, cause in enumerate(words, start=failures + 1):
        progress = library.poll()
        assert progress.error
        assert cause in progress.error
        sync = library.now()
        assert (sync.last_error, sync.consecutive_failures) == (progress.error, attempt)
        begun.add(sync.cursor.started_at)
        assert not any(secret in str(sync.last_error) for secret in SECRETS)
    assert library.objects() == before
    assert len(begun) == 1, "the pass that was begun goes on"


def assert_recovers(library: Library, left: list[str]) -> None:
    """The next pass ends right: what is gone goes, and what stays is not extracted again."""
    batches, gone = len(library.batches()), len(library.objects()) - len(left)
    progress = library.poll()
    assert progress.error is None
    assert (progress.counters.new, progress.counters.changed, progress.counters.deleted) == (0, 0, gone)
    assert library.now().last_error is None
    assert sorted(library.objects()) == left
    assert len(library.batches()) == batches


LOGIN_PAGE = Answer(200, b"<html>Please log in</html>")
PROXY_404 = Answer(404, b"<html>not found</html>")
BUSY = Answer(503, b"<html>busy</html>", {"Retry-After": "120"})

LISTINGS: dict[str, tuple[Ill, str]] = {
    "a proxy's 404": (on("list", PROXY_404), "404"),
    "429 that asks for patience": (on("list", Answer(429, b"", {"Retry-After": "120"}), page=1), "asked again in 120 s"),
    "503 that asks for patience": (on("list", BUSY, page=1), "asked again in 120 s"),
    "503 storm": (on("list", Answer(503), page=1), "503"),
    "login page": (on("list", LOGIN_PAGE, page=1), "The listing of"),
    "redirect": (on("list", Answer(302, b"", {"Location": "http://127.0.0.1:9/login"}), page=1), "302"),
    "nothing": (on("list", Answer(), page=1), "The listing of"),
    "null": (on("list", Answer(body=b"null"), page=1), "The listing of"),
    "a list": (on("list", Answer(body=b"[1]"), page=1), "The listing of"),
    "no end of brackets": (on("list", Answer(body=b"[" * 200_000), page=1), "The listing of"),
}

HEADS: list[tuple[Answer, str]] = [
    (LOGIN_PAGE, "endpoint_url"),
    (Answer(body=b'{"ok": true}'), "endpoint_url"),
    (PROXY_404, "404"),
    (BUSY, "asked again in 120 s"),
]


@pytest.mark.parametrize("name", LISTINGS)
def test_an_ill_of_the_listing_costs_nothing(library: Library, provider: Provider, waits: list[float], name: str) -> None:
    provider.ill, words = LISTINGS[name]
    provider.remove("f0")
    assert_fails(library, words, words)
    provider.ill = well
    assert_recovers(library, provider.paths)


def test_an_ill_of_the_question_for_a_missing_file_costs_nothing(
    library: Library, provider: Provider, waits: list[float]
) -> None:
    provider.remove("f0")
    for answer, words in HEADS:
        provider.ill = on("head", answer)
        assert_fails(library, words)
    provider.ill = well
    assert_recovers(library, provider.paths)


def test_a_refusal_and_a_place_that_is_gone_cost_nothing(library: Library, provider: Provider, waits: list[float]) -> None:
    provider.remove("f0")
    for answer, words in ((provider.refusal, provider.words["refused"]), (provider.no_place, provider.words["no place"])):
        provider.ill = on("list", answer)
        assert_fails(library, words, words)
    provider.ill = well
    assert_recovers(library, provider.paths)


def test_a_page_that_is_cut_off_costs_nothing(library: Library, provider: Provider, waits: list[float]) -> None:
    whole = provider.page(NAMES[3:6], "").body
    provider.ill = on("list", Answer(200, whole, cut=len(whole) - 30), page=1)
    provider.remove("f0")
    assert_fails(library, "")
    provider.ill = on("list", Answer(200, whole[:-30]), page=1)
    assert_fails(library, "listing of")
    provider.ill = well
    assert_recovers(library, provider.paths)
    library.run()
    assert library.inferred() == len(library.documents()) == len(provider.names)


def test_a_listing_in_circles_costs_nothing(library: Library, provider: Provider, waits: list[float]) -> None:
    provider.remove("f0")
    token = str(PAGE) if isinstance(provider, Box | Mux) else provider.names[PAGE - 1]
    provider.ill = on("list", provider.page([], token), page=1)
    assert_fails(library, "circle", "circle")
    provider.ill = well
    assert_recovers(library, provider.paths)


def test_a_listing_that_never_ends_costs_nothing(
    library: Library, provider: Provider, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mixpeek_dagster.pipeline.merge.IDLE_PAGES", 10)
    provider.remove("f0")
    tokens = iter(range(1000, 10_000))
    provider.ill = lambda call: provider.page([], str(next(tokens))) if call.kind == "list" else None
    assert_fails(library, "no new file on 11 pages")
    provider.ill = well
    assert_recovers(library, provider.paths)


def test_an_empty_listing_after_a_good_one_is_held_back(library: Library, provider: Provider, waits: list[float]) -> None:
    provider.ill = on("list", provider.page([], ""))
    assert library.poll().counters.held == len(NAMES)
    assert "nothing was deleted" in (library.now().last_error or "")
    assert len(library.objects()) == len(NAMES)
    provider.ill = well
    assert_recovers(library, provider.paths)


def test_a_missing_file_that_may_not_be_asked_for_is_kept(library: Library, provider: Provider, waits: list[float]) -> None:
    provider.ill = on("head", provider.refusal)
    provider.remove("f0")
    assert provider.words["refused"] in (library.poll().error or "")
    assert provider.words["refused"] in (library.now().last_error or "")
    assert len(library.objects()) == len(NAMES)
    provider.ill = well
    assert_recovers(library, provider.paths)


@pytest.mark.parametrize("provider", [Google, Box], indirect=True, ids=["gcs", "box"])
def test_a_refused_login_says_what_is_wrong_with_it(library: Library, provider: Provider, server: Scripted) -> None:
    library.with_settings(allowed_hosts=frozenset({"127.0.0.1"}))
    words = {"error": "invalid_grant", "error_description": "Check your iat and exp values in the JWT claim."}
    for answer, cause in (
        (answered(words, 400), "set this machine's clock"),
        (BUSY, "asked again in 120 s"),
        (LOGIN_PAGE, "no token"),
    ):
        provider.ill = on("token", answer)
        follow(library, provider, server.url)
        assert_fails(library, cause, cause)
    provider.ill = well
    assert library.poll().counters.new == len(NAMES)


def test_an_address_without_tls_or_without_anybody_is_told_apart(library: Library, provider: Provider, server: Scripted) -> None:
    library.with_settings(allowed_hosts=frozenset({"127.0.0.1"}))
    follow(library, provider, server.url.replace("http:", "https:"))
    assert_fails(library, "TLS with 127.0.0.1 failed")
    follow(library, provider, "http://127.0.0.1:9")
    assert_fails(library, "cannot be reached")


def test_a_file_that_may_not_be_read_fails_alone(open_library: Library, provider: Provider, server: Scripted) -> None:
    provider.ill = lambda call: provider.refusal if call.kind == "read" and call.name == "f3" else None
    follow(open_library, provider, server.url)
    open_library.cycle()
    with open_library.warehouse.catalog.reading() as records:
        (failed,), total = records.objects.failed_of_sync(open_library.sync.sync_id, dead=False, limit=10)
    assert total == 1
    assert provider.words["refused"] in str(failed.error)
    assert not any(secret in str(failed.error) for secret in SECRETS)
    assert len(open_library.documents()) == len(NAMES) - 1
    provider.ill = well
    open_library.cycle()
    assert len(open_library.documents()) == open_library.inferred() == len(NAMES)


# Folders


@pytest.fixture
def folder(library: Library, tmp_path: Path) -> Path:
    """A folder that was seen well once."""
    made = tmp_path / "folder"
    made.mkdir()
    for name in NAMES:
        (made / f"{name}.txt").write_text(name)
    follow_place(library, "local", str(made), {})
    assert library.poll().counters.new == len(NAMES)
    return made


def test_a_folder_that_is_not_mounted_or_not_readable_costs_nothing(
    library: Library, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "f0.txt").unlink()
    away = folder.rename(folder.with_name("away"))
    assert_fails(library, "not mounted", "not mounted")
    away.rename(folder)

    def refuse(_path: bytes) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", refuse)
        assert_fails(library, "may not be read", "may not be read")
    assert_recovers(library, [f"{name}.txt" for name in NAMES[1:]])


def test_a_folder_that_is_empty_after_a_good_pass_is_held_back(library: Library, folder: Path) -> None:
    away = folder.rename(folder.with_name("away"))
    folder.mkdir()
    assert library.poll().counters.held == len(NAMES)
    assert "nothing was deleted" in (library.now().last_error or "")
    folder.rmdir()
    away.rename(folder)
    assert_recovers(library, [f"{name}.txt" for name in NAMES])


# Filesystems


class Sick:
    """A filesystem that raises, or answers, the same to everything."""

    def __init__(self, outcome: object) -> None:
        self._outcome = outcome

    def __getattr__(self, name: str) -> Callable[..., object]:
        def answer(*_arguments: object, **_options: object) -> object:
            if isinstance(self._outcome, Exception):
                raise self._outcome
            return self._outcome

        return answer


SICK: dict[str, tuple[object, str]] = {
    "refused": (PermissionError("hush"), "may not be read: check the connection's options"),
    "timed out": (TimeoutError("hush"), "cannot be read (TimeoutError)"),
    "broken off": (ConnectionResetError("hush"), "cannot be read (ConnectionResetError)"),
    "its own error": (RuntimeError("hush"), "cannot be read (RuntimeError)"),
    "gone": (FileNotFoundError("hush"), "does not exist"),
    "files without names": ([{"type": "file", "size": 2}], "not what a listing is"),
    "sizes that are none": ([{"name": "/hospital/f1.txt", "type": "file", "size": "x"}], "not what a listing is"),
    "no listing": (None, "not what a listing is"),
}


@pytest.fixture
def filesystem(library: Library) -> Any:
    """The source of a filesystem that was seen well once."""
    library.with_settings(fsspec_protocols=frozenset({"memory"}))
    memory = fsspec.filesystem("memory")
    for name in NAMES:
        memory.pipe_file(f"/hospital/{name}.txt", name.encode())
    source = follow_place(library, "fsspec+memory", "memory://hospital", {"credentials": {"password": "hush"}})
    assert library.poll().counters.new == len(NAMES)
    return source


def test_ills_of_a_filesystem_cost_nothing(library: Library, filesystem: Any) -> None:
    real = filesystem._filesystem
    real.rm_file("/hospital/f0.txt")
    for outcome, words in SICK.values():
        filesystem._filesystem = Sick(outcome)
        assert_fails(library, words, words)
    filesystem._filesystem = Sick([])
    assert library.poll().counters.held == len(NAMES)
    filesystem._filesystem = real
    assert_recovers(library, [f"{name}.txt" for name in NAMES[1:]])
