"""Documents follow objects: in every tier, without inferring anything twice, in the catalog and in an index beside it."""

import tempfile
from pathlib import Path

import pytest

from mixpeek_dagster.catalog.documents import DocumentRecords
from mixpeek_dagster.errors import CatalogError, VectorIndexError
from mixpeek_dagster.models.batches import Batch, BatchStatus
from mixpeek_dagster.models.buckets import FieldType
from mixpeek_dagster.models.collections import Collection
from mixpeek_dagster.models.documents import DocumentState
from mixpeek_dagster.models.ids import BatchId, CollectionId, new_id
from mixpeek_dagster.models.objects import Blob, ObjectStatus
from mixpeek_dagster.pipeline.batches import fail_part, submit
from mixpeek_dagster.pipeline.extraction import run_step
from mixpeek_dagster.pipeline.reconcile import RunState, reconcile
from mixpeek_dagster.pipeline.removal import finish_removals, remove_objects
from mixpeek_dagster.pipeline.search import search
from mixpeek_dagster.testing import FakeIndex
from tests.pipeline.worlds import NOW, Library, stored_object, windows_of

INDEX = "mixpeek_dagster.testing:FakeIndex"


def summary(library: Library, collection: Collection | None = None) -> dict[str, int]:
    """Document id → revision."""
    return {one.document_id: one.revision for one in library.documents(collection)}


def by_path(library: Library, collection: Collection) -> dict[str, str]:
    """Path → document id, for collections with one document per file."""
    paths = {stored.object_id: path for path, stored in library.objects().items()}
    found = {paths[str(one.root_object_id)]: one.document_id for one in library.documents(collection)}
    assert len(found) == len(library.documents(collection))
    return found


@pytest.fixture
def tiers(library: Library) -> tuple[Library, Collection, Collection]:
    """A diamond's worth of tiers: passages → sizes → top, each reading what the one before made of the same file."""
    middle = library.above("middle", library.passages)
    return library, middle, library.above("top", middle)


# Tiers


def test_every_tier_is_made_in_one_run_with_its_lineage(tiers: tuple[Library, Collection, Collection]) -> None:
    library, middle, top = tiers
    library.world.put("a.txt", b"one")
    library.world.put("b.txt", b"two")
    library.cycle()
    (batch,) = library.batches()
    assert batch.dag_tiers == [[one.collection_id] for one in (library.passages, middle, top)]
    assert batch.documents_written == 6
    below = by_path(library, middle)
    for document in library.documents(top):
        (stored,) = [one for one in library.objects().values() if one.object_id == document.root_object_id]
        assert document.source_document_id == below[str(stored.fields["path"])]
        assert (document.source_collection_id, document.batch_id) == (middle.collection_id, batch.batch_id)
    library.assert_exact()


def test_a_changed_file_replaces_its_documents_in_every_tier(tiers: tuple[Library, Collection, Collection]) -> None:
    library, _, top = tiers
    library.world.put("a.txt", b"one")
    library.world.put("b.txt", b"two")
    library.cycle()
    before = by_path(library, top)
    library.world.put("a.txt", b"edited")
    library.cycle()
    assert library.texts(top) == [3, 6]
    assert by_path(library, top) == before, "the same file keeps its document ids"
    assert {one.revision for one in library.documents(top)} == {1, 2}
    library.assert_exact()


def test_a_deleted_file_takes_its_documents_in_every_tier_along(tiers: tuple[Library, Collection, Collection]) -> None:
    library, middle, top = tiers
    library.world.put("a.txt", b"one")
    library.world.put("b.txt", b"three")
    library.cycle()
    library.world.delete("a.txt")
    library.cycle()
    assert [library.texts(one) for one in (library.passages, middle, top)] == [[5], [5], [5]]
    library.assert_exact()


def test_an_object_that_fails_in_a_later_tier_keeps_its_documents_in_the_earlier(library: Library) -> None:
    top = library.above("top", library.passages, fail_on="bad")
    library.with_settings(max_failed_ratio=0.5)
    library.world.put("a.txt", b"bad")
    library.world.put("b.txt", b"good")
    library.cycle()
    assert (len(library.documents()), len(library.documents(top))) == (2, 1)
    (batch,) = library.batches()
    assert (batch.status, batch.failed_count) == (BatchStatus.COMPLETED, 1)
    assert {path: one.status for path, one in library.objects().items()} == {
        "a.txt": ObjectStatus.FAILED,
        "b.txt": ObjectStatus.COMPLETED,
    }


