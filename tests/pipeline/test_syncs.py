"""A sync follows its source exactly, whatever the listing does, and wherever it was stopped."""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mixpeek_dagster.catalog.syncs import JobRow, KeyState, SourceKey, SyncRecords
from mixpeek_dagster.errors import AccessDenied, Archived, BadListing, ProviderDown
from mixpeek_dagster.models.batches import BatchStatus
from mixpeek_dagster.models.ids import SyncId, SyncJobId
from mixpeek_dagster.models.objects import MAX_TRIES, ObjectStatus, StoredObject
from mixpeek_dagster.models.syncs import Phase, Sync, SyncStatus
from mixpeek_dagster.pipeline.cascade import delete_bucket
from mixpeek_dagster.pipeline.creation import create_sync
from mixpeek_dagster.pipeline.merge import ASKED_AT_ONCE, config_hash
from mixpeek_dagster.pipeline.plans import plan_sync
from mixpeek_dagster.pipeline.sync_control import confirm_deletes, delete_sync, give_up, pause, requeue, resume, trigger
from mixpeek_dagster.pipeline.sync_reports import DEAD, dead_letters
from mixpeek_dagster.pipeline.syncs import LOCK_S, advance
from mixpeek_dagster.pipeline.warehouse import Warehouse
from tests.pipeline.worlds import NOW, Library


def fill(library: Library, *names: str) -> None:
    for name in names:
        library.world.put(name, name.encode())


def letters(library: Library) -> list[SourceKey]:
    """Files that cannot become objects."""
    with library.warehouse.catalog.reading() as records:
        return records.syncs.dead_letters(library.sync.sync_id, [KeyState.REJECTED, KeyState.ARCHIVED])[0]


def many(count: int) -> list[str]:
    return [f"f{number:05d}.txt" for number in range(count)]


def confirm(library: Library) -> int:
    """Allow what the last pass held back."""
    with library.warehouse.catalog.transaction() as records:
        return confirm_deletes(records, library.now(), now=library.warehouse.now())


def items(library: Library) -> list[list[str]]:
    """The object ids of every batch, oldest batch first."""
    with library.warehouse.catalog.reading() as records:
        return [[item for _, item in records.batches.items(batch.batch_id)] for batch in library.batches()]


# What a pass sees


def test_a_first_pass_registers_every_file(library: Library) -> None:
    fill(library, "a.txt", "b/c.txt", "b/ü \n.txt")
    counters = library.poll().counters
    assert (counters.new, counters.listed, counters.changed, counters.deleted) == (3, 3, 0, 0)
    assert counters.bytes == sum(entry.size for entry, _ in library.world.files.values())
    library.assert_follows_source()


def test_an_idle_pass_changes_nothing_and_makes_no_batch(library: Library) -> None:
    fill(library, "a.txt", "b.txt")
    library.poll()
    before = library.objects()
    counters = library.poll().counters
    assert (counters.unchanged, counters.new, counters.changed) == (2, 0, 0)
    assert library.objects() == before
    assert len(library.batches()) == 1
    assert library.world.calls["head"] == 0


def test_new_changed_deleted_and_renamed_files_are_seen(library: Library) -> None:
    fill(library, "a.txt", "b.txt", "c.txt")
    library.poll()
    before = library.objects()
    library.world.put("a.txt", b"edited")
    library.world.delete("b.txt")
    library.world.put("renamed.txt", b"c.txt")
    library.world.delete("c.txt")
    library.world.put("new.txt", b"new")
    counters = library.poll().counters
    assert (counters.new, counters.changed, counters.deleted, counters.held) == (2, 1, 2, 0)
    library.assert_follows_source()
    after = library.objects()
    assert after["a.txt"].object_id == before["a.txt"].object_id
    assert (before["a.txt"].revision, after["a.txt"].revision) == (1, 2)
    assert items(library)[1] == [after[name].object_id for name in ("a.txt", "new.txt", "renamed.txt")]


