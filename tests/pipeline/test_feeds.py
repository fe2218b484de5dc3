"""Change feeds: what they tell is asked for by name, whatever they say, however often, and never lost."""

import random

import pytest

from mixpeek_dagster.errors import AccessDenied, ProviderDown
from mixpeek_dagster.pipeline.creation import create_sync
from mixpeek_dagster.pipeline.feeds import follow, follow_all
from mixpeek_dagster.pipeline.looks import Looked, NotNow
from mixpeek_dagster.storage.feed import News
from mixpeek_dagster.storage.provider import Entry
from mixpeek_dagster.testing import FakeSource, FakeWorld
from tests.pipeline.worlds import FAKE, NOW, Library


def tell(library: Library, *keys: str, **more: object) -> None:
    library.world.told = library.world.told or []
    library.world.told.append(News(keys=[key.encode() for key in keys], messages=1, **more))  # type: ignore[arg-type]


def take(library: Library) -> Looked:
    library.clock.move(1)
    return follow(library.warehouse, library.sync.sync_id, budget_s=20)


@pytest.fixture
def told(library: Library) -> Library:
    """A library whose first pass is over."""
    library.world.told = []
    for name in ("a.txt", "b.txt", "c.txt"):
        library.world.put(name, name.encode())
    library.cycle()
    return library


def test_new_changed_and_deleted_files_are_known_without_a_listing(told: Library) -> None:
    listed = told.world.calls["list"]
    told.world.put("new.txt", b"new")
    told.world.put("a.txt", b"changed")
    told.world.delete("b.txt")
    tell(told, "new.txt", "a.txt", "b.txt", "c.txt", "never-there.txt")
    assert take(told) == Looked(messages=1, new=1, changed=1, deleted=1)
    assert told.world.calls["list"] == listed
    told.assert_follows_source()
    told.run()
    assert told.texts() == sorted([3, 5, 7])
    assert told.world.told == []


def test_news_that_come_twice_late_or_for_nothing_change_nothing(told: Library) -> None:
    for _ in range(3):
        tell(told, "a.txt", "b.txt", "nowhere.txt")
        tell(told)
    before = [batch.batch_id for batch in told.batches()]
    assert take(told) == Looked(messages=6)
    assert [batch.batch_id for batch in told.batches()] == before
    told.assert_follows_source()


def test_a_file_that_comes_back_is_another_object(told: Library) -> None:
    first = told.objects()["a.txt"].object_id
    told.world.delete("a.txt")
    tell(told, "a.txt")
    take(told)
    told.world.put("a.txt", b"a.txt")
    tell(told, "a.txt")
    assert take(told).new == 1
    assert told.objects()["a.txt"].object_id != first
    told.assert_follows_source()
    told.poll()
    told.assert_follows_source()


def test_news_are_acknowledged_only_after_what_they_led_to_is_recorded(told: Library) -> None:
    told.world.put("new.txt", b"new")
    tell(told, "new.txt")

    def fail(name: str) -> None:
        if name == "head":
            raise ProviderDown("The provider is down.")

    told.world.before = fail
    with pytest.raises(ProviderDown):
        take(told)
    assert len(told.world.told or []) == 1

    def lost(name: str) -> None:
        if name == "acknowledge":
            raise ProviderDown("The queue is down.")

    told.world.before = lost
    with pytest.raises(ProviderDown):
        take(told)
    told.assert_follows_source()
    told.world.before = lambda _: None
    assert take(told) == Looked(messages=1)
    told.assert_follows_source()


def test_while_a_pass_is_under_way_news_wait(told: Library) -> None:
    told.world.page_size = 1
    told.advance(budget_s=0)
    told.world.put("new.txt", b"new")
    tell(told, "new.txt")
    assert take(told) == Looked()
    assert len(told.world.told or []) == 1
    told.poll()
    take(told)
    assert told.world.told == []
    told.assert_follows_source()


def test_a_sync_whose_configuration_changed_makes_its_pass_first(told: Library) -> None:
    told.configure(file_filters={"include": ["a*"]})
    tell(told, "a.txt")
    with pytest.raises(NotNow):
        take(told)
    assert follow_all(told.warehouse, budget_s=5) == {}
    told.poll()
    assert take(told) == Looked(messages=1)


def test_a_feed_whose_failure_is_a_defect_keeps_no_other_from_being_followed(told: Library) -> None:
    broken = told.sync
    well = FakeSource.worlds["well"] = FakeWorld(told=[])
    with told.warehouse.catalog.transaction() as records:
        body = {"provider": FAKE, "connection": {"world": "well"}, "sync_config": {"source_path": "/"}}
        told.sync = create_sync(records, body, warehouse=told.warehouse, bucket=told.bucket, now=NOW)
    told.poll()
    well.put("new.txt", b"new")
    well.told = [News(keys=[b"new.txt"], messages=1)]

    def defect(_method: str) -> None:
        raise KeyError("name")

    told.world.before = defect
    tell(told, "a.txt")
    done = follow_all(told.warehouse, budget_s=5)
    assert done[told.sync.sync_id] == Looked(messages=1, new=1)
    assert str(done[broken.sync_id]) == "KeyError: 'name'"