def test_a_collection_may_read_from_two_others(library: Library) -> None:
    left, right = library.above("left", library.passages), library.above("right", library.passages)
    both = library.above("both", left, right)
    library.world.put("a.txt", b"one")
    library.cycle()
    assert sorted(one.source_collection_id or "" for one in library.documents(both)) == sorted(
        [left.collection_id, right.collection_id]
    )
    library.world.put("a.txt", b"edited")
    library.cycle()
    assert library.texts(both) == [6, 6]
    library.assert_exact()


def test_a_document_that_shrank_leaves_no_surplus_units(library: Library) -> None:
    library.world.put("a.txt", b"one")
    library.cycle()
    (first,) = library.documents()
    surplus = first.model_copy(update={"document_id": "doc_surplus", "position": 1})
    with library.warehouse.catalog.transaction() as records:
        records.documents.put(library.passages.collection_id, [surplus])
    library.world.put("a.txt", b"two")
    library.cycle()
    assert [one.document_id for one in library.documents()] == [first.document_id]


# Triggering again


def test_triggering_again_skips_what_is_done(library: Library) -> None:
    ids = library.add_objects({"a": "one", "b": "two"})
    library.submit(ids)
    library.run()
    before = summary(library)
    library.submit(ids)
    (report,) = library.run()
    assert (report.step.skipped, report.step.documents) == (2, 0)
    assert summary(library) == before


def test_forcing_makes_new_documents_without_a_unique_key(library: Library) -> None:
    ids = library.add_objects({"a": "one"})
    library.submit(ids)
    library.run()
    library.submit(ids, dedup="force")
    library.run()
    assert len(library.documents()) == 2
    assert library.inferred() == 1


def test_replacing_leaves_the_newest_documents_only(library: Library) -> None:
    ids = library.add_objects({"a": "one"})
    library.submit(ids)
    library.run()
    before = summary(library)
    library.submit(ids, dedup="replace")
    library.run()
    assert len(library.documents()) == 1
    assert summary(library).keys().isdisjoint(before)


@pytest.mark.parametrize("dedup", ["force", "replace"])
def test_with_a_unique_key_documents_are_written_over(library: Library, dedup: str) -> None:
    with library.warehouse.catalog.transaction() as records:
        records.objects.add([stored_object(library.bucket, "a", "one", unique_value="sku-1")])
        records.buckets.count(library.bucket.bucket_id, objects=1, size_bytes=3)
    library.submit(["a"])
    library.run()
    before = summary(library)
    library.submit(["a"], dedup=dedup)
    library.run()
    assert summary(library) == before
    library.assert_exact()


def test_a_changed_object_replaces_documents_even_when_done_work_is_skipped(library: Library) -> None:
    ids = library.add_objects({"a": "one", "b": "two"})
    library.submit(ids)
    library.run()
    with library.warehouse.catalog.transaction() as records:
        stored = records.objects.named(ids)["a"]
        blob = stored.blobs[0].model_copy(update={"text": "edited"})
        records.objects.put([stored.model_copy(update={"blobs": [blob], "revision": 2})])
    library.submit(ids)
    (report,) = library.run()
    assert (report.step.skipped, report.step.documents) == (1, 1)
    assert library.texts() == [3, 6]


def collection_batch(library: Library, collection: Collection, document_ids: list[str]) -> Batch:
    """A batch over documents, for the collections that read them."""
    library.clock.move(1)
    now = library.warehouse.now()
    batch = Batch(
        batch_id=BatchId(new_id("btch", length=12)),
        namespace_id=library.namespace.namespace_id,
        bucket_id=None,
        type="COLLECTION",
        status=BatchStatus.DRAFT,
        collection_ids=[CollectionId(collection.collection_id)],
        created_at=now,
        updated_at=now,
    )
    with library.warehouse.catalog.transaction() as records:
        records.batches.add(batch)
        batch = records.batches.append_items(batch, document_ids, now=now)
        return submit(records, batch, settings=library.warehouse.settings, now=now)


