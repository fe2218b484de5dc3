"""A plan says what the next run then does, and writes nothing."""

import random
import tracemalloc
from collections.abc import Collection
from typing import Any

import pytest

from mixpeek_dagster.catalog.tables import metadata
from mixpeek_dagster.errors import AccessDenied, ProviderDown
from mixpeek_dagster.models.syncs import Counters, SyncStatus
from mixpeek_dagster.pipeline.plans import PassPlan, plan_sync
from mixpeek_dagster.storage.provider import Entry, Page
from mixpeek_dagster.testing import FakeSource
from tests.pipeline.test_syncs_fuzz import SEEDS, mutate
from tests.pipeline.worlds import Library


def plan(library: Library, **more: Any) -> PassPlan:
    """A plan, made of a catalog that is the same afterwards, row by row."""
    before = contents(library)
    made = plan_sync(library.warehouse, library.sync.sync_id, **more)
    assert contents(library) == before, "a plan writes nothing"
    return made


def contents(library: Library) -> dict[str, list[Any]]:
    with library.warehouse.catalog.reading() as records:
        return {table.name: list(records.connection.execute(table.select())) for table in metadata.sorted_tables}


def untimed(counters: Counters) -> dict[str, Any]:
    return counters.model_dump(exclude={"seconds"})


def fill(library: Library, *names: str) -> None:
    for name in names:
        library.world.put(name, name.encode())


def refuse(monkeypatch: pytest.MonkeyPatch, closed: Collection[bytes]) -> None:
    """Let nobody ask for the files of these names, as long as they are in it."""
    original = FakeSource.head

    def head(self: FakeSource, key: bytes) -> Entry | None:
        if key in closed:
            raise AccessDenied(f"403 on {key.decode()}")
        return original(self, key)

    monkeypatch.setattr(FakeSource, "head", head)


