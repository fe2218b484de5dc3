"""Parts whose run ended without a word, vanished, or never came."""

import os
import time
from functools import partial

import pytest

from mixpeek_dagster.errors import AccessDenied, ProviderDown
from mixpeek_dagster.models.batches import MAX_STALLS, BatchStatus, PartStatus
from mixpeek_dagster.models.uploads import UploadCreate
from mixpeek_dagster.pipeline.batches import open_step
from mixpeek_dagster.pipeline.extraction import run_step
from mixpeek_dagster.pipeline.reconcile import GRACE_S, RunState, reconcile, run_ended
from mixpeek_dagster.pipeline.uploads import announce
from mixpeek_dagster.pipeline.warehouse import Warehouse
from tests.catalog.worlds import feature
from tests.pipeline.worlds import NOW, Library


def part_status(library: Library, key: str) -> PartStatus:
    with library.warehouse.catalog.reading() as records:
        part = records.batches.part(key)
    assert part is not None
    return part.status


def claimed(library: Library, *, run_id: str | None = None, run_key: str = "key") -> str:
    """A part that was handed out; with a run id, one that the run has begun."""
    if not library.objects():
        library.submit(library.add_objects({"a": "one"}))
    (one,) = library.claim()
    with library.warehouse.catalog.transaction() as records:
        records.batches.set_run_key([one.part], run_key)
        if run_id:
            open_step(records, one.part.partition_key, library.passages.collection_id, run_id=run_id, now=library.warehouse.now())
    return str(one.part.partition_key)


def test_a_part_whose_run_never_came_is_handed_out_again_after_a_while(library: Library) -> None:
    key = claimed(library)
    library.clock.move(GRACE_S - 5)
    assert reconcile(library.warehouse, lambda _: RunState.UNKNOWN).parts == 0
    assert part_status(library, key) is PartStatus.CLAIMED
    library.clock.move(10)
    assert reconcile(library.warehouse, lambda _: RunState.UNKNOWN).parts == 1
    assert part_status(library, key) is PartStatus.QUEUED


def test_a_run_that_vanished_while_it_worked_is_replaced(library: Library) -> None:
    key = claimed(library, run_id="r1")
    library.clock.move(GRACE_S + 1)
    assert reconcile(library.warehouse, lambda _: RunState.UNKNOWN).parts == 1
    library.run()
    assert part_status(library, key) is PartStatus.COMPLETED
    library.assert_exact()


def test_a_second_attempt_gets_its_time_too(library: Library) -> None:
    key = claimed(library, run_id="r1")
    library.clock.move(GRACE_S + 100)
    assert reconcile(library.warehouse, lambda _: RunState.FAILED).parts == 1
    claimed(library)
    assert reconcile(library.warehouse, lambda _: RunState.UNKNOWN).parts == 0, "its run may not have been made yet"
    assert part_status(library, key) is PartStatus.CLAIMED


def test_a_living_run_is_left_alone(library: Library) -> None:
    key = claimed(library, run_id="r1")
    library.clock.move(1e6)
    assert reconcile(library.warehouse, lambda _: RunState.ALIVE).words == "Nothing to settle."
    assert part_status(library, key) is PartStatus.RUNNING


@pytest.mark.parametrize("state", [RunState.FAILED, RunState.SUCCEEDED])
def test_a_run_that_ended_without_finishing_its_part_is_followed_by_another(library: Library, state: RunState) -> None:
    key = claimed(library, run_id="r1")
    assert reconcile(library.warehouse, lambda _: state).parts == 1
    assert part_status(library, key) is PartStatus.QUEUED


def test_a_part_that_no_run_gets_through_fails_in_the_end(library: Library) -> None:
    for _ in range(MAX_STALLS + 1):  # its first item is laid aside before
        key = claimed(library, run_id="r")
        reconcile(library.warehouse, lambda _: RunState.FAILED)
    assert part_status(library, key) is PartStatus.FAILED
    (batch,) = library.batches()
    assert batch.status is BatchStatus.FAILED
    assert "is failed" in (batch.error or "")


def test_a_run_canceled_in_dagster_cancels_its_batch(library: Library) -> None:
    key = claimed(library, run_id="r1")
    assert run_ended(library.warehouse, "r1", None, RunState.CANCELED, "stopped") == 1
    assert part_status(library, key) is PartStatus.CANCELED
    (batch,) = library.batches()
    assert (batch.status, batch.error) == (BatchStatus.CANCELED, "Its run was canceled in Dagster.")


def test_the_end_of_a_run_settles_its_own_parts_only(library: Library) -> None:
    key = claimed(library, run_id="r1", run_key="k1")
    assert run_ended(library.warehouse, "other", "k1", RunState.FAILED, "x") == 0
    assert run_ended(library.warehouse, "r1", "k1", RunState.FAILED, "x") == 1
    claimed(library, run_key="k2")
    assert run_ended(library.warehouse, "never began", "k1", RunState.FAILED, "x") == 0
    assert run_ended(library.warehouse, "never began", "k2", RunState.FAILED, "x") == 1
    assert part_status(library, key) is PartStatus.QUEUED