def test_a_batch_of_documents_runs_a_collection_and_all_above_it(library: Library) -> None:
    library.world.put("a.txt", b"one")
    library.world.put("b.txt", b"three")
    library.cycle()
    late = library.above("late", library.passages)
    later = library.above("later", late)
    chosen = [one.document_id for one in library.documents() if one.payload["size"] == 5]
    batch = collection_batch(library, late, [*chosen, "doc_gone"])
    assert batch.dag_tiers == [[late.collection_id], [later.collection_id]]
    first, second = library.run()
    assert (first.step.inputs, first.step.skipped, second.step.inputs) == (2, 1, 1)
    assert (library.texts(late), library.texts(later)) == ([5], [5])
    done = library.batch(batch)
    assert (done.status, done.documents_written) == (BatchStatus.COMPLETED, 2)
    assert library.object_statuses() == {ObjectStatus.COMPLETED}


# The memo


def test_renamed_copied_and_touched_files_are_not_inferred_again(library: Library) -> None:
    library.world.put("a.txt", b"one")
    library.world.put("b.txt", b"two")
    library.cycle()
    assert library.inferred() == 2
    library.world.put("copy of a.txt", b"one")
    library.world.put("renamed.txt", b"two")
    library.world.delete("b.txt")
    library.world.put("a.txt", b"one")  # touched: a new etag, the same bytes
    library.cycle()
    assert library.inferred() == 2
    assert len(library.documents()) == 3
    library.assert_exact()


@pytest.mark.parametrize("window", [2, 256])
def test_the_same_content_twice_in_a_batch_is_inferred_once(
    library: Library, monkeypatch: pytest.MonkeyPatch, window: int
) -> None:
    windows_of(monkeypatch, window)
    library.submit(library.add_objects({f"o{number}": "same" for number in range(9)}))
    (report,) = library.run()
    assert (report.step.inferred, report.step.reused, report.step.documents) == (1, 8, 9)


@pytest.mark.parametrize("window", [2, 256])
def test_the_same_bad_content_twice_fails_every_copy(library: Library, monkeypatch: pytest.MonkeyPatch, window: int) -> None:
    windows_of(monkeypatch, window)
    strict = library.collection("strict", {"type": "bucket", "bucket_ids": [library.bucket.bucket_id]}, fail_on="bad")
    library.submit(library.add_objects({f"o{number}": "bad" for number in range(5)}), collection_ids=[strict.collection_id])
    (report,) = library.run()
    assert (report.step.failed, report.step.documents) == (5, 0)


def test_another_extractor_shares_nothing(library: Library) -> None:
    library.collection("other", {"type": "bucket", "bucket_ids": [library.bucket.bucket_id]}, fail_on="never")
    library.world.put("a.txt", b"one")
    library.cycle()
    assert library.inferred() == 2


# Passing fields through


def test_fields_pass_through_and_a_required_one_that_is_missing_fails_its_object(library: Library) -> None:
    rules = [{"source_path": "path", "target_path": "file"}, {"source_path": "title", "required": True}]
    titled = library.collection("titled", {"type": "bucket", "bucket_ids": [library.bucket.bucket_id]}, field_passthrough=rules)
    with library.warehouse.catalog.transaction() as records:
        fields = {"path": "a.txt", "title": "A"}
        records.objects.add([stored_object(library.bucket, "a", fields=fields), stored_object(library.bucket, "b")])
        records.buckets.count(library.bucket.bucket_id, objects=2, size_bytes=2)
    library.submit(["a", "b"], collection_ids=[titled.collection_id])
    (report,) = library.run()
    assert report.step.failed == 1
    assert [one.payload for one in library.documents(titled)] == [{"file": "a.txt", "title": "A", "size": 1}]
    assert "required passthrough field 'title'" in report.failures[0].error


def test_a_source_filter_takes_only_what_it_matches(library: Library) -> None:
    source = {
        "type": "bucket",
        "bucket_ids": [library.bucket.bucket_id],
        "source_filters": {"filters": {"AND": [{"field": "path", "operator": "eq", "value": "a.txt"}]}},
    }
    some = library.collection("some", source)
    library.world.put("a.txt", b"one")
    library.world.put("b.txt", b"two")
    library.cycle()
    assert set(by_path(library, some)) == {"a.txt"}
    library.assert_exact()


# An index beside the catalog


@pytest.fixture
def projected(library: Library) -> Library:
    """A library whose vectors live in an index beside the catalog."""
    library.with_settings(index=INDEX)
    assert library.warehouse.index.is_projection
    return library


