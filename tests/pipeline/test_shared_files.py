"""A file that several syncs of a bucket follow is one object, whichever of them comes, changes, or goes."""

import random
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mixpeek_dagster.models.objects import ObjectStatus
from mixpeek_dagster.models.syncs import Sync
from mixpeek_dagster.pipeline.creation import create_sync
from mixpeek_dagster.pipeline.plans import plan_sync
from mixpeek_dagster.pipeline.sharing import place_of
from mixpeek_dagster.pipeline.sync_control import confirm_deletes, delete_sync
from mixpeek_dagster.pipeline.syncs import advance
from mixpeek_dagster.settings import Settings
from mixpeek_dagster.testing import FakeSource
from tests.pipeline.test_syncs_fuzz import SEEDS, mutate
from tests.pipeline.worlds import NOW, Clock, Library, opened_library


@pytest.fixture
def library(settings: Settings, catalog_url: str, clock: Clock) -> Iterator[Library]:
    with opened_library(replace(settings, catalog_url=catalog_url), clock) as library:
        yield library


def another(library: Library, world: str = "default", **config: Any) -> Sync:
    """One more sync of the bucket; it is the library's now, and the one before is returned."""
    before = library.sync
    with library.warehouse.catalog.transaction() as records:
        library.sync = library._sync(records, config)
        if world != "default":
            library.sync = library.sync.model_copy(update={"connection_id": moved(records, library.sync, world)})
    return before


def follow_place(library: Library, place: Path | str, *, provider: str = "local", connection: Any = None) -> Sync:
    body = {"provider": provider, "connection": connection or {}, "sync_config": {"source_path": str(place)}}
    with library.warehouse.catalog.transaction() as records:
        return create_sync(records, body, warehouse=library.warehouse, bucket=library.bucket, now=NOW)


def moved(records: Any, sync: Sync, world: str) -> str:
    connection, secrets = records.syncs.connection(sync.connection_id)
    records.syncs.put_connection(connection, body={**connection.config, "world": world}, secrets=secrets)
    return str(connection.connection_id)


def delete(library: Library) -> None:
    with library.warehouse.catalog.transaction() as records:
        delete_sync(records, library.warehouse, library.now(), now=library.warehouse.now())


def left(library: Library) -> int:
    """How many keys and records there are of deleted syncs."""
    with library.warehouse.catalog.reading() as records:
        rows = records.connection.exec_driver_sql(
            "SELECT count(*) FROM source_keys WHERE sync_id NOT IN (SELECT sync_id FROM syncs)"
        ).scalar_one()
        return int(rows) + len(records.shared_keys.left(library.bucket.bucket_id))


def cycle(library: Library, *syncs: Sync) -> None:
    """A pass of each of these syncs in turn, and all that comes of it."""
    now = library.sync
    for library.sync in syncs:
        library.poll()
        library.run()
    library.sync = now


def fill(library: Library, *names: str) -> None:
    for name in names:
        library.world.put(name, name.encode())


# Deleted and made again


@pytest.mark.parametrize("order", ["bytes", "shuffled"])
def test_a_sync_that_is_made_again_takes_its_objects_over(library: Library, order: Any) -> None:
    library.world.order, library.world.page_size = order, 2
    fill(library, "a.txt", "b.txt", "c.txt")
    library.cycle()
    before, inferred = {one.object_id for one in library.objects().values()}, library.inferred()
    delete(library)
    assert left(library) == 4
    fill(library, "d.txt")
    library.world.delete("c.txt")
    library.world.put("b.txt", b"changed in between")
    another(library)
    planned = plan_sync(library.warehouse, library.sync.sync_id)
    counters = library.cycle().counters
    assert (counters.new, counters.changed, counters.unchanged) == (1, 1, 1)
    assert (planned.counters.new, planned.counters.changed, planned.to_extract) == (1, 1, 2)
    objects = library.objects()
    assert {objects[name].object_id for name in ("a.txt", "b.txt", "c.txt")} == before
    assert {objects[name].sync_id for name in ("a.txt", "b.txt", "d.txt")} == {library.sync.sync_id}
    assert library.texts() == sorted([5, 18, 5, 5]), "what was gone before it was made again stays, as it was left"
    assert (library.inferred() - inferred, left(library)) == (2, 2)
    library.world.delete("a.txt")
    library.cycle()
    assert "a.txt" not in library.objects()