def test_the_late_news_of_a_run_that_finished_changes_nothing(library: Library) -> None:
    key = claimed(library)
    run_step(library.warehouse, key, library.passages, run_id="r1")
    (before,) = library.batches()
    assert run_ended(library.warehouse, "r1", "key", RunState.FAILED, "late") == 0
    assert library.batches() == [before]


def test_features_that_nobody_uses_are_dropped_after_a_week(library: Library) -> None:
    with library.warehouse.catalog.transaction() as records:
        records.documents.add_features([feature("m")], now=NOW)
    assert reconcile(library.warehouse, lambda _: RunState.ALIVE).features == 0
    library.clock.move(8 * 86400)
    done = reconcile(library.warehouse, lambda _: RunState.ALIVE)
    assert (done.features, "dropped 1 unused features" in done.words) == (1, True)


def test_passes_of_a_month_ago_are_forgotten(library: Library) -> None:
    def jobs() -> int:
        with library.warehouse.catalog.reading() as records:
            return records.syncs.jobs(library.sync.sync_id)[1]

    for _ in range(3):
        library.poll()
    library.world.page_size = 1
    for name in "ab":
        library.world.put(f"{name}.txt", b"one")
    library.advance(budget_s=0)
    assert reconcile(library.warehouse, lambda _: RunState.ALIVE).jobs == 0
    library.clock.move(31 * 86400)
    done = reconcile(library.warehouse, lambda _: RunState.ALIVE)
    assert (done.jobs, "3 passes of syncs" in done.words) == (3, True)
    assert jobs() == 1, "the one that is under way is not forgotten"
    assert library.poll().error is None


def test_a_batch_does_not_wait_for_a_collection_that_is_gone(library: Library) -> None:
    other = library.collection("other", {"type": "bucket", "bucket_ids": [library.passages.source.bucket_ids[0]]})
    library.world.put("a.txt", b"one")
    library.poll()
    with library.warehouse.catalog.transaction() as records:
        records.collections.remove(other.collection_id)
    reconcile(library.warehouse, lambda _: RunState.UNKNOWN)
    library.run()
    (batch,) = library.batches()
    assert batch.status is BatchStatus.COMPLETED
    assert len(library.documents()) == 1


def test_a_batch_whose_only_collection_was_disabled_ends_without_documents(library: Library) -> None:
    library.world.put("a.txt", b"one")
    library.poll()
    with library.warehouse.catalog.transaction() as records:
        records.collections.put(library.passages.model_copy(update={"enabled": False}))
    done = reconcile(library.warehouse, lambda _: RunState.UNKNOWN)
    (batch,) = library.batches()
    assert (done.parts, batch.status, batch.documents_written) == (1, BatchStatus.COMPLETED, 0)


def announced(library: Library, *names: str) -> list[str]:
    """Uploads that nobody confirmed, until long after their end; their keys."""
    bodies = [UploadCreate.model_validate({"filename": name, "content_type": "text/plain"}) for name in names]
    made = announce(library.warehouse, library.bucket, bodies)
    library.clock.move(100_000)
    return [one.landing_key for one in made]


def test_a_blob_store_that_refuses_a_delete_holds_nothing_else_up(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = announced(library, "a.txt", "b.txt", "c.txt")
    blobs, healed = library.warehouse.blobs, []

    def heal(_: Warehouse) -> int:
        healed.append("removals")
        return 1

    monkeypatch.setattr("mixpeek_dagster.pipeline.reconcile.finish_removals", heal)

    def refuse(key: str, *, error: Exception) -> None:
        if key == keys[1]:
            raise error
        delete(key)

    delete = blobs.delete
    for error in (AccessDenied("The store refused."), PermissionError(13, "Permission denied")):
        monkeypatch.setattr(blobs, "delete", partial(refuse, error=error))
        done = reconcile(library.warehouse, lambda _: RunState.ALIVE)
        assert str(error) in done.words
    assert healed == ["removals", "removals"]
    monkeypatch.setattr(blobs, "delete", delete)
    assert [reconcile(library.warehouse, lambda _: RunState.ALIVE).uploads for _ in range(2)] == [1, 0]


def test_a_blob_store_that_is_down_is_asked_once_and_holds_nothing_else_up(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    announced(library, "a.txt", "b.txt", "c.txt")
    asked: list[str] = []

    def down(key: str) -> None:
        asked.append(key)
        raise ProviderDown("The store did not answer.")

    monkeypatch.setattr(library.warehouse.blobs, "delete", down)
    assert "did not answer" in reconcile(library.warehouse, lambda _: RunState.ALIVE).words
    assert len(asked) == 1


def test_what_killed_uploads_left_is_removed_after_a_day(library: Library) -> None:
    parts = library.warehouse.settings.home / "blobs" / ".parts"
    parts.mkdir(parents=True)
    for name, age_s in (("old", 100_000), ("new", 10)):
        (parts / name).write_bytes(b"x")
        os.utime(parts / name, (time.time() - age_s,) * 2)
    reconcile(library.warehouse, lambda _: RunState.ALIVE)
    assert [part.name for part in parts.iterdir()] == ["new"]