class Down:
    """Breaks an index at the nth call of a method."""

    def __init__(self, method: str, call: int = 1) -> None:
        self.method, self.left = method, call

    def __call__(self, method: str) -> None:
        if method == self.method:
            self.left -= 1
            if self.left == 0:
                raise VectorIndexError("The index went away.")


def test_documents_reach_the_index_and_leave_it(projected: Library) -> None:
    top = projected.above("top", projected.passages)
    projected.world.put("a.txt", b"one")
    projected.world.put("b.txt", b"two")
    projected.cycle()
    assert set(FakeIndex.points[top.collection_id]) == set(summary(projected, top))
    assert {one.state for one in projected.documents(top)} == {DocumentState.INDEXED}
    projected.assert_exact()
    projected.world.put("a.txt", b"edited")
    projected.cycle()
    projected.assert_exact()
    projected.world.delete("b.txt")
    projected.cycle()
    assert (len(FakeIndex.points[top.collection_id]), projected.texts(top)) == (1, [6])
    projected.assert_exact()
    best, *_ = search(projected.warehouse, "edited", namespace_id=projected.namespace.namespace_id)
    assert best.score == pytest.approx(1.0)


@pytest.mark.parametrize("method", ["ensure", "upsert", "delete"])
@pytest.mark.parametrize("call", [1, 2, 3])
def test_an_index_that_breaks_off_is_caught_up_by_the_next_try(
    projected: Library, monkeypatch: pytest.MonkeyPatch, method: str, call: int
) -> None:
    windows_of(monkeypatch, 2)
    ids = projected.add_objects({f"o{number}": f"text {number}" for number in range(7)})
    projected.submit(ids)
    projected.run()
    batch = projected.submit(ids, dedup="replace")  # so that every window has something to delete
    (claimed,) = projected.claim()
    FakeIndex.before = staticmethod(Down(method, call))  # type: ignore[assignment]
    broke = True
    try:
        run_step(projected.warehouse, claimed.part.partition_key, projected.passages, run_id="first")
        broke = False
    except VectorIndexError:
        with projected.warehouse.catalog.transaction() as records:
            fail_part(records, claimed.part, "index", settings=projected.warehouse.settings, now=NOW, retry=True)
    assert broke or (method, call) in {("ensure", 2), ("ensure", 3)}
    FakeIndex.before = staticmethod(lambda _: None)  # type: ignore[assignment]
    projected.run()
    assert projected.batch(batch).status is BatchStatus.COMPLETED
    assert len(projected.documents()) == 7
    assert {one.batch_id for one in projected.documents()} == {batch.batch_id}
    assert projected.inferred() == 7
    projected.assert_exact()


def test_a_crash_between_catalog_and_index_is_healed_by_reconciling(projected: Library) -> None:
    projected.submit(projected.add_objects({"a": "one"}))
    projected.run()
    (document,) = projected.documents()
    FakeIndex.points[projected.passages.collection_id].clear()
    with projected.warehouse.catalog.transaction() as records:
        records.documents.set_state([document.document_id], DocumentState.PENDING, now=projected.warehouse.now())
    assert reconcile(projected.warehouse, lambda _: RunState.ALIVE).indexed == 0, "it may still be on its way"
    projected.clock.move(61)
    assert reconcile(projected.warehouse, lambda _: RunState.ALIVE).indexed == 1
    projected.assert_exact()


def test_a_crash_in_the_middle_of_a_removal_is_healed_by_reconciling(projected: Library) -> None:
    ids = projected.add_objects({"a": "one", "b": "two"})
    projected.submit(ids)
    projected.run()
    with projected.warehouse.catalog.transaction() as records:
        remove_objects(records, projected.warehouse, ["a"], now=NOW)
    assert len(projected.documents()) == 1, "hidden at once"
    assert len(FakeIndex.points[projected.passages.collection_id]) == 2
    assert reconcile(projected.warehouse, lambda _: RunState.ALIVE).removed == 1
    assert len(FakeIndex.points[projected.passages.collection_id]) == 1
    projected.assert_exact()