def test_what_the_first_had_not_read_is_read_for_the_second(library: Library) -> None:
    library.world.page_size = 1
    fill(library, "a.txt", "b.txt")
    library.poll()
    library.advance(budget_s=0)
    delete(library)
    library.run()
    assert library.object_statuses() == {ObjectStatus.FAILED}
    another(library)
    assert library.cycle().counters.new == 0
    assert (library.object_statuses(), library.texts(), left(library)) == ({ObjectStatus.COMPLETED}, [5, 5], 0)
    library.assert_exact()


def test_a_sync_that_is_made_again_for_a_part_leaves_the_rest_alone(library: Library) -> None:
    fill(library, "a.txt", "videos/b.txt")
    library.cycle()
    delete(library)
    another(library, source_path="/videos/")
    library.cycle()
    assert set(library.objects()) == {"a.txt", "videos/b.txt"}
    assert len(library.documents()) == 2
    delete(library)
    another(library)
    library.cycle()
    assert (len(library.documents()), left(library)) == (2, 0)
    library.assert_follows_source()


def test_a_sync_of_another_place_takes_nothing_over(library: Library) -> None:
    fill(library, "a.txt")
    library.cycle()
    delete(library)
    FakeSource.worlds["other"] = type(library.world)()
    FakeSource.worlds["other"].put("a.txt", b"another file")
    another(library, world="other")
    library.poll()
    library.run()
    assert (len(library.documents()), left(library)) == (2, 2)


def test_updates_that_are_not_wanted_wait_with_what_was_taken_over(library: Library) -> None:
    fill(library, "a.txt")
    library.cycle()
    delete(library)
    library.world.put("a.txt", b"changed")
    another(library, reconcile={"on_update": False})
    for _ in range(2):
        assert library.cycle().counters.new == 0
    assert (library.texts(), len(library.objects())) == ([5], 1)
    library.configure(reconcile={})
    library.cycle()
    assert library.texts() == [7]


def test_a_bucket_goes_with_what_its_deleted_syncs_left(library: Library) -> None:
    fill(library, "a.txt")
    library.cycle()
    delete(library)
    assert left(library) == 2
    with library.warehouse.catalog.transaction() as records:
        records.syncs.remove_of_bucket(library.bucket.bucket_id)
    assert left(library) == 0


# Two at once


def test_two_syncs_over_the_same_files_make_one_object_of_each(library: Library) -> None:
    fill(library, "a.txt", "b/c.txt")
    first = another(library, source_path="/b/")
    second = library.sync
    cycle(library, second, first, second)
    assert set(library.objects()) == {"a.txt", "b/c.txt"}
    assert len(library.documents()) == 2
    fill(library, "b/d.txt")
    library.world.put("b/c.txt", b"changed")
    cycle(library, first, second, first)
    assert library.texts() == [5, 7, 7]
    assert {path: one.revision for path, one in library.objects().items()} == {"a.txt": 1, "b/c.txt": 2, "b/d.txt": 1}


@pytest.mark.parametrize("by", ["first", "second"])
def test_a_file_that_is_gone_goes_when_all_have_seen_it(library: Library, by: str) -> None:
    fill(library, "a.txt", "b.txt")
    first = another(library)
    syncs = [first, library.sync]
    cycle(library, *syncs)
    library.world.delete("a.txt")
    cycle(library, *(syncs if by == "first" else syncs[::-1]))
    assert set(library.objects()) == {"b.txt"}
    assert len(library.documents()) == 1
    library.assert_exact()


