"""Files whose keys are longer than an index of Postgres takes: each is laid aside alone, on either database."""

import random
from collections.abc import Iterator
from dataclasses import replace

import pytest

from mixpeek_dagster.catalog.syncs import KeyState, SourceKey
from mixpeek_dagster.models.ids import SyncId
from mixpeek_dagster.pipeline.entries import LONGEST_KEY
from mixpeek_dagster.pipeline.looks import look_at
from mixpeek_dagster.pipeline.plans import plan_sync
from mixpeek_dagster.pipeline.sync_control import give_up, requeue
from mixpeek_dagster.pipeline.sync_reports import DEAD, dead_letters
from mixpeek_dagster.pipeline.verification import verify
from mixpeek_dagster.settings import Settings
from mixpeek_dagster.storage.feed import News
from tests.pipeline.worlds import NOW, Clock, Library, opened_library

SHORT = ["a.txt", "m.txt", "z.txt"]


def long_key(start: str, length: int = 4000, seed: int = 0) -> str:
    """A key of so many bytes that does not get shorter by compression."""
    return start + random.Random(f"{start}{seed}").randbytes(length).hex()[: length - len(start) - 4] + ".txt"


FAMILY = long_key("l")
LONG = [long_key("b"), *(f"{FAMILY[:2600]}-{number}.txt" for number in range(3)), long_key("n", LONGEST_KEY + 1)]
"""Three of them begin with the same 2600 bytes."""


@pytest.fixture
def library(settings: Settings, clock: Clock, catalog_url: str) -> Iterator[Library]:
    """The usual one, on SQLite and on Postgres, over three files with short keys and five with long ones."""
    with opened_library(replace(settings, catalog_url=catalog_url), clock) as library:
        for name in SHORT + LONG:
            library.world.put(name, b"text")
        yield library


def letters(library: Library) -> list[str]:
    """What the dead letters say."""
    with library.warehouse.catalog.reading() as records:
        found, total = dead_letters(records, library.sync.sync_id, limit=100)
    assert total == len(found)
    return sorted(str(one.error) for one in found)


def said_of(*keys: str) -> list[str]:
    return sorted(
        f"File {key!r}: its key has {len(key)} bytes, and the catalog takes {LONGEST_KEY}; give it a shorter name."
        for key in keys
    )


@pytest.mark.parametrize("order", ["bytes", "shuffled", "broken"])
@pytest.mark.parametrize("page_size", [1, 2, 3, 1000])
def test_files_with_long_keys_are_laid_aside_one_by_one_and_all_others_go_on(
    library: Library, order: str, page_size: int
) -> None:
    library.world.order, library.world.page_size = order, page_size  # type: ignore[assignment]
    planned = plan_sync(library.warehouse, library.sync.sync_id).counters
    progress = library.cycle()
    assert (progress.error, progress.counters.new) == (None, len(SHORT))
    assert (planned.new, planned.listed) == (len(SHORT), len(SHORT + LONG))
    for _ in range(2):
        assert letters(library) == said_of(*LONG)
        assert sorted(library.objects()) == SHORT
        assert library.texts() == [4, 4, 4]
        for counters in (plan_sync(library.warehouse, library.sync.sync_id).counters, library.cycle().counters):
            assert (counters.new, counters.changed, counters.deleted, counters.held) == (0, 0, 0, 0)
            assert page_size < 1000 or counters.failed == 0, "nothing is decided again"
    assert library.world.calls["head"] == 0
    (check, *_) = verify(library.warehouse)
    assert (check.ok, check.failed) == (True, len(LONG))


@pytest.mark.parametrize("page_size", [1, 1000])
def test_a_file_with_a_long_key_that_goes_is_no_dead_letter_any_more(library: Library, page_size: int) -> None:
    library.world.page_size = page_size
    library.poll()
    for key in (LONG[0], LONG[2]):
        library.world.delete(key)
    progress = library.poll()
    assert (progress.error, progress.counters.held) == (None, 0)
    assert letters(library) == said_of(LONG[1], LONG[3], LONG[4])
    assert sorted(library.objects()) == SHORT
    assert library.world.calls["head"] == 0, "a provider may not take such a name"


def test_a_file_that_gets_a_shorter_name_becomes_an_object(library: Library) -> None:
    library.poll()
    for number, key in enumerate(LONG):
        library.world.files.pop(key.encode())
        library.world.put(f"short{number}.txt", b"text")
    assert library.poll().counters.new == len(LONG)
    assert letters(library) == []
    library.assert_follows_source()


def test_a_file_with_a_long_key_can_be_requeued_and_given_up_like_any_other(library: Library) -> None:
    library.poll()
    with library.warehouse.catalog.transaction() as records:
        assert requeue(records, library.now(), [KeyState.REJECTED], now=NOW) == len(LONG)
    assert library.poll().counters.failed == len(LONG)
    assert letters(library) == said_of(*LONG)
    with library.warehouse.catalog.transaction() as records:
        assert give_up(records, library.now(), DEAD, now=NOW) == len(LONG)
    library.poll()
    assert letters(library) == []


def test_a_long_key_that_the_filters_do_not_take_is_skipped(library: Library) -> None:
    library.configure(file_filters={"exclude_patterns": ["*-[0-9].txt"]})
    counters = library.poll().counters
    assert (counters.new, counters.failed, counters.skipped) == (len(SHORT), 2, 3)
    assert letters(library) == said_of(LONG[0], LONG[4])
    library.configure(file_filters={"exclude_patterns": ["?" * 100 + "*.txt"]})
    assert library.poll().counters.skipped == len(LONG)
    assert letters(library) == []


def test_a_long_key_that_a_feed_tells_of_stops_nothing(library: Library) -> None:
    library.poll()
    library.world.put("a.txt", b"changed")
    library.world.put(LONG[0], b"changed")
    library.world.delete(LONG[1])
    sync_id = SyncId(library.sync.sync_id)
    keys = ["a.txt", LONG[0], LONG[1]]
    assert look_at(library.warehouse, sync_id, News(keys=[key.encode() for key in keys])).changed == 1
    assert library.poll().error is None
    assert letters(library) == said_of(LONG[0], *LONG[2:])


def test_a_run_that_takes_few_objects_gets_past_long_keys(library: Library) -> None:
    library.configure(max_objects_per_run=1)
    for _ in range(5):
        assert library.poll().error is None
    assert sorted(library.objects()) == SHORT
    assert letters(library) == said_of(*LONG)


@pytest.mark.parametrize("seed", range(3))
def test_the_longest_key_is_taken_as_any_other(library: Library, seed: int) -> None:
    library.world.files.clear()
    library.world.page_size = 1  # so that it is a page's place, too
    longest = long_key("k", LONGEST_KEY, seed)
    for name in (*SHORT, longest):
        library.world.put(name, b"text")
    library.cycle()
    library.assert_follows_source()
    assert library.texts() == [4] * 4
    library.poll()
    assert library.world.calls["passed over"] == 4
    library.world.put(longest, b"changed")
    library.poll()
    library.world.delete(longest)
    assert library.poll().counters.deleted == 1
    library.assert_follows_source()


def test_a_long_key_is_shown_by_how_it_begins(library: Library) -> None:
    library.poll()
    with library.warehouse.catalog.reading() as records:
        found, _ = dead_letters(records, library.sync.sync_id, limit=100)
    starts = {one.key[:LONGEST_KEY].decode() for one in found if isinstance(one, SourceKey)}
    assert starts == {key[:LONGEST_KEY] for key in LONG}