def test_a_document_written_again_while_it_was_being_removed_stays(projected: Library) -> None:
    projected.submit(projected.add_objects({"a": "one"}))
    projected.run()
    (document,) = projected.documents()
    with projected.warehouse.catalog.transaction() as records:
        records.documents.retire({projected.passages.collection_id: [document.document_id]}, now=NOW)

    def write_again(method: str) -> None:
        if method == "delete":
            with projected.warehouse.catalog.transaction() as records:
                records.documents.put(projected.passages.collection_id, [document])

    FakeIndex.before = staticmethod(write_again)  # type: ignore[assignment]
    finish_removals(projected.warehouse)
    assert summary(projected) == {document.document_id: 1}


def test_deletes_that_the_index_refuses_are_recorded_on_the_sync_and_made_later(projected: Library) -> None:
    projected.world.put("a.txt", b"one")
    projected.world.put("b.txt", b"two")
    projected.cycle()
    projected.world.delete("a.txt")
    FakeIndex.before = staticmethod(Down("delete"))  # type: ignore[assignment]
    assert projected.poll().error == "The index went away."
    assert projected.now().consecutive_failures == 1
    FakeIndex.before = staticmethod(lambda _: None)  # type: ignore[assignment]
    projected.poll()
    reconcile(projected.warehouse, lambda _: RunState.ALIVE)
    projected.assert_exact()


def test_a_feature_dropped_between_lookup_and_write_leaves_no_document_without_its_vector(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    library.world.put("a.txt", b"the same words")
    library.cycle()
    library.world.put("b.txt", b"the same words")
    library.poll()
    monkeypatch.setattr(DocumentRecords, "forgotten", lambda _records, keys: set(keys))
    with pytest.raises(CatalogError, match="dropped meanwhile"):
        library.run()
    assert len(library.documents()) == 1


def test_a_file_larger_than_its_type_may_be_fails_alone_with_the_remedy(library: Library) -> None:
    library.with_settings(max_file_bytes={"text": 10})
    library.world.put("small.txt", b"0123456789")
    library.world.put("large.txt", b"0123456789!")
    library.poll()
    library.run()
    assert library.texts() == [10]
    (batch,) = library.batches()
    with library.warehouse.catalog.reading() as records:
        (failure,) = records.batches.failures(batch.batch_id)[0]
    assert "large.txt" in str(failure)
    assert "MIXPEEK_MAX_FILE_BYTES" in str(failure)


def test_an_object_whose_url_names_nothing_fails_with_that_reason(library: Library, tmp_path: Path) -> None:
    library.with_settings(local_roots=(tmp_path,))
    blob = Blob(property="content", type=FieldType.TEXT, url=f"file://{tmp_path}/gone.txt")
    with library.warehouse.catalog.transaction() as records:
        records.objects.add([stored_object(library.bucket, "obj_1", blobs=[blob])])
    library.submit(["obj_1"])
    (report,) = library.run()
    assert [one.error for one in report.failures] == ["obj_1.txt: MissingFile: There is no file at this URL."]


def test_large_files_cut_a_window_short_and_are_read_from_disk(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    library.with_settings(spill_bytes=10)
    monkeypatch.setattr("mixpeek_dagster.pipeline.reading.WINDOW_BYTES", 100)
    for number in range(7):
        library.world.put(f"{number}.txt", b"%d" % number * 40)
    library.world.put("8.txt", b"8" * 400)
    library.world.put("9.txt", b"nine")
    library.poll()
    steps: list[int] = []
    (claimed,) = library.claim()
    run_step(
        library.warehouse,
        claimed.part.partition_key,
        library.passages,
        run_id="run",
        progress=lambda step: steps.append(step.inputs),
    )
    assert steps == [2, 4, 6, 7, 8, 9]
    assert library.texts() == sorted([*[40] * 7, 400, 4])
    library.assert_exact()


def test_a_file_that_finds_no_room_on_disk_fails_alone_and_is_tried_again(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    library.with_settings(spill_bytes=10, max_failed_ratio=0.9)
    library.world.put("large.txt", b"more than ten bytes")
    library.world.put("small.txt", b"small")
    with monkeypatch.context() as patched:
        patched.setattr(tempfile, "TemporaryFile", lambda **_: open("/dev/full", "r+b", buffering=0))  # noqa: SIM115
        library.cycle()
    error = str(library.objects()["large.txt"].error)
    assert "large.txt: the temporary folder" in error
    assert library.texts() == [5]
    library.cycle()
    assert library.texts() == [5, 19]
    library.assert_exact()