def test_what_one_sync_takes_no_more_is_left_to_the_other(library: Library) -> None:
    fill(library, "a.txt", "b.txt")
    first = library.sync
    library.cycle()
    another(library)
    second = library.sync
    cycle(library, second)
    library.sync = first
    library.configure(file_filters={"include_patterns": ["b*"]})
    cycle(library, first)
    assert {path: one.sync_id for path, one in library.objects().items()} == {
        "a.txt": second.sync_id,
        "b.txt": first.sync_id,
    }
    delete(library)
    assert {one.sync_id for one in library.objects().values()} == {second.sync_id}
    library.world.put("b.txt", b"changed")
    library.world.delete("a.txt")
    cycle(library, second)
    assert library.texts() == [7]


@pytest.mark.parametrize("first", ["outer", "inner"])
def test_a_folder_of_this_machine_inside_another_is_another_place(library: Library, tmp_path: Path, first: str) -> None:
    """Its files are two objects, each of its own sync: a limit, see decision 16. What one sync does costs the other nothing."""
    outer, inner = tmp_path / "data", tmp_path / "data" / "photos"
    inner.mkdir(parents=True)
    for file in (outer / "a.txt", inner / "b.txt", inner / "c.txt"):
        file.write_text(file.name)
    syncs = [follow_place(library, outer), follow_place(library, inner)]
    cycle(library, *(syncs if first == "outer" else syncs[::-1]))
    assert set(library.objects()) == {"a.txt", "photos/b.txt", "photos/c.txt", "b.txt", "c.txt"}
    assert library.inferred() == 3, "the same content is not inferred again"
    (inner / "b.txt").write_text("changed")
    (inner / "c.txt").unlink()
    cycle(library, *syncs)
    assert library.texts() == [5, 7, 7]
    library.sync = syncs[first == "inner"]
    delete(library)
    assert set(library.objects()) == {"a.txt", "photos/b.txt", "b.txt"}, "as it was left"
    library.assert_exact()


@pytest.mark.parametrize("path", ["/", "/films", "/films/2026", "films/2026-*"])
def test_the_prefixes_of_a_bucket_at_a_provider_are_one_place(library: Library, path: str) -> None:
    connection = {
        "endpoint_url": "http://127.0.0.1:1",
        "bucket": "b",
        "credentials": {"access_key_id": "k", "secret_access_key": "s"},
    }
    library.with_settings(allowed_hosts=frozenset({"127.0.0.1"}))
    syncs = [follow_place(library, source, provider="s3", connection=connection) for source in ("/films/", path)]
    with library.warehouse.catalog.reading() as records:
        assert len({place_of(records, library.warehouse, sync) for sync in syncs} - {None}) == 1


def test_a_sync_that_is_done_keeps_no_file_that_is_gone(library: Library) -> None:
    fill(library, "a.txt", "b.txt")
    library.configure(sync_mode="initial_only")
    first = library.sync
    library.cycle()
    another(library)
    cycle(library, library.sync)
    library.world.put("b.txt", b"changed")
    library.world.delete("a.txt")
    cycle(library, library.sync)
    assert library.texts() == [7], "the one that goes on follows for both"
    assert first.sync_id != library.objects()["b.txt"].sync_id == library.sync.sync_id


def test_a_sync_that_is_done_keeps_what_another_takes_no_more(library: Library) -> None:
    fill(library, "a.txt", "b.txt")
    library.configure(sync_mode="initial_only")
    library.cycle()
    first = another(library)
    cycle(library, library.sync)
    library.world.put("a.txt", b"changed")
    library.cycle()
    assert library.objects()["a.txt"].sync_id == library.sync.sync_id
    library.configure(file_filters={"include_patterns": ["b*"]})
    library.cycle()
    assert (library.objects()["a.txt"].sync_id, library.texts()) == (first.sync_id, [5, 7])


def test_a_sync_that_replaces_duplicates_makes_them_its_own(library: Library) -> None:
    fill(library, "a.txt")
    library.cycle()
    another(library, skip_duplicates=False)
    assert library.cycle().counters.changed == 1
    (stored,) = library.objects().values()
    assert (stored.sync_id, stored.revision, library.texts()) == (library.sync.sync_id, 2, [5])
    assert library.cycle().counters.changed == 0