def test_an_edit_of_the_same_size_at_the_same_time_is_seen_on_a_real_disk(warehouse: Warehouse, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    file = folder / "a.txt"
    file.write_text("one")
    library = Library(warehouse, warehouse.clock)  # type: ignore[arg-type]
    with warehouse.catalog.transaction() as records:
        body = {"provider": "local", "sync_config": {"source_path": str(folder)}}
        library.sync = create_sync(records, body, warehouse=warehouse, bucket=library.bucket, now=NOW)
    library.poll()
    times = (file.stat().st_atime_ns, file.stat().st_mtime_ns)
    file.write_text("two")
    os.utime(file, ns=times)
    assert file.stat().st_mtime_ns == times[1]
    assert library.poll().counters.changed == 1
    library.run()
    (document,) = library.documents()
    assert document.content_hash
    os.rename(file, folder / "b.txt")
    counters = library.poll().counters
    assert (counters.new, counters.deleted) == (1, 1)
    library.run()
    library.assert_exact()


@pytest.mark.parametrize("page_size", [1, 2, 3, 4, 5, 1000])
def test_the_first_and_the_last_files_of_a_listing_are_missed_too(library: Library, page_size: int) -> None:
    library.world.page_size = page_size
    fill(library, *many(6))
    library.poll()
    for name in ("f00005.txt", "f00004.txt", "f00000.txt"):
        library.world.delete(name)
        assert library.poll().counters.deleted == 1
        library.assert_follows_source()


def test_folder_markers_and_files_of_no_declared_type_are_counted_not_taken(library: Library) -> None:
    fill(library, "a.txt", "film.mp4")
    library.world.put("folder/", b"")
    counters = library.poll().counters
    assert (counters.new, counters.skipped, counters.bytes) == (1, 2, 5)
    assert set(library.objects()) == {"a.txt"}
    assert library.poll().counters.skipped == 2


def test_a_file_deleted_and_written_again_is_a_new_object(library: Library) -> None:
    fill(library, "a.txt", "b.txt")
    library.poll()
    before = library.objects()["a.txt"].object_id
    library.world.delete("a.txt")
    library.poll()
    fill(library, "a.txt")
    library.poll()
    assert library.objects()["a.txt"].object_id != before
    library.assert_follows_source()


# Listings that lie


@pytest.mark.parametrize("repeats", [0, 2])
@pytest.mark.parametrize("order", ["bytes", "shuffled", "broken"])
@pytest.mark.parametrize("page_size", [1, 3, 7, 1000])
def test_every_order_and_page_size_gives_the_same(library: Library, order: Any, page_size: int, repeats: int) -> None:
    library.world.order, library.world.page_size, library.world.repeats = order, page_size, repeats
    fill(library, *many(10))
    library.poll()
    library.assert_follows_source()
    for name in ("f00000.txt", "f00004.txt"):
        library.world.delete(name)
    library.world.put("f00005.txt", b"edited")
    fill(library, "e.txt", "g.txt")
    assert library.poll().counters.deleted == 2
    library.assert_follows_source()
    counters = library.poll().counters
    assert (counters.new, counters.changed, counters.deleted) == (0, 0, 0)
    revisions = [stored.revision for stored in library.objects().values()]
    assert sum(map(len, items(library))) == sum(revisions) + 2


def test_broken_order_makes_the_sync_sweep_from_then_on(library: Library) -> None:
    library.world.page_size = 3
    fill(library, *many(10))
    library.poll()
    assert not library.now().cursor.unordered
    library.world.order = "broken"
    library.poll()
    assert library.now().cursor.unordered
    library.assert_follows_source()


def test_one_page_may_name_a_file_twice(library: Library) -> None:
    library.world.order, library.world.page_size, library.world.repeats = "shuffled", 5, 5
    fill(library, *many(12))
    library.poll()
    library.assert_follows_source()
    original = type(library.warehouse.source(library.sync)).list_page

    def doubled(self: Any, **kwargs: Any) -> Any:
        page = original(self, **kwargs)
        return page._replace(entries=[*page.entries, *page.entries])

    fill(library, "new.txt")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mixpeek_dagster.testing.FakeSource.list_page", doubled)
        library.poll()
    library.assert_follows_source()


def test_files_that_a_listing_leaves_out_are_asked_for_by_name_before_they_go(library: Library) -> None:
    library.world.page_size = 4
    fill(library, *many(20))
    library.poll()
    library.world.hidden = {name.encode() for name in many(20)[12:]}
    counters = library.poll().counters
    assert (counters.deleted, counters.held, library.world.calls["head"]) == (0, 0, 8)
    library.assert_follows_source()
    library.world.hidden.clear()
    assert library.poll().counters.unchanged == 20


def test_an_empty_listing_after_a_good_one_deletes_nothing(library: Library) -> None:
    fill(library, *many(5))
    library.poll()
    files = library.world.files.copy()
    library.world.files.clear()
    progress = library.poll()
    assert progress.counters.held == 5
    assert len(library.objects()) == 5
    assert "nothing was deleted" in (library.now().last_error or "")
    library.world.files.update(files)
    progress = library.poll()
    assert (progress.counters.held, library.now().last_error) == (0, None)
    library.assert_follows_source()


def test_a_mass_delete_is_held_until_it_is_confirmed(library: Library) -> None:
    fill(library, *many(600))
    library.poll()
    for name in many(121):
        library.world.delete(name)
    assert library.poll().counters.held == 121
    assert library.poll().counters.held == 121, "it is still held in the next pass"
    assert len(library.objects()) == 600
    confirm(library)
    progress = library.poll()
    assert (progress.counters.deleted, progress.counters.held) == (121, 0)
    library.assert_follows_source()
    library.world.delete(many(600)[-1])
    assert library.poll().counters.deleted == 1
    for name in many(600)[200:500]:
        library.world.delete(name)
    assert library.poll().counters.held == 300, "a confirmation counts once"


def test_up_to_a_hundred_deletes_are_believed_in_a_small_source(library: Library) -> None:
    fill(library, *many(101))
    library.poll()
    for name in many(100):
        library.world.delete(name)
    assert library.poll().counters.deleted == 100
    library.assert_follows_source()


def test_more_than_five_hundred_confirmed_deletes_all_go(library: Library) -> None:
    fill(library, *many(1300))
    library.poll()
    for name in many(1200):
        library.world.delete(name)
    library.poll()
    confirm(library)
    assert library.poll().counters.deleted == 1200
    library.assert_follows_source()


def test_keys_are_counted_once_a_pass_however_many_go(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting reads every key of the sync."""
    counted: list[SyncId] = []
    original = SyncRecords.count_keys

    def count_keys(self: SyncRecords, sync_id: SyncId) -> dict[KeyState, int]:
        counted.append(sync_id)
        return original(self, sync_id)

    monkeypatch.setattr(SyncRecords, "count_keys", count_keys)
    fill(library, *many(2600))
    library.poll()
    assert counted == [], "nothing is missing"
    for name in many(2500):
        library.world.delete(name)
    library.poll()
    confirm(library)
    counted.clear()
    assert library.poll().counters.deleted == 2500
    assert len(counted) == 1


def test_who_asks_a_slow_provider_for_missing_files_keeps_its_lock(library: Library) -> None:
    """Of two processes each would wait until the other's lock is over, ask for all files again, and record nothing."""
    fill(library, *many(1000))
    library.poll()
    for name in many(200):
        library.world.delete(name)
    taken: list[bool] = []

    def slow(name: str) -> None:
        if name == "head":
            library.clock.move(LOCK_S / 150)
            with library.warehouse.catalog.transaction() as records:
                now = library.warehouse.now()
                taken.append(records.syncs.lock(library.sync.sync_id, owner="other:1", now=now, until="~"))

    library.world.before = slow
    assert library.poll().counters.deleted == 200
    assert (len(taken), any(taken)) == (200, False)


def test_a_confirmation_is_for_as_many_deletes_as_were_held(library: Library) -> None:
    fill(library, *many(1000))
    library.poll()
    for name in many(300):
        library.world.delete(name)
    library.poll()
    assert confirm(library) == 300
    for name in many(990)[300:]:
        library.world.delete(name)
    progress = library.poll()
    assert (progress.counters.deleted, progress.counters.held) == (0, 990)
    assert len(library.objects()) == 1000
    assert confirm(library) == 990
    assert library.poll().counters.deleted == 990
    library.assert_follows_source()


def test_a_source_that_vanishes_after_a_confirmation_keeps_its_objects(library: Library) -> None:
    fill(library, *many(1000))
    library.poll()
    for name in many(300):
        library.world.delete(name)
    library.poll()
    confirm(library)
    library.world.files.clear()
    assert library.poll().counters.held == 1000
    assert len(library.objects()) == 1000


@pytest.mark.parametrize("error", [BadListing("cut short"), ProviderDown("503"), AccessDenied("403")], ids=repr)
@pytest.mark.parametrize("order", ["bytes", "shuffled"])
def test_a_failed_page_keeps_the_place_and_deletes_nothing(library: Library, order: Any, error: Exception) -> None:
    library.world.order, library.world.page_size = order, 3
    fill(library, *many(10))
    library.poll()

    def fail_on_the_third_page(name: str) -> None:
        if name == "list" and library.world.calls["list"] == 3:
            raise error

    library.world.calls.clear()
    library.world.before = fail_on_the_third_page
    library.world.delete("f00000.txt")
    progress = library.advance()
    assert progress is not None
    assert progress.error == str(error)
    sync = library.now()
    assert (sync.cursor.counters.pages, sync.consecutive_failures, sync.last_error) == (2, 1, str(error))
    assert len(library.objects()) == 10
    assert library.advance(force=False) is None, "the next try waits"
    library.clock.move(300)
    progress = library.advance(force=False)
    assert progress is not None
    assert progress.finished
    library.assert_follows_source()
    assert (library.now().consecutive_failures, library.now().last_error) == (0, None)


def test_access_refused_while_asking_for_missing_files_deletes_nothing(library: Library) -> None:
    fill(library, *many(10))
    library.poll()
    library.world.delete("f00003.txt")

    def refuse(name: str) -> None:
        if name == "head":
            raise AccessDenied("403")

    library.world.before = refuse
    assert library.poll().error == "403"
    assert len(library.objects()) == 10
    library.world.before = lambda _: None
    assert library.poll().counters.deleted == 1
    library.assert_follows_source()


def test_a_missing_file_that_may_not_be_asked_for_keeps_its_object_and_stops_nothing(
    library: Library, refuse: Callable[[str], None]
) -> None:
    fill(library, "a.txt", "b.txt", "c.txt")
    library.poll()
    refuse("a.txt")
    for name in ("a.txt", "b.txt"):
        library.world.delete(name)
    for number in range(3):
        fill(library, f"new{number}.txt")
        progress = library.poll()
        assert (progress.finished, progress.error) == (True, "403 on a.txt")
        assert progress.counters.new == 1
        assert progress.counters.deleted == (number == 0), "b.txt goes, and a.txt is asked for again each time"
    assert set(library.objects()) == {"a.txt", "c.txt", "new0.txt", "new1.txt", "new2.txt"}
    assert library.keys()["a.txt"] is KeyState.MISSING
    sync = library.now()
    assert (sync.last_error, sync.cursor.phase, sync.consecutive_failures) == ("403 on a.txt", Phase.IDLE, 0)
    refuse("")
    assert library.poll().counters.deleted == 1
    assert library.now().last_error is None
    library.assert_follows_source()


@pytest.mark.parametrize("order", ["bytes", "shuffled"])
def test_more_files_that_may_not_be_asked_for_than_are_asked_at_once_do_not_hide_the_others(
    library: Library, refuse: Callable[[str], None], order: Any
) -> None:
    library.world.order = order
    fill(library, *(f"closed/{name}" for name in many(600)), *many(700))
    library.poll()
    refuse("closed/")
    library.world.files.clear()
    fill(library, "new.txt")
    assert library.poll().counters.held == 1300
    confirm(library)
    for _ in range(3):
        assert not library.advance(budget_s=0).finished  # type: ignore[union-attr]
    progress = library.poll()
    assert (progress.counters.deleted, progress.finished) == (700, True)
    assert progress.error == "403 on closed/f00000.txt (599 other missing files are refused, too; their objects stay)"
    assert len(library.objects()) == 601


@pytest.mark.parametrize("order", ["bytes", "shuffled", "broken"])
def test_a_refused_token_starts_the_pass_again(library: Library, order: Any) -> None:
    library.world.order, library.world.page_size = order, 3
    fill(library, *many(10))
    assert not library.advance(budget_s=0).finished  # type: ignore[union-attr]
    assert not library.advance(budget_s=0).finished  # type: ignore[union-attr]
    library.world.refuses_tokens = True
    assert "token" in (library.advance(budget_s=0).error or "")  # type: ignore[union-attr]
    library.world.refuses_tokens = False
    library.world.delete("f00002.txt")
    library.poll()
    library.poll()
    library.assert_follows_source()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("order", ["bytes", "shuffled"])
@pytest.mark.parametrize("kind", ["same", "cycle", "fresh"])
def test_a_listing_that_never_ends_is_an_error_and_no_hang(
    library: Library, kind: Any, order: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mixpeek_dagster.pipeline.merge.IDLE_PAGES", 50)
    library.world.order, library.world.page_size = order, 4
    fill(library, *many(10), "skipped.mp4" if kind == "cycle" else "z.txt")
    library.poll()
    library.world.endless = kind
    fill(library, "new.txt")
    progress = library.advance(budget_s=40.0)
    assert progress is not None
    if kind != "same" and order == "bytes":  # keys that come again are out of order: the pass starts again, as a sweep
        assert library.now().cursor.unordered
    assert "The listing of fake://default/ " in (progress.error or "")
    library.world.endless = None
    library.poll()
    library.poll()
    library.world.files.pop(b"skipped.mp4", None)
    library.assert_follows_source()


def test_a_source_that_fails_for_weeks_is_still_asked(library: Library) -> None:
    def down(_: str) -> None:
        raise ProviderDown("503")

    library.world.before = down
    library.set_sync(consecutive_failures=5000)
    assert library.poll().error == "503"
    assert library.now().consecutive_failures == 5001


# What is taken


def test_filters_that_change_add_and_remove_objects(library: Library) -> None:
    fill(library, "a.txt", "b.md", "c.txt")
    library.poll()
    library.configure(file_filters={"extensions": ["txt"]})
    counters = library.poll().counters
    assert (counters.deleted, counters.skipped, counters.new) == (1, 1, 0)
    assert set(library.objects()) == {"a.txt", "c.txt"}
    library.configure(file_filters={"extensions": ["md"]})
    counters = library.poll().counters
    assert (counters.deleted, counters.new) == (2, 1)
    assert set(library.objects()) == {"b.md"}
    library.configure(file_filters={})
    library.poll()
    library.assert_follows_source()


@pytest.mark.parametrize("order", ["bytes", "shuffled", "broken"])
def test_filters_that_no_longer_take_most_files_ask_before_objects_go(library: Library, order: Any) -> None:
    library.world.order, library.world.page_size, library.world.repeats = order, 70, 0 if order == "bytes" else 3
    fill(library, *many(400), "a.md")
    library.cycle()
    before = library.objects()
    library.configure(file_filters={"include_patterns": ["*.tXt", "*.md"]})
    for _ in range(2):
        progress = library.poll()
        assert (progress.counters.deleted, progress.counters.held) == (0, 400)
        assert "no longer taken" in (library.now().last_error or "")
    assert library.objects() == before
    library.configure(file_filters={"include_patterns": ["*.txt", "*.md"]})
    progress = library.poll()
    assert (progress.counters.held, progress.counters.changed, library.now().last_error) == (0, 0, None)
    assert library.objects() == before
    library.assert_follows_source()
    library.configure(file_filters={"include_patterns": ["*.md"]})
    library.poll()
    assert confirm(library) == 400
    assert library.poll().counters.deleted == 400
    assert library.world.calls["head"] == 0, "the listing names them: nobody has to ask"
    assert list(library.keys()) == ["a.md"]
    library.assert_exact()


def test_filters_that_take_nothing_any_more_ask_however_few_files_there_are(library: Library) -> None:
    fill(library, *many(5))
    library.poll()
    library.configure(file_filters={"extensions": ["text"]})
    assert library.poll().counters.held == 5
    assert len(library.objects()) == 5


def test_a_file_that_is_taken_again_keeps_its_object_though_updates_are_not_wanted(library: Library) -> None:
    fill(library, *many(150))
    library.poll()
    library.configure(file_filters={"extensions": ["md"]}, reconcile={"on_update": False})
    assert library.poll().counters.held == 150
    for name in many(150):
        library.world.put(name, b"edited")
    library.configure(file_filters={})
    progress = library.poll()
    assert (progress.counters.deleted, progress.counters.changed, progress.counters.held) == (0, 0, 0)
    assert len(library.objects()) == 150
    library.configure(reconcile={})
    assert library.poll().counters.changed == 150
    library.assert_follows_source()


def test_held_files_stay_once_drift_is_not_reconciled_any_more(library: Library) -> None:
    fill(library, *many(150))
    library.poll()
    library.configure(file_filters={"extensions": ["md"]})
    assert library.poll().counters.held == 150
    library.configure(reconcile={"on_filter_drift": False})
    progress = library.poll()
    assert (progress.counters.deleted, progress.counters.held, library.now().last_error) == (0, 0, None)
    assert set(library.keys().values()) == {KeyState.LIVE}
    for name in many(149):
        library.world.delete(name)
    assert library.poll().counters.held == 149, "files that are really gone are another matter"


def test_another_source_path_takes_away_what_is_not_below_it(library: Library) -> None:
    fill(library, "a/one.txt", "a/two.txt", "b/three.txt")
    library.poll()
    library.configure(source_path="a")
    assert library.poll().counters.deleted == 1
    assert set(library.objects()) == {"a/one.txt", "a/two.txt"}
    library.configure(source_path="b")
    counters = library.poll().counters
    assert (counters.new, counters.deleted, counters.held) == (1, 2, 0)
    assert set(library.objects()) == {"b/three.txt"}


def test_filters_changed_in_the_middle_of_a_pass_hold_for_all_of_it(library: Library) -> None:
    library.world.page_size = 2
    fill(library, "a.md", "b.txt", "c.md", "d.txt", "e.md", "f.txt")
    assert not library.advance(budget_s=0).finished  # type: ignore[union-attr]
    library.configure(file_filters={"extensions": ["txt"]})
    library.poll()
    library.poll()
    assert set(library.objects()) == {"b.txt", "d.txt", "f.txt"}


def test_without_reconciling_drift_the_objects_stay_and_are_not_doubled_later(library: Library) -> None:
    fill(library, "a.txt", "b.md")
    library.configure(reconcile={"on_filter_drift": False})
    library.poll()
    library.configure(file_filters={"extensions": ["txt"]})
    assert library.poll().counters.deleted == 0
    assert set(library.objects()) == {"a.txt", "b.md"}
    library.configure(file_filters={})
    library.poll()
    library.assert_follows_source()


def test_without_reconciling_deletes_and_updates_objects_stay_as_they_are(library: Library) -> None:
    fill(library, "a.txt", "b.txt")
    library.configure(reconcile={"on_delete": False, "on_update": False})
    library.poll()
    before = library.objects()
    library.world.put("a.txt", b"edited")
    library.world.delete("b.txt")
    counters = library.poll().counters
    assert (counters.changed, counters.deleted) == (0, 0)
    assert library.objects() == before
    library.configure(reconcile={})
    library.poll()
    library.assert_follows_source()


def test_without_extracting_again_a_changed_file_is_recorded_and_not_queued(library: Library) -> None:
    library.configure(reconcile={"re_extract_on_update": False})
    fill(library, "a.txt")
    library.cycle()
    library.world.put("a.txt", b"edited")
    fill(library, "b.txt")
    assert library.poll().counters.changed == 1
    assert [len(batch) for batch in items(library)] == [1, 1]
    library.assert_follows_source()


def test_without_extraction_of_changes_an_object_keeps_how_it_came_out(library: Library) -> None:
    library.configure(reconcile={"re_extract_on_update": False})
    library.world.put("done.txt", b"done")
    library.cycle()
    library.world.put("waiting.txt", b"waiting")
    library.poll()
    library.world.put("done.txt", b"done, and changed")
    library.world.put("waiting.txt", b"waiting, and changed")
    library.cycle()
    assert library.object_statuses() == {ObjectStatus.COMPLETED}
    assert library.texts() == [4, 20], "what was never extracted is"


def test_files_from_before_the_sync_was_to_begin_are_not_taken(library: Library) -> None:
    library.configure(sync_from="2026-01-01T00:00:00Z")
    library.world.put("old.txt", b"old", modified_at=1.6e9)
    library.world.put("new.txt", b"new", modified_at=1.8e9)
    assert (library.poll().counters.new, set(library.objects())) == (1, {"new.txt"})
    library.configure(sync_from=None)
    library.poll()
    library.assert_follows_source()


@pytest.mark.parametrize("order", ["bytes", "shuffled", "broken"])
def test_a_run_takes_no_more_objects_than_it_may_and_the_next_goes_on(library: Library, order: Any) -> None:
    library.world.order, library.world.page_size = order, 1 if order == "shuffled" else 4
    library.configure(max_objects_per_run=3, polling_interval_seconds=60)
    fill(library, *many(8))
    taken, jobs = [], set()
    for _ in range(3):
        progress = library.advance(force=False)
        assert progress is not None
        assert progress.finished
        taken.append(len(library.objects()))
        jobs.add(library.now().cursor.job_id)
        assert library.advance(force=False) is None, "the rest waits for the next run"
        library.clock.move(60)
    if order == "bytes":
        assert taken == [3, 6, 8]
    assert taken[-1] == 8
    assert library.world.calls["list"] <= 12, "no run starts from the beginning"
    library.assert_follows_source()
    with library.warehouse.catalog.reading() as records:
        rows, total = records.syncs.jobs(library.sync.sync_id)
    assert total == 3
    assert {row.status for row in rows} == {"completed"}
    assert sum(map(len, items(library))) == 8
    assert library.now().passes == (2 if order == "broken" else 1), "it was one pass, but where the last page was just full"
    for name in many(8)[1:]:
        library.world.delete(name)
    library.configure(max_objects_per_run=1)
    assert library.poll().counters.deleted == 7


def test_an_initial_sync_of_many_runs_does_not_wait_between_them(library: Library) -> None:
    library.configure(sync_mode="initial_only", max_objects_per_run=2)
    fill(library, *many(5))
    for _ in range(3):
        assert library.advance(force=False) is not None
    assert library.now().status is SyncStatus.COMPLETED
    assert library.advance(force=False) is None
    library.assert_follows_source()


def test_a_full_pass_looks_at_every_file_again(library: Library) -> None:
    needs(library, "title")
    fill(library, "a.txt", "b.txt")
    assert library.poll().counters.failed == 2
    assert library.poll().counters.failed == 0
    library.set_sync(pending_full=True, triggered_at=NOW)
    assert library.poll().counters.failed == 2
    assert library.poll().counters.failed == 0


def asks(library: Library, *, full: bool = False, sync: Sync | None = None) -> SyncJobId:
    """Ask for a pass, as somebody who last read the sync as `sync`."""
    with library.warehouse.catalog.transaction() as records:
        return trigger(records, sync or library.now(), full=full, now=library.warehouse.now())


def job(library: Library, job_id: SyncJobId) -> JobRow:
    with library.warehouse.catalog.reading() as records:
        return records.syncs.job(library.sync.sync_id, job_id)


def test_a_full_pass_that_was_asked_for_stays_asked_for_when_a_plain_one_is(library: Library) -> None:
    library.poll()
    before = library.now()
    asks(library, full=True)
    asks(library, sync=before)
    assert library.now().pending_full
    library.poll()
    assert not library.now().pending_full


def just_before_a_pass_begins(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], object]) -> None:
    """Let something happen once, after the next call has read the sync, and before it records that a pass begins."""
    left = [happens]

    def hash_then(*arguments: Any, **named: Any) -> str:
        if left:
            left.pop()()
        return config_hash(*arguments, **named)

    monkeypatch.setattr("mixpeek_dagster.pipeline.syncs.config_hash", hash_then)


def test_a_full_pass_asked_for_while_one_begins_is_that_one(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    needs(library, "title")
    fill(library, "a.txt", "b.txt")
    library.poll()
    asked: list[SyncJobId] = []
    just_before_a_pass_begins(monkeypatch, lambda: asked.append(asks(library, full=True)))
    assert library.poll().counters.failed == 2, "every file was looked at again"
    assert job(library, asked[0]).status == "completed"
    assert (library.now().pending_full, library.now().triggered_at) == (False, None)


@pytest.mark.parametrize("mode", ["continuous", "initial_only"])
def test_a_pass_asked_for_during_one_that_fails_for_a_while_follows_it_at_once(library: Library, mode: str) -> None:
    library.configure(sync_mode=mode)
    library.world.page_size = 1
    fill(library, "a.txt", "b.txt", "c.txt")
    library.advance(budget_s=0)
    asked = asks(library, full=True)

    def down(_: str) -> None:
        raise ProviderDown("503")

    library.world.before = down
    assert library.advance(force=False).error == "503"  # type: ignore[union-attr]
    assert library.advance(force=False) is None, "it waits before it tries again"
    library.world.before = lambda _: None
    library.clock.move(60)
    assert library.advance(force=False).finished  # type: ignore[union-attr]
    assert job(library, asked).started_at is None
    assert library.advance(force=False).finished  # type: ignore[union-attr]
    assert job(library, asked).status == "completed"
    assert not library.now().pending_full
    assert library.advance(force=False) is None


def test_a_full_pass_asked_for_between_the_runs_of_a_long_one_follows_its_last_run(library: Library) -> None:
    library.configure(max_objects_per_run=2)
    fill(library, *many(5))
    library.advance()
    asked = asks(library, full=True)
    for _ in range(2):
        assert library.advance(force=False).finished  # type: ignore[union-attr]
        assert job(library, asked).started_at is None, "the rest of the pass that was under way is not that one"
    assert library.now().passes == 1
    assert library.advance(force=False).finished  # type: ignore[union-attr]
    assert job(library, asked).status == "completed"
    assert not library.now().pending_full
    assert library.advance(force=False) is None


def test_deletes_confirmed_while_a_pass_begins_are_made_by_it(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(library, *many(300))
    library.poll()
    for name in many(200):
        library.world.delete(name)
    library.poll()
    just_before_a_pass_begins(monkeypatch, lambda: confirm(library))
    assert library.poll().counters.deleted == 200
    assert library.now().confirmed_deletes == 0
    library.assert_follows_source()


def needs(library: Library, *names: str) -> None:
    """Make fields of the bucket required, or none."""
    with library.warehouse.catalog.transaction() as records:
        bucket = records.buckets.get(library.bucket.bucket_id, namespace_id=library.namespace.namespace_id)
        properties: dict[str, Any] = {"content": {"type": "text"}, "path": {"type": "string"}}
        properties |= {name: {"type": "string", "required": True} for name in names}
        schema = type(bucket.bucket_schema).model_validate({"properties": properties})
        records.buckets.put(bucket.model_copy(update={"bucket_schema": schema}))


def test_files_that_do_not_fit_the_schema_are_listed_with_the_reason(library: Library) -> None:
    needs(library, "title")
    fill(library, "a.txt")
    counters = library.poll().counters
    assert (counters.failed, counters.new) == (1, 0)
    assert library.keys() == {"a.txt": KeyState.REJECTED}
    (rejected,) = letters(library)
    assert rejected.error == "File 'a.txt': required field 'title' is missing."
    assert library.poll().counters.failed == 0, "an unchanged file is not tried again"
    library.world.put("a.txt", b"edited")
    assert library.poll().counters.failed == 1
    library.world.delete("a.txt")
    library.world.put("z.txt", b"z")
    library.poll()
    assert library.keys() == {"z.txt": KeyState.REJECTED}


def test_a_dead_letter_counts_how_often_it_was_tried_again(library: Library) -> None:
    needs(library, "title")
    fill(library, "a.txt", "b.txt")
    library.poll()

    def retries() -> list[int]:
        with library.warehouse.catalog.reading() as records:
            return [one.retries for one in records.syncs.dead_letters(library.sync.sync_id, [KeyState.REJECTED])[0]]

    assert retries() == [0, 0]
    for expected in ([1, 1], [2, 2]):
        with library.warehouse.catalog.transaction() as records:
            assert records.syncs.requeue(library.sync.sync_id, [KeyState.REJECTED]) == 2
        library.poll()
        assert retries() == expected
    needs(library)
    library.poll()
    needs(library, "title")
    library.world.put("a.txt", b"edited")
    library.poll()
    assert retries() == [0], "it was fine in between"


def test_a_schema_that_changed_is_applied_to_every_file(library: Library) -> None:
    needs(library, "title")
    fill(library, "a.txt")
    library.poll()
    needs(library)
    assert library.poll().counters.new == 1
    library.assert_follows_source()
    assert letters(library) == []


def test_an_object_whose_new_content_is_rejected_goes_with_its_file(library: Library) -> None:
    fill(library, "a.txt", "b.txt")
    library.poll()
    needs(library, "title")
    library.world.put("a.txt", b"edited")
    library.poll()
    assert library.keys()["a.txt"] is KeyState.REJECTED
    needs(library)
    library.poll()
    library.assert_follows_source()
    needs(library, "title")
    library.world.put("a.txt", b"edited again")
    library.poll()
    library.world.delete("a.txt")
    library.poll()
    assert set(library.objects()) == {"b.txt"}


def test_a_rejected_file_that_a_listing_left_out_stays_rejected(library: Library) -> None:
    needs(library, "title")
    fill(library, "a.txt", "b.txt")
    library.poll()
    library.world.hidden = {b"a.txt"}
    library.poll()
    library.world.hidden = set()
    library.poll()
    assert set(library.keys().values()) == {KeyState.REJECTED}


def test_archived_files_wait_until_they_are_restored(library: Library) -> None:
    fill(library, "b.txt")
    library.world.put("a.txt", b"cold", storage_class="GLACIER")
    counters = library.poll().counters
    assert (counters.new, counters.failed) == (1, 1)
    assert library.keys() == {"a.txt": KeyState.ARCHIVED, "b.txt": KeyState.LIVE}
    assert library.poll().counters.failed == 0
    entry, data = library.world.files[b"a.txt"]
    library.world.files[b"a.txt"] = (entry._replace(storage_class="STANDARD"), data)  # same bytes, same etag
    assert library.poll().counters.new == 1
    library.assert_follows_source()


def test_an_archived_file_that_is_restored_for_a_while_is_read_when_it_is_requeued(library: Library) -> None:
    library.world.put("a.txt", b"cold", storage_class="GLACIER")
    library.cycle()
    assert (library.keys(), library.texts()) == ({"a.txt": KeyState.ARCHIVED}, [])
    with library.warehouse.catalog.transaction() as records:  # restored: it is listed as before
        ((letter,), _) = records.syncs.dead_letters(library.sync.sync_id, [KeyState.ARCHIVED])
        assert letter.error == "stored as GLACIER: move it to a class that can be read, or restore it and requeue it"
        assert requeue(records, library.now(), [KeyState.ARCHIVED], now=NOW) == 1
    planned = plan_sync(library.warehouse, library.sync.sync_id).counters
    assert (library.cycle().counters.new, planned.new) == (1, 1)
    assert (library.keys(), library.texts()) == ({"a.txt": KeyState.LIVE}, [4])
    library.cycle()
    library.world.put("a.txt", b"colder", storage_class="GLACIER")
    library.cycle()
    assert library.keys() == {"a.txt": KeyState.ARCHIVED}, "what is written to the archive anew waits again"
    assert library.texts() == [4]


def test_an_archived_file_that_the_listing_tells_is_restored_is_read_by_the_next_pass(library: Library) -> None:
    library.world.shows_restored = True
    library.world.put("a.txt", b"cold", storage_class="GLACIER")
    library.world.put("b.txt", b"warm")
    library.cycle()
    cold = library.world.files[b"a.txt"]
    (letter,) = letters(library)
    assert letter.error == "stored as GLACIER: restore it, or move it to a class that can be read; the next pass reads it then"
    for restored in ("and expires unseen", "and is read"):
        library.world.files[b"a.txt"] = (cold[0]._replace(storage_class="STANDARD"), cold[1])
        if restored == "and is read":
            assert plan_sync(library.warehouse, library.sync.sync_id).counters.new == 1
            assert library.cycle().counters.new == 1
        library.world.files[b"a.txt"] = cold
        counters = library.cycle().counters
        assert (counters.new, counters.changed, counters.failed) == (0, 0, 0)
    assert library.world.calls["open"] == 2, "each file once"
    assert (library.keys(), library.texts()) == ({"a.txt": KeyState.LIVE, "b.txt": KeyState.LIVE}, [4, 4])


def test_an_archived_file_that_the_listing_tells_is_not_restored_is_not_read_however_often_it_is_requeued(
    library: Library,
) -> None:
    library.world.shows_restored = True
    library.world.put("a.txt", b"cold", storage_class="GLACIER")
    library.cycle()
    with library.warehouse.catalog.transaction() as records:
        assert requeue(records, library.now(), [KeyState.ARCHIVED], now=NOW) == 1
    library.cycle()
    assert (library.keys(), library.world.calls["open"]) == ({"a.txt": KeyState.ARCHIVED}, 0)


def test_an_archived_file_that_is_requeued_too_early_says_why_it_cannot_be_read(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mixpeek_dagster.pipeline.reading.time.sleep", lambda _: None)
    library.world.put("a.txt", b"cold", storage_class="GLACIER")
    library.cycle()
    with library.warehouse.catalog.transaction() as records:
        requeue(records, library.now(), [KeyState.ARCHIVED], now=NOW)

    def archived(name: str) -> None:
        if name == "open":
            raise Archived("a.txt cannot be read: restore it.")

    library.world.before = archived
    for _ in range(MAX_TRIES + 1):
        library.cycle()
    library.world.before = lambda _: None
    with library.warehouse.catalog.transaction() as records:
        (letter,), _ = dead_letters(records, library.sync.sync_id, limit=10)
        assert isinstance(letter, StoredObject) and "restore it" in str(letter.error)
        assert requeue(records, library.now(), DEAD, now=NOW) == 1
    library.cycle()
    assert library.texts() == [4]


def test_a_later_revision_of_what_was_given_up_is_a_dead_letter_again(library: Library) -> None:
    for name in ("a.txt", "b.txt"):
        library.world.put(name, b"cold", storage_class="GLACIER")
    library.cycle()

    def letters() -> list[bytes]:
        with library.warehouse.catalog.transaction() as records:
            return [one.key for one in dead_letters(records, library.sync.sync_id, limit=10)[0] if isinstance(one, SourceKey)]

    with library.warehouse.catalog.transaction() as records:
        assert give_up(records, library.now(), DEAD, now=NOW) == 2
    library.cycle()
    assert letters() == []
    library.world.put("a.txt", b"colder", storage_class="GLACIER")
    library.cycle()
    assert letters() == [b"a.txt"]


def test_an_object_whose_file_is_archived_goes_with_its_file(library: Library) -> None:
    fill(library, "a.txt", "b.txt")
    library.poll()
    library.world.put("a.txt", b"cold", storage_class="DEEP_ARCHIVE")
    library.poll()
    assert library.keys()["a.txt"] is KeyState.ARCHIVED
    library.world.delete("a.txt")
    library.poll()
    library.assert_follows_source()


# Stopping and going on


def test_a_pass_goes_on_in_another_process_where_it_was_stopped(library: Library, warehouse: Warehouse) -> None:
    library.world.page_size = 3
    fill(library, *many(10))
    seen = []
    for number in range(10):
        library.warehouse = Warehouse(settings=warehouse.settings, clock=warehouse.clock, owner=f"host:{number}")
        progress = library.advance(budget_s=0)
        library.warehouse.close()
        assert progress is not None
        seen.append((progress.counters.listed, progress.finished))
        if progress.finished:
            break
    library.warehouse = warehouse
    assert seen[:4] == [(3, False), (6, False), (9, False), (10, False)]
    assert seen[-1][1]
    assert library.world.calls["list"] == 4
    library.assert_follows_source()
    assert [len(batch) for batch in items(library)] == [10]


def test_a_triggered_pass_is_due_until_it_is_done(library: Library) -> None:
    library.world.page_size = 2
    fill(library, *many(7))
    library.poll()
    library.set_sync(next_pass_at=None, status=SyncStatus.COMPLETED, triggered_at=NOW)
    fill(library, "new.txt")
    for _ in range(20):
        progress = library.advance(budget_s=0, force=False)
        if progress is None:
            break
        finished = progress.finished
    assert finished
    assert library.now().cursor.phase is Phase.IDLE
    library.assert_follows_source()


def test_a_pass_keeps_its_budget(library: Library) -> None:
    library.world.page_size = 1
    fill(library, *many(200))

    def slow(name: str) -> None:
        if name == "list":
            time.sleep(0.02)

    library.world.before = slow
    listings = library.world.calls["list"]
    progress = library.advance(budget_s=0.3)
    assert progress is not None
    assert not progress.finished
    assert library.world.calls["list"] - listings <= 16, "0.3 s hold fifteen pages of 0.02 s"
    library.world.before = lambda _: None
    library.poll()
    library.assert_follows_source()


def test_only_one_process_makes_a_pass(library: Library, warehouse: Warehouse) -> None:
    fill(library, "a.txt")
    other = Warehouse(settings=warehouse.settings, clock=warehouse.clock, owner="other:1")
    with other.catalog.transaction() as records:
        until = other.now(plus_s=LOCK_S)
        assert records.syncs.lock(library.sync.sync_id, owner=other.owner, now=other.now(), until=until)
    assert library.advance() is None
    library.clock.move(LOCK_S + 1)
    assert library.advance() is not None, "a lock that nobody prolongs is taken over"
    other.close()


def test_two_threads_of_one_process_make_one_pass(library: Library) -> None:
    library.world.page_size = 1
    fill(library, *many(20))
    inside, go_on = threading.Event(), threading.Event()

    def wait(name: str) -> None:
        inside.set()
        assert go_on.wait(10)

    library.world.before = wait
    first = threading.Thread(target=lambda: advance(library.warehouse, library.sync.sync_id, budget_s=20, force=True))
    first.start()
    assert inside.wait(10)
    second = advance(library.warehouse, library.sync.sync_id, budget_s=0, force=True)
    go_on.set()
    first.join(20)
    assert second is None
    assert library.now().cursor.phase is Phase.IDLE
    library.assert_follows_source()


@pytest.mark.timeout(60)
def test_a_thread_that_waited_longer_than_its_lock_holds_makes_no_page_beside_another(library: Library) -> None:
    library.world.page_size = 1
    fill(library, *many(8))
    waits = {name: threading.Event() for name in ("slow", "other")}
    goes = {name: threading.Event() for name in ("slow", "other")}
    listed, done = dict.fromkeys(waits, 0), dict[str, Any]()

    def wait(name: str) -> None:
        thread = threading.current_thread().name
        listed[thread] += name == "list"
        if listed[thread] == {"slow": 2, "other": 3}[thread]:
            waits[thread].set()
            assert goes[thread].wait(20)

    def work(name: str) -> None:
        done[name] = advance(library.warehouse, library.sync.sync_id, budget_s=30, force=True)

    library.world.before = wait
    threads = {name: threading.Thread(target=work, args=(name,), name=name) for name in waits}
    threads["slow"].start()
    assert waits["slow"].wait(20)
    library.clock.move(LOCK_S + 1)
    threads["other"].start()
    assert waits["other"].wait(20)
    goes["slow"].set()
    threads["slow"].join(20)
    assert (done["slow"], listed["slow"]) == (None, 2), "it has lost the lock, though it is of the same process"
    assert library.now().locked_by is not None
    goes["other"].set()
    threads["other"].join(20)
    assert done["other"].finished
    assert library.now().passes == 1
    library.assert_follows_source()


def test_a_pass_whose_lock_was_taken_over_records_nothing_more(library: Library) -> None:
    library.world.page_size = 2
    fill(library, *many(6))

    def take_over(name: str) -> None:
        if library.world.calls["list"] == 2:
            with library.warehouse.catalog.transaction() as records:
                records.syncs.unlock(library.sync.sync_id)
                assert records.syncs.lock(library.sync.sync_id, owner="thief:1", now=NOW, until="~")

    library.world.before = take_over
    assert library.advance() is None
    assert len(library.objects()) == 2
    assert library.now().locked_by == "thief:1"


def paused_when(library: Library, method: str, *, calls: int) -> None:
    """Pause the sync while its source is being called so for the n-th time."""

    def pause(name: str) -> None:
        if name == method and library.world.calls[name] == calls:
            library.set_sync(status=SyncStatus.SUSPENDED)

    library.world.calls.clear()
    library.world.before = pause


def test_a_pause_ends_a_pass_after_the_page_that_is_being_taken(library: Library) -> None:
    library.world.page_size = 1
    fill(library, *many(6))
    paused_when(library, "list", calls=2)
    progress = library.advance(budget_s=3600)
    assert progress is not None
    assert (progress.finished, progress.error, library.world.calls["list"], len(library.objects())) == (False, None, 2, 2)
    assert library.now().status is SyncStatus.SUSPENDED
    assert library.advance() is None
    with library.warehouse.catalog.transaction() as records:
        resume(records, library.now(), now=library.warehouse.now())
    library.poll()
    assert library.world.calls["list"] == 6, "it goes on where it was"
    library.assert_follows_source()


def test_a_pause_ends_deletes_after_those_that_are_being_made(library: Library) -> None:
    fill(library, *many(1300))
    library.poll()
    for name in many(1200):
        library.world.delete(name)
    library.poll()
    confirm(library)
    paused_when(library, "head", calls=3)
    progress = library.advance()
    assert progress is not None
    assert not progress.finished
    assert len(library.objects()) == 1300 - ASKED_AT_ONCE
    assert library.advance() is None


def test_a_pause_during_the_last_page_outlives_the_pass(library: Library) -> None:
    fill(library, *many(3))
    paused_when(library, "list", calls=1)
    assert not library.advance().finished  # type: ignore[union-attr]
    assert library.now().status is SyncStatus.SUSPENDED
    assert library.advance() is None


@pytest.mark.parametrize("fails", [True, False])
@pytest.mark.parametrize("end", ["the sync is deleted", "the bucket is deleted", "the lock is taken over"])
@pytest.mark.parametrize("page", [1, 2])
def test_a_pass_whose_sync_is_taken_from_it_ends_quietly(library: Library, page: int, end: str, fails: bool) -> None:
    library.world.page_size = 2
    fill(library, *many(6))

    def take(_: str) -> None:
        if library.world.calls["list"] < page:
            return
        if end == "the bucket is deleted":
            whole = {"bucket_id": library.bucket.bucket_id, "namespace_id": library.namespace.namespace_id}
            delete_bucket(library.warehouse, whole)
        with library.warehouse.catalog.transaction() as records:
            if end == "the sync is deleted":
                records.syncs.remove(library.sync.sync_id)
            else:
                records.syncs.unlock(library.sync.sync_id)
        if fails:
            raise ProviderDown("503")

    library.world.before = take
    assert library.advance() is None
    assert len(library.objects()) == (0 if end == "the bucket is deleted" else 2 * (page - 1)), "nothing is recorded any more"
    if end == "the lock is taken over":
        assert library.now().last_error is None


def test_an_initial_only_sync_makes_one_pass(library: Library) -> None:
    library.configure(sync_mode="initial_only")
    fill(library, "a.txt")
    assert library.advance(force=False).finished  # type: ignore[union-attr]
    assert library.now().status is SyncStatus.COMPLETED
    library.clock.move(1e6)
    assert library.advance(force=False) is None


def test_an_initial_only_sync_that_is_done_stays_done_when_it_is_paused_and_resumed(library: Library) -> None:
    library.configure(sync_mode="initial_only")
    library.world.page_size = 1
    fill(library, "a.txt", "b.txt")

    def pause_and_resume() -> None:
        with library.warehouse.catalog.transaction() as records:
            pause(records, library.now(), now=library.warehouse.now())
        assert library.advance() is None
        with library.warehouse.catalog.transaction() as records:
            resume(records, library.now(), now=library.warehouse.now())

    pause_and_resume()
    assert library.now().status is SyncStatus.PENDING
    library.advance(budget_s=0)
    pause_and_resume()
    assert library.advance(force=False).finished, "its only pass goes on"  # type: ignore[union-attr]
    fill(library, "later.txt")
    pause_and_resume()
    assert library.now().status is SyncStatus.COMPLETED
    assert library.advance(force=False) is None
    assert set(library.objects()) == {"a.txt", "b.txt"}
    asks(library)
    pause_and_resume()
    assert library.advance(force=False) is not None, "a pass that was asked for is made"
    library.poll()
    library.assert_follows_source()


def test_a_continuous_sync_waits_for_its_interval(library: Library) -> None:
    library.configure(polling_interval_seconds=60)
    assert library.advance(force=False) is not None
    library.clock.move(50)
    assert library.advance(force=False) is None
    library.clock.move(10)
    assert library.advance(force=False) is not None


# Batches


def test_batches_are_cut_at_fixed_numbers_of_objects_whatever_the_pages(library: Library) -> None:
    library.configure(batch_chunk_size=4)
    library.world.page_size = 3
    fill(library, *many(10))
    while not library.advance(budget_s=0).finished:  # type: ignore[union-attr]
        pass
    found = library.objects()
    ids = [found[name].object_id for name in many(10)]
    assert items(library) == [ids[:4], ids[4:8], ids[8:]]
    assert library.statuses() == {BatchStatus.QUEUED}


def test_batches_that_are_not_to_be_submitted_stay_drafts(library: Library) -> None:
    library.configure(batch_chunk_size=2, skip_batch_submission=True)
    fill(library, *many(3))
    library.poll()
    assert library.statuses() == {BatchStatus.DRAFT}
    assert sorted(len(batch) for batch in items(library)) == [1, 2]


def test_a_draft_that_a_user_deletes_in_the_middle_of_a_pass_does_no_harm(library: Library) -> None:
    library.configure(batch_chunk_size=2, skip_batch_submission=True)
    library.world.page_size = 2
    fill(library, *many(8))
    library.advance(budget_s=0)
    library.advance(budget_s=0)
    with library.warehouse.catalog.transaction() as records:
        records.batches.remove(library.batches()[0].batch_id)
    assert library.poll().error is None
    library.assert_follows_source()


def test_a_bucket_without_collections_completes_its_batches_with_the_words(library: Library, warehouse: Warehouse) -> None:
    with warehouse.catalog.transaction() as records:
        records.collections.remove(library.passages.collection_id)
    fill(library, "a.txt")
    library.poll()
    (batch,) = library.batches()
    assert batch.status is BatchStatus.COMPLETED
    assert batch.error == "No collection reads from this bucket: nothing was extracted."


# Mappings


def test_a_mapping_fills_fields_and_its_change_reaches_every_object(library: Library) -> None:
    folder = {"target_type": "field", "source": {"type": "folder_path", "segment": 0}}
    library.configure(schema_mapping={"mappings": {"brand": folder}})
    fill(library, "acme/a.txt", "umbrella/b.txt")
    library.poll()
    assert {path: one.fields["brand"] for path, one in library.objects().items()} == {
        "acme/a.txt": "acme",
        "umbrella/b.txt": "umbrella",
    }
    library.configure(schema_mapping={"mappings": {"brand": {**folder, "transform": "uppercase"}}})
    counters = library.poll().counters
    assert counters.changed == 2
    assert {one.fields["brand"] for one in library.objects().values()} == {"ACME", "UMBRELLA"}
    assert library.poll().counters.unchanged == 2
    library.configure(schema_mapping={"mappings": {"brand": {**folder, "required": True}}})
    fill(library, "loose.txt")
    assert library.poll().counters.failed == 1
    (rejected,) = letters(library)
    assert rejected.error == "File 'loose.txt': mapped field 'brand' is required, and the path does not say it."


# Pages without news


def test_an_idle_pass_passes_over_every_page_and_counts_the_same(library: Library) -> None:
    library.world.page_size = 3
    for number in range(10):
        library.world.put(f"f{number:02d}.txt", b"x" * number)
        library.world.put(f"f{number:02d}.bin", b"not taken")
    library.configure(file_filters={"extensions": ["txt"]})
    library.poll()
    first = library.world.calls["passed over"]
    progress = library.poll()
    assert (first, library.world.calls["passed over"]) == (0, 7)
    counters = progress.counters
    assert (counters.listed, counters.unchanged, counters.skipped, counters.pages, counters.bytes) == (20, 10, 10, 7, 45)


@pytest.mark.parametrize("change", ["edit", "new", "delete", "rename"])
def test_a_page_with_news_is_read_and_only_that_one(library: Library, change: str) -> None:
    library.world.page_size = 5
    for number in range(25):
        library.world.put(f"f{number:02d}.txt", b"x")
    library.poll()
    library.poll()
    before = library.world.calls["passed over"]
    if change in ("edit", "new"):
        library.world.put("f12.txt" if change == "edit" else "f99.txt", b"news")
    else:
        library.world.delete("f24.txt")
    if change == "rename":
        library.world.put("g24.txt", b"x")
    library.poll()
    assert library.world.calls["passed over"] - before == 4
    library.assert_follows_source()
    library.poll()
    library.poll()
    library.assert_follows_source()


def test_a_requeued_key_is_looked_at_although_its_page_is_as_it_was(library: Library) -> None:
    library.world.put("cold.txt", b"x", storage_class="GLACIER")
    library.world.put("warm.txt", b"x")
    library.poll()
    library.world.put("warm.txt", b"y")
    library.poll()
    with library.warehouse.catalog.transaction() as records:
        assert records.syncs.requeue(library.sync.sync_id, [KeyState.ARCHIVED]) == 1
    before = library.world.calls["passed over"]
    assert library.poll().counters.new == 1, "it is tried"
    assert library.world.calls["passed over"] == before


def test_a_page_whose_update_was_not_wanted_is_read_until_it_is(library: Library) -> None:
    library.world.put("a.txt", b"one")
    library.poll()
    library.configure(reconcile={"on_update": False})
    library.world.put("a.txt", b"two, which is longer")
    library.poll()
    library.poll()
    library.configure(reconcile={"on_update": True})
    assert library.poll().counters.changed == 1
    library.assert_follows_source()


# Syncs that are deleted, and made again


def test_nothing_waits_for_ever_for_a_sync_that_was_deleted_during_its_pass(library: Library) -> None:
    library.world.page_size = 1
    fill(library, "a.txt", "b.txt", "c.txt")
    library.advance(budget_s=0)
    delete(library)
    assert library.statuses() == {BatchStatus.QUEUED}
    library.run()
    (stored,) = library.objects().values()
    assert (stored.status, "was deleted" in str(stored.error)) == (ObjectStatus.FAILED, True)
    assert all(status.is_terminal for status in library.statuses())


def test_drafts_that_a_sync_was_not_to_submit_outlive_it(library: Library) -> None:
    library.configure(skip_batch_submission=True)
    fill(library, "a.txt")
    library.poll()
    delete(library)
    assert library.statuses() == {BatchStatus.DRAFT}


def delete(library: Library) -> None:
    with library.warehouse.catalog.transaction() as records:
        delete_sync(records, library.warehouse, library.now(), now=library.warehouse.now())


@pytest.mark.parametrize("storage_class", ["STANDARD", "GLACIER"], ids=["readable", "archived"])
def test_other_files_in_place_of_all_that_there_were_are_not_believed(library: Library, storage_class: str) -> None:
    """So it looks when credentials are those of another account."""
    fill(library, "a.txt", "b.txt", "c.txt")
    library.cycle()
    kept = dict(library.world.files)
    library.world.files.clear()
    library.world.put("theirs.txt", b"x", storage_class=storage_class)
    assert plan_sync(library.warehouse, library.sync.sync_id).counters.held == 3
    counters = library.poll().counters
    assert (counters.new + counters.failed, counters.deleted, counters.held) == (1, 0, 3)
    assert "nothing was deleted" in str(library.now().last_error)
    library.world.files.update(kept)
    library.world.delete("theirs.txt")
    assert library.poll().counters.held == 0
    library.assert_follows_source()


@pytest.mark.parametrize("config", [{"max_deleted_ratio": 1.0}, {}], ids=["allowed", "confirmed"])
def test_a_source_may_be_filled_anew(library: Library, config: dict[str, Any]) -> None:
    library.configure(**config)
    fill(library, "a.txt", "b.txt")
    library.cycle()
    library.world.files.clear()
    fill(library, "c.txt", "d.txt")
    library.poll()
    if not config:
        library.set_sync(confirmed_deletes=2)
        library.poll()
    library.assert_follows_source()


def test_the_only_file_may_be_renamed(library: Library) -> None:
    fill(library, "a.txt")
    library.cycle()
    library.world.files.clear()
    fill(library, "b.txt")
    assert library.poll().counters.deleted == 1
    library.assert_follows_source()


def test_what_nobody_expected_is_recorded_on_the_sync_and_tried_again_later(library: Library) -> None:
    fill(library, "a.txt")
    library.cycle()

    def broken(name: str) -> None:
        if name == "list":
            raise KeyError("surprise")

    library.world.before = broken
    progress = library.advance()
    assert progress is not None
    assert not progress.finished
    now = library.now()
    assert "KeyError: 'surprise'" in str(now.last_error)
    assert "report it" in str(now.last_error)
    assert (now.consecutive_failures, now.status) == (1, SyncStatus.ACTIVE)
    assert str(now.next_pass_at) > library.warehouse.now()
    library.world.before = lambda _: None
    fill(library, "b.txt")
    library.poll()
    library.assert_follows_source()


@pytest.mark.parametrize(("asked", "waits"), [(120.0, 120.0), (1.0, 10.0), (1e9, 3600.0), (None, 10.0)])
def test_a_provider_is_left_alone_for_as_long_as_it_asks(library: Library, asked: float | None, waits: float) -> None:
    def busy(name: str) -> None:
        raise ProviderDown("429", retry_after_s=asked)

    library.world.before = busy
    library.advance()
    assert library.now().next_pass_at == library.warehouse.now(plus_s=waits)