@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize("order", ["bytes", "shuffled", "broken"])
def test_what_a_plan_counts_is_what_the_next_run_does(
    library: Library, order: Any, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(f"plan {order}{seed}")
    monkeypatch.setattr("mixpeek_dagster.pipeline.merge.SURE_DELETES", chance.choice([2, 100]))
    closed = set[bytes]()
    refuse(monkeypatch, closed)
    world, alive = library.world, list[str]()
    world.order, world.page_size, world.repeats = order, chance.randrange(1, 9), chance.choice([0, 0, 2])
    for _ in range(10):
        for _ in range(chance.choice([1, 1, 4])):
            mutate(library, chance, alive)
        if chance.random() < 0.3 and alive:
            world.put(chance.choice(alive), b"cold", storage_class="GLACIER")
        if chance.random() < 0.3:
            world.put(f"folder{chance.randrange(9)}/", b"")
        if chance.random() < 0.3:
            world.put(f"film{chance.randrange(9)}.mp4", b"not taken")
        if chance.random() < 0.3:
            library.configure(file_filters=chance.choice([{}, {"exclude_patterns": ["*a*"]}, {"min_size_bytes": 19}]))
        if chance.random() < 0.3:
            options = {"on_delete", "on_update", "on_filter_drift", "re_extract_on_update"}
            library.configure(reconcile={name: chance.random() < 0.7 for name in sorted(options)})
        library.configure(max_objects_per_run=chance.choice([3, 100_000, 100_000]))
        world.hidden = {name.encode() for name in alive if chance.random() < 0.1}
        if chance.random() < 0.3:
            closed.clear()
            closed.update(key for key in map(str.encode, library.keys()) if chance.random() < 0.3)
        if chance.random() < 0.1:
            world.files.clear()
            alive.clear()
        if chance.random() < 0.2:
            library.set_sync(confirmed_deletes=chance.choice([1, 5, 1000]))
        if chance.random() < 0.3:
            library.advance(budget_s=0)  # a pass may be under way when a plan is made
        expected = plan(library)
        queued = in_batches(library)
        progress = library.poll()
        assert untimed(expected.counters) == untimed(progress.counters)
        assert expected.to_extract == in_batches(library) - queued
        assert expected.error == progress.error


def in_batches(library: Library) -> int:
    return sum(batch.item_count for batch in library.batches())


@pytest.mark.parametrize("order", ["bytes", "shuffled"])
def test_a_pass_under_way_is_planned_to_its_end(library: Library, order: Any) -> None:
    library.world.order, library.world.page_size = order, 3
    fill(library, *(f"f{number:03d}.txt" for number in range(20)))
    library.poll()
    for number in (1, 5, 18):
        library.world.delete(f"f{number:03d}.txt")
    library.world.put("f002.txt", b"edited")
    fill(library, "z.txt")
    for _ in range(4):
        expected = plan(library).counters
        assert (expected.new, expected.changed, expected.deleted) == (1, 1, 3)
        assert not library.advance(budget_s=0).finished  # type: ignore[union-attr]
    assert untimed(plan(library).counters) == untimed(library.poll().counters)


def test_a_mass_delete_is_announced_as_held(library: Library) -> None:
    fill(library, *(f"f{number:03d}.txt" for number in range(300)))
    library.poll()
    for number in range(150):
        library.world.delete(f"f{number:03d}.txt")
    library.world.calls.clear()
    made = plan(library)
    assert (made.counters.held, made.counters.deleted) == (150, 0)
    assert library.world.calls["head"] == 0
    library.set_sync(confirmed_deletes=150)
    assert (plan(library).counters.held, plan(library).counters.deleted) == (0, 150)


def test_a_plan_of_filters_that_no_longer_take_most_files_asks(library: Library) -> None:
    fill(library, *(f"f{number:03d}.txt" for number in range(300)))
    library.poll()
    library.configure(file_filters={"include_patterns": ["*.tXt"]})
    made = plan(library)
    assert (made.counters.held, made.counters.deleted) == (300, 0)
    library.set_sync(confirmed_deletes=300)
    made = plan(library)
    assert (made.counters.held, made.counters.deleted) == (0, 300)
    library.world.page_size = 100
    library.configure(file_filters={"include_patterns": ["*5.txt", "*9.txt"]})
    for _ in range(3):
        assert not library.advance(budget_s=0).finished  # type: ignore[union-attr]
        made = plan(library)
        assert (made.counters.held, made.counters.deleted) == (0, 240)
    assert untimed(library.poll().counters) == untimed(made.counters)


def test_a_renamed_file_is_recognised_by_its_etag(library: Library) -> None:
    fill(library, "a.txt", "b.txt")
    library.cycle()
    entry, data = library.world.files.pop(b"a.txt")
    library.world.files[b"moved/a.txt"] = (entry._replace(key=b"moved/a.txt"), data)
    fill(library, "c.txt")
    made = plan(library)
    assert (made.counters.new, made.counters.deleted, made.moved) == (2, 1, 1)
    before = library.inferred()
    library.cycle()
    assert library.inferred() - before == made.to_extract - made.moved == 1


def test_extraction_is_estimated_from_the_speed_of_earlier_batches(library: Library) -> None:
    above = library.above("above", library.passages)
    fill(library, "a.txt", "b.txt")
    first = plan(library)
    assert (first.to_extract, first.bytes_to_read, first.seconds) == (2, 10, None)
    assert [cost.inputs for cost in first.costs] == [2, None], "what a collection nobody has run yet gives to the next is unknown"
    library.cycle()
    with library.warehouse.catalog.transaction() as records:
        records.connection.exec_driver_sql("UPDATE part_steps SET seconds = 3.0, inferred = 2, inputs = 2")
    fill(library, "c.txt", "d.txt", "e.txt", "f.txt")
    made = plan(library)
    assert [(cost.collection_id, cost.inputs) for cost in made.costs] == [
        (library.passages.collection_id, 4),
        (above.collection_id, 4),
    ]
    # Both collections have the same extractor, so they share what was measured: 1.5 s for each of the inputs.
    assert [cost.seconds for cost in made.costs] == [6.0, 6.0]
    assert made.seconds == 12.0
    assert plan(library).costs == made.costs
    library.cycle()
    assert plan(library).costs == []


def test_a_listing_that_fails_is_told_and_a_plan_has_a_budget(library: Library) -> None:
    fill(library, "a.txt", "b.txt", "c.txt")
    library.world.page_size = 1

    def fail(name: str) -> None:
        if library.world.calls["list"] == 3:
            raise ProviderDown("503")

    library.world.before = fail
    made = plan(library)
    assert (made.error, made.is_complete, made.counters.new) == ("503", False, 2)
    library.world.before = lambda _: None
    made = plan(library, budget_s=0)
    assert (made.error, made.is_complete, made.counters.listed) == (None, False, 1)
    library.set_sync(status=SyncStatus.SUSPENDED)
    assert plan(library).counters.new == 3, "also of a sync that is paused"


def test_a_missing_file_that_may_not_be_asked_for_is_told(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(library, "a.txt", "b.txt", "c.txt")
    library.poll()
    refuse(monkeypatch, {b"a.txt"})
    for name in ("a.txt", "b.txt"):
        library.world.delete(name)
    made = plan(library)
    assert (made.error, made.is_complete, made.counters.deleted) == ("403 on a.txt", True, 1)
    progress = library.poll()
    assert (progress.error, untimed(progress.counters)) == (made.error, untimed(made.counters))


def test_a_plan_whose_time_is_over_asks_for_no_more_missing_files(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(library, *(f"f{number:04d}.txt" for number in range(1000)))
    library.poll()
    for number in range(180):
        library.world.delete(f"f{number:04d}.txt")
    made = plan(library, budget_s=0)
    assert (library.world.calls["head"], made.counters.listed, made.counters.deleted) == (0, 820, 0)
    assert not made.is_complete
    now = [0.0]

    def slow(name: str) -> None:
        now[0] += name == "head"

    library.world.before = slow
    monkeypatch.setattr("mixpeek_dagster.pipeline.plans.time.monotonic", lambda: now[0])
    made = plan(library, budget_s=10)
    assert not made.is_complete
    assert 0 < made.counters.deleted < 180
    made = plan(library, budget_s=500)
    assert (made.is_complete, made.counters.deleted) == (True, 180)
    library.configure(file_filters={"exclude_patterns": ["f09*"]}, reconcile={"on_delete": False})
    made = plan(library, budget_s=0)
    assert (made.is_complete, made.counters.deleted) == (True, 100), "for these nobody has to ask"


@pytest.mark.parametrize("order", ["bytes", "unordered"])
def test_memory_does_not_grow_with_the_source(library: Library, order: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred times as many keys take no more memory: what is remembered lies on disk."""

    def peak(pages: int) -> int:
        def list_page(self: Any, *, after: bytes | None = None, token: str | None = None, limit: int = 1000) -> Page:
            number = int(token or 0)
            entries = [Entry(f"{number:04d}/{one:04d}.txt".encode(), one, "etag") for one in range(200)]
            return Page(entries, str(number + 1) if number + 1 < pages else None)

        monkeypatch.setattr("mixpeek_dagster.testing.FakeSource.list_page", list_page)
        tracemalloc.start()
        made = plan_sync(library.warehouse, library.sync.sync_id)
        _, highest = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert made.counters.new == 200 * pages
        return highest

    library.world.order = "bytes" if order == "bytes" else "shuffled"
    peak(2)  # what is loaded once
    assert peak(100) < 2 * peak(2)