def test_a_deleted_object_that_two_syncs_have_comes_back_once(library: Library) -> None:
    fill(library, "a.txt")
    first = another(library)
    second = library.sync
    cycle(library, first, second)
    with library.warehouse.catalog.transaction() as records:
        ids = records.objects.ids_in_bucket(library.bucket.bucket_id)
        count, size = records.objects.remove(ids)
        records.buckets.count(library.bucket.bucket_id, objects=-count, size_bytes=-size)
    for library.sync in (first, second):
        library.set_sync(pending_full=True)
        library.cycle()
    assert len(library.objects()) == 1


def test_passes_of_two_syncs_at_one_moment_make_one_object_of_a_file(library: Library) -> None:
    library.world.page_size = 3
    fill(library, *(f"f{number:03d}.txt" for number in range(90)))
    syncs = [another(library), library.sync]
    together, failures = threading.Barrier(2), list[str]()

    def follow(sync: Sync) -> None:
        together.wait(30)
        for _ in range(200):
            progress = advance(library.warehouse, sync.sync_id, budget_s=0, force=True)
            if progress is not None and progress.error is not None:
                failures.append(progress.error)
            if progress is None or progress.finished:
                return

    threads = [threading.Thread(target=follow, args=[one]) for one in syncs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    owners = [one.sync_id for one in library.objects().values()]
    assert len(owners) == 90
    for library.sync in syncs:
        assert len(library.keys()) == 90


@pytest.mark.parametrize("seed", range(SEEDS // 2))
@pytest.mark.parametrize("order", ["bytes", "shuffled"])
def test_whatever_overlapping_syncs_do_every_file_is_one_object(library: Library, order: Any, seed: int) -> None:
    chance = random.Random(f"shared {order}{seed}")
    library.world.order, library.world.page_size = order, chance.randrange(1, 6)
    syncs, alive = [library.sync], list[str]()
    for _ in range(40):
        if chance.random() < 0.4:
            mutate(library, chance, alive)
        kind = chance.choice(["make", "make", "delete", "filter", "filter", *["advance"] * 6])
        if (kind == "make" and len(syncs) < 4) or not syncs:
            another(library, source_path=chance.choice(["/", "/", "/a/"]), skip_duplicates=chance.random() < 0.8)
            syncs.append(library.sync)
        library.sync = chance.choice(syncs)
        if kind == "delete":
            delete(library)
            syncs.remove(library.sync)
        elif kind == "filter":
            library.configure(file_filters=chance.choice([{}, {"exclude": ["**1*"]}, {"extensions": ["none"]}]))
        else:
            library.advance(budget_s=chance.choice([0, 20, 20]))
            library.run() if chance.random() < 0.5 else None
    if not any(one.spec.source_path == "/" for one in syncs):
        another(library)
        syncs.append(library.sync)
    for library.sync in syncs:
        if not library.now().spec.file_filters.is_empty:  # else it would look at every file again
            library.configure(file_filters={})
    for library.sync in syncs * 3:
        if library.poll().counters.held:  # a part of the place is empty: the other syncs leave that to its own
            with library.warehouse.catalog.transaction() as records:
                confirm_deletes(records, library.now(), now=library.warehouse.now())
        library.run()
    objects, live = library.objects(), {one.sync_id for one in syncs}
    listed = {key.decode(): entry for key, (entry, _) in library.world.files.items()}
    assert {path: objects[path].blobs[0].etag for path in listed} == {path: one.etag for path, one in listed.items()}
    assert {path for path, one in objects.items() if one.sync_id in live} == set(listed), "a deleted sync's files may be gone"
    there = {one.object_id for one in objects.values()}
    with library.warehouse.catalog.reading() as records:
        known = [row[5] for one in syncs for row in records.syncs.keys_between(one.sync_id, None, None)]
    assert set(known) <= there, "no sync names an object that another took away"
    documents = [one.root_object_id for one in library.documents()]
    for path in listed:
        assert documents.count(objects[path].object_id) == 1, path
    assert len(documents) == len(set(documents))