def test_files_that_the_filters_do_not_take_are_not_taken_from_a_feed(told: Library) -> None:
    told.configure(file_filters={"exclude": ["*.tmp"]})
    told.poll()
    told.world.put("x.tmp", b"x")
    tell(told, "x.tmp")
    assert take(told) == Looked(messages=1)
    assert "x.tmp" not in told.objects()


def test_a_prefix_stands_for_the_keys_that_are_registered_below_it(told: Library) -> None:
    told.world.put("77/old name.txt", b"one")
    told.poll()
    told.world.delete("77/old name.txt")
    told.world.put("77/new name.txt", b"one")
    tell(told, "77/new name.txt", prefixes=[b"77/"])
    assert take(told) == Looked(messages=1, new=1, deleted=1)
    told.assert_follows_source()


def test_a_feed_that_lost_track_asks_for_a_pass(told: Library) -> None:
    told.world.put("unsaid.txt", b"x")
    tell(told, everything=True, position="later")
    take(told)
    assert told.now().cursor.feed_position == "later"
    progress = told.advance(force=False)
    assert progress is not None
    assert progress.counters.new == 1
    assert told.now().cursor.feed_position == "later"


def test_more_deletes_than_a_pass_would_believe_are_left_to_a_pass_which_asks(library: Library) -> None:
    """Over all that a feed tells between two passes, not over one message."""
    library.world.told = []
    names = [f"{number:04}.txt" for number in range(1000)]
    for name in names:
        library.world.put(name, b"x")
    library.cycle()

    def lose(*lost: str) -> Looked:
        for name in lost:
            library.world.delete(name)
        tell(library, *lost, "never-there.txt")
        return take(library)

    assert lose(*names[:150]).deleted == 150
    assert lose(*names[150:200]).deleted == 50
    assert library.now().triggered_at is None
    assert lose(names[200]).deleted == 0
    assert library.now().triggered_at is not None, "a pass finds out"
    assert len(library.objects()) == 800

    for name in names[201:700]:
        library.world.delete(name)
    library.poll()
    assert library.now().last_counters.held == 500  # type: ignore[union-attr]
    assert lose(names[700]).deleted == 0
    assert library.now().triggered_at is None, "it was asked for already"
    library.world.put("new.txt", b"new")
    tell(library, "new.txt")
    assert take(library).new == 1
    assert len(library.objects()) == 801

    library.set_sync(confirmed_deletes=501)
    library.poll()
    library.assert_follows_source()
    assert lose(names[701]).deleted == 1


def test_files_that_the_filters_do_not_take_any_more_count_as_deletes(library: Library) -> None:
    library.world.told = []
    library.configure(file_filters={"max_size_bytes": 10})
    names = [f"{number:04}.txt" for number in range(300)]
    for name in names:
        library.world.put(name, b"x")
    library.cycle()

    def grow(*grown: str) -> Looked:
        for name in grown:
            library.world.put(name, b"more than ten bytes")
        tell(library, *grown)
        return take(library)

    assert grow(*names[:60]).deleted == 60
    assert grow(*names[60:150]).deleted == 0, "with the 60 they are more than 100"
    assert len(library.objects()) == 240
    assert library.now().triggered_at is not None
    assert library.poll().counters.deleted == 90
    library.assert_exact()


def test_a_file_that_may_not_be_asked_for_is_left_to_a_pass_and_stops_no_later_news(
    told: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = FakeSource.head

    def head(self: FakeSource, key: bytes) -> Entry | None:
        if key == b"a.txt":
            raise AccessDenied("403 on a.txt")
        return original(self, key)

    monkeypatch.setattr(FakeSource, "head", head)
    told.world.delete("a.txt")
    told.world.put("new.txt", b"new")
    told.world.delete("b.txt")
    tell(told, "a.txt", "new.txt")
    tell(told, "a.txt")
    tell(told, "b.txt")
    assert take(told) == Looked(messages=3, new=1, deleted=1)
    assert told.world.told == []
    assert set(told.objects()) == {"a.txt", "c.txt", "new.txt"}
    assert told.poll().error == "403 on a.txt"
    monkeypatch.undo()
    told.poll()
    told.assert_follows_source()


@pytest.mark.parametrize("seed", range(5))
def test_any_mix_of_news_and_passes_follows_the_source(told: Library, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(40):
        name = f"{chance.choice('abcd')}.txt"
        if name.encode() in told.world.files and chance.random() < 0.4:
            told.world.delete(name)
        else:
            told.world.put(name, str(chance.random()).encode())
        if chance.random() < 0.6:
            tell(told, *chance.choices(["a.txt", "b.txt", "c.txt", "d.txt", name], k=2))
        if chance.random() < 0.5:
            take(told)
        if chance.random() < 0.2:
            told.advance(budget_s=chance.choice([0, 20]))
    told.poll()
    take(told)
    told.poll()
    told.assert_follows_source()
