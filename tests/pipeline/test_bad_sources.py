"""Whatever a provider does wrong: a sync error with its cause, nothing deleted, the place kept, and all well when it is well again."""

from collections.abc import Callable, Iterator

import pytest

from mixpeek_dagster.pipeline.creation import create_sync
from mixpeek_dagster.storage.http import Backoff
from tests.pipeline.worlds import NOW, Library
from tests.storage.scripted import Answer, Asked, Scripted, scripted
from tests.storage.test_s3_adversarial import error_xml, page_xml

KEYS = [f"f{number}.txt" for number in range(7)]
PAGE = 3
Ill = Callable[[Asked, int], Answer | None]
"""What the server answers instead of the truth to a listing of a page, counted from 0 in a pass; None: the truth."""


class Provider:
    """An S3 server with pages of three keys; `ill` says what is wrong with it."""

    def __init__(self) -> None:
        self.keys = list(KEYS)
        self.ill: Ill = lambda asked, page: None
        self.heads = 0

    def answer(self, asked: Asked) -> Answer:
        if "list-type" not in asked.query:
            self.heads += asked.method == "HEAD"
            name = asked.path.rpartition("/")[2]
            missing = Answer(404, error_xml("NoSuchKey"))
            return Answer(200, name.encode(), {"ETag": '"e1"'}) if name in self.keys else missing
        after = asked.query.get("continuation-token") or asked.query.get("start-after") or ""
        left = [key for key in self.keys if key > after]
        said = self.ill(asked, sum(key <= after for key in KEYS) // PAGE)
        return said or Answer(200, page_xml(left[:PAGE], token=left[PAGE - 1] if len(left) > PAGE else None))


@pytest.fixture
def provider() -> Provider:
    return Provider()


@pytest.fixture
def server(provider: Provider) -> Iterator[Scripted]:
    with scripted(provider.answer) as running:
        yield running


@pytest.fixture
def waits(library: Library, provider: Provider, server: Scripted) -> list[float]:
    """The library follows the provider, and has seen it well once; the seconds that retries waited from then on."""
    follow(library, server.url)
    waited: list[float] = []
    library.warehouse.source(library.sync)._http.backoff = Backoff(sleep=waited.append)  # type: ignore[attr-defined]
    assert library.poll().counters.new == len(KEYS)
    return waited


def follow(library: Library, url: str) -> None:
    library.with_settings(allowed_hosts=frozenset({"127.0.0.1"}))
    credentials = {"access_key_id": "AKIATEST", "secret_access_key": "do-not-show"}
    connection = {"endpoint_url": url, "bucket": "b", "credentials": credentials}
    with library.warehouse.catalog.transaction() as records:
        body = {"provider": "s3", "connection": connection, "sync_config": {"source_path": "/"}}
        library.sync = create_sync(records, body, warehouse=library.warehouse, bucket=library.bucket, now=NOW)


def always(answer: Answer) -> Ill:
    return lambda asked, page: answer


def on_the_second_page(answer: Answer) -> Ill:
    return lambda asked, page: answer if page == 1 else None


GOOD = page_xml(["f3.txt", "f4.txt", "f5.txt"], token="f5.txt")

ILLS: dict[str, tuple[Ill, str]] = {
    "wrong key": (always(Answer(403, error_xml("InvalidAccessKeyId"))), "check access_key_id"),
    "wrong secret": (always(Answer(403, error_xml("SignatureDoesNotMatch"))), "check secret_access_key"),
    "expired token": (on_the_second_page(Answer(400, error_xml("ExpiredToken"))), "the session token has expired"),
    "clock skew": (always(Answer(403, error_xml("RequestTimeTooSkewed"))), "clock is off"),
    "missing bucket": (always(Answer(404, error_xml("NoSuchBucket"))), "the bucket does not exist"),
    "wrong region": (
        always(Answer(301, error_xml("PermanentRedirect"), {"x-amz-bucket-region": "eu-west-3"})),
        "set region to 'eu-west-3'",
    ),
    "an endpoint with a bucket in it": (always(Answer(404, error_xml("NoSuchKey"))), "endpoint_url must not hold a bucket"),
    "a proxy's 404": (always(Answer(404, b"<html>not found</html>")), "is endpoint_url right?"),
    "429 storm": (on_the_second_page(Answer(429, b"", {"Retry-After": "7"})), "asked again in 7 s"),
    "503 storm": (on_the_second_page(Answer(503, error_xml("SlowDown"))), "fewer requests"),
    "cut off page": (on_the_second_page(Answer(200, GOOD, cut=len(GOOD) - 90)), "listing"),
    "page of another kind": (on_the_second_page(Answer(200, b"<html>Please log in</html>")), "not a <ListBucketResult>"),
    "page without its end": (on_the_second_page(Answer(200, GOOD[:-60])), "listing"),
    "no token for more": (on_the_second_page(Answer(200, page_xml(["f3.txt"], truncated=True))), "no NextContinuationToken"),
}


@pytest.mark.parametrize("name", ILLS)
def test_an_ill_is_an_error_with_its_cause_and_costs_nothing(
    library: Library, provider: Provider, waits: list[float], name: str
) -> None:
    provider.ill, words = ILLS[name]
    before, generation = library.objects(), library.now().cursor.generation
    provider.keys.remove("f0.txt")
    for attempt in range(1, 3):
        progress = library.poll()
        assert words in (progress.error or "")
        sync = library.now()
        assert (sync.last_error, sync.consecutive_failures) == (progress.error, attempt)
        assert "do-not-show" not in str(sync.last_error)
    assert library.objects() == before
    assert library.now().cursor.generation == generation + 1, "the pass that was begun goes on"
    assert library.now().cursor.counters.pages in (0, 1), "the pages before are not taken again"
    provider.ill = lambda asked, page: None
    progress = library.poll()
    assert progress.error is None
    assert (progress.counters.pages, progress.counters.deleted) == (2, 1)
    assert library.now().last_error is None
    assert sorted(library.objects()) == KEYS[1:]


@pytest.mark.parametrize("keys", [[], ["f3.txt"]], ids=["of no files", "of the same files"])
def test_a_listing_in_circles_is_an_error_and_costs_nothing(
    library: Library, provider: Provider, waits: list[float], keys: list[str]
) -> None:
    before = library.objects()
    provider.ill = on_the_second_page(Answer(200, page_xml(keys, token="f2.txt")))
    provider.keys.remove("f0.txt")
    for _ in range(2):
        assert "circle" in (library.poll().error or "")
        assert library.objects() == before
    provider.ill = lambda asked, page: None
    assert library.poll().counters.deleted == 1
    assert sorted(library.objects()) == KEYS[1:]


def test_the_wait_that_a_server_asks_for_is_kept(library: Library, provider: Provider, waits: list[float]) -> None:
    times = iter([429, 503])
    provider.ill = lambda asked, page: Answer(status, b"", {"Retry-After": "7"}) if (status := next(times, 0)) else None
    assert library.poll().error is None
    assert len(waits) == 2
    assert all(7 <= seconds <= 20 for seconds in waits)


def test_an_address_without_tls_or_without_anybody_is_told_apart(library: Library, server: Scripted) -> None:
    follow(library, server.url.replace("http:", "https:"))
    assert "TLS with 127.0.0.1 failed" in (library.poll().error or "")
    follow(library, "http://127.0.0.1:9")
    library.warehouse.source(library.sync)._http.backoff = Backoff(sleep=lambda _: None)  # type: ignore[attr-defined]
    assert "cannot be reached" in (library.poll().error or "")


def test_an_empty_listing_after_a_good_one_is_held_back(library: Library, provider: Provider, waits: list[float]) -> None:
    provider.ill = always(Answer(200, page_xml([])))
    assert library.poll().counters.held == len(KEYS)
    assert "nothing was deleted" in (library.now().last_error or "")
    assert len(library.objects()) == len(KEYS)
    provider.ill = lambda asked, page: None
    assert library.poll().counters.unchanged == len(KEYS)
    assert library.now().last_error is None


@pytest.mark.timeout(60)
def test_a_listing_that_never_ends_is_an_error(
    library: Library, provider: Provider, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mixpeek_dagster.pipeline.merge.IDLE_PAGES", 20)
    tokens = iter(range(1000))
    provider.ill = lambda asked, page: Answer(200, page_xml([], token=f"g{next(tokens)}"))
    assert "no new file on 21 pages" in (library.poll().error or "")
    provider.ill = lambda asked, page: None
    assert library.poll().error is None
    assert sorted(library.objects()) == KEYS


def test_a_server_that_ignores_start_after_is_found_out_and_swept(
    library: Library, provider: Provider, waits: list[float]
) -> None:
    library.configure(max_objects_per_run=2)  # so that runs resume behind a key
    provider.keys += ["g1.txt", "g2.txt", "g3.txt", "g4.txt", "g5.txt"]
    provider.keys.remove("f6.txt")

    def from_the_start(asked: Asked, page: int) -> Answer | None:
        if "start-after" not in asked.query or "continuation-token" in asked.query:
            return None
        return Answer(200, page_xml(provider.keys[:PAGE], token=provider.keys[PAGE - 1]))

    provider.ill = from_the_start
    for _ in range(6):
        assert library.poll().error is None
    assert sorted(library.objects()) == sorted(provider.keys)
    assert library.now().cursor.unordered


def test_keys_that_may_not_be_read_fail_alone(library: Library, provider: Provider, waits: list[float]) -> None:
    library.with_settings(max_failed_ratio=0.5)
    library.warehouse._sources.clear()
    original = provider.answer

    def refuse(asked: Asked) -> Answer:
        return Answer(403, error_xml("AccessDenied")) if asked.path.endswith("f3.txt") else original(asked)

    with scripted(refuse) as other:
        follow(library, other.url)
        library.cycle()
    with library.warehouse.catalog.reading() as records:
        failed, total = records.objects.failed_of_sync(library.sync.sync_id, dead=False, limit=10)
    assert total == 1
    assert "grant s3:ListBucket and s3:GetObject" in str(failed[0].error)
    assert len([one for one in library.documents() if one.payload["size"] == len("f0.txt")]) >= len(KEYS) - 1


def test_a_changed_key_is_no_reason_to_ask_for_every_file(library: Library, provider: Provider, waits: list[float]) -> None:
    provider.keys.remove("f6.txt")
    assert library.poll().counters.deleted == 1
    assert provider.heads == 1, "only the missing file is asked for"
    assert library.poll().counters.unchanged == 6
    assert provider.heads == 1
