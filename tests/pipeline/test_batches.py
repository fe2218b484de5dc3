"""The life of a batch, from DRAFT to its end, through every kind of interruption."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from mixpeek_dagster.catalog import Records
from mixpeek_dagster.errors import BadRequest, NotFound, WrongState
from mixpeek_dagster.models.batches import MAX_STALLS, MOST_STALLS, Batch, BatchStatus, PartStatus
from mixpeek_dagster.models.collections import Collection
from mixpeek_dagster.models.documents import Document
from mixpeek_dagster.models.ids import BucketId
from mixpeek_dagster.models.objects import ObjectStatus, StoredObject
from mixpeek_dagster.pipeline import extraction
from mixpeek_dagster.pipeline.batches import Superseded, cancel, create_batch, fail_part, open_step, submit
from mixpeek_dagster.pipeline.extraction import run_step
from mixpeek_dagster.pipeline.intake import Intake
from mixpeek_dagster.pipeline.removal import remove_objects
from mixpeek_dagster.pipeline.sync_reports import dead_letters
from mixpeek_dagster.pipeline.triggers import TriggerRequest, trigger
from mixpeek_dagster.pipeline.verification import verify
from mixpeek_dagster.pipeline.warehouse import Warehouse
from tests.pipeline.worlds import NOW, Clock, Library, windows_of


def texts(count: int, *, bad: int = 0) -> dict[str, str]:
    """Objects with different texts; the first `bad` of them contain the word that fails."""
    return {f"o{number:04d}": f"{'bad ' if number < bad else ''}text {number}" for number in range(count)}


def events(library: Library) -> list[tuple[str, str]]:
    """What is told of batches; what a batch wrote is told of its collections too."""
    with library.warehouse.catalog.reading() as records:
        rows = records.events.undelivered()
    return [(row.event_type, row.resource_id) for row in rows if row.resource_type == "batch"]


def parts(library: Library, batch: Batch) -> list[PartStatus]:
    with library.warehouse.catalog.reading() as records:
        return [part.status for part in records.batches.parts(batch.batch_id)]


def failures(library: Library, batch: Batch) -> dict[str, str]:
    with library.warehouse.catalog.reading() as records:
        return {one.item_id: one.error for one in records.batches.failures(batch.batch_id, limit=10_000)[0]}


def start(library: Library) -> tuple[str, str]:
    """Claim the one queued part; its partition key and a run's name."""
    (claimed,) = library.claim()
    return claimed.part.partition_key, f"run-{claimed.part.attempt}"


def fresh_library(warehouse: Warehouse, clock: Clock, **values: Any) -> Library:
    return Library(warehouse, clock, **values)


# From DRAFT to COMPLETED


def test_a_batch_goes_from_draft_to_completed(library: Library) -> None:
    ids = library.add_objects(texts(3))
    with library.warehouse.catalog.transaction() as records:
        draft = create_batch(
            records, ids, namespace_id=library.namespace.namespace_id, bucket_id=library.bucket.bucket_id, now=NOW
        )
    assert (draft.status, draft.item_count) == (BatchStatus.DRAFT, 3)
    with library.warehouse.catalog.transaction() as records:
        queued = submit(records, draft, settings=library.warehouse.settings, now=NOW)
    assert (queued.status, queued.task_id is not None) == (BatchStatus.QUEUED, True)
    assert library.batch(draft).dag_tiers == [[library.passages.collection_id]]
    key, run_id = start(library)
    seen = []
    run_step(library.warehouse, key, library.passages, run_id=run_id, progress=lambda _: seen.append(library.batch(draft).status))
    assert seen == [BatchStatus.PROCESSING]
    done = library.batch(draft)
    assert (done.status, done.documents_written, done.failed_count, done.error) == (BatchStatus.COMPLETED, 3, 0, None)
    assert done.started_at is not None
    assert done.completed_at is not None
    assert events(library) == [("batch.completed", draft.batch_id)]
    assert library.object_statuses() == {ObjectStatus.COMPLETED}
    assert library.texts() == sorted(len(text) for text in texts(3).values())
    library.assert_exact()


def test_objects_of_another_bucket_or_of_none_make_no_batch(library: Library) -> None:
    ids = library.add_objects(texts(1))
    scope = {"namespace_id": library.namespace.namespace_id, "now": NOW}
    with library.warehouse.catalog.transaction() as records, pytest.raises(NotFound, match="1 objects are not in"):
        create_batch(records, [*ids, "nowhere"], bucket_id=library.bucket.bucket_id, **scope)  # type: ignore[arg-type]
    with library.warehouse.catalog.transaction() as records, pytest.raises(NotFound):
        create_batch(records, ids, bucket_id=BucketId("bkt_other"), **scope)  # type: ignore[arg-type]
    assert library.batches() == []


def test_an_object_named_twice_is_in_the_batch_once(library: Library) -> None:
    ids = library.add_objects(texts(2))
    assert library.submit([*ids, *ids]).item_count == 2


def test_an_empty_batch_cannot_be_submitted(library: Library) -> None:
    with pytest.raises(BadRequest, match="has no objects"):
        library.submit([])


def test_a_batch_is_submitted_once(library: Library) -> None:
    batch = library.submit(library.add_objects(texts(1)))
    with library.warehouse.catalog.transaction() as records, pytest.raises(WrongState):
        submit(records, records.batches.get(batch.batch_id), settings=library.warehouse.settings, now=NOW)


def test_without_a_collection_a_batch_completes_at_once_and_says_so(library: Library) -> None:
    with library.warehouse.catalog.transaction() as records:
        records.collections.remove(library.passages.collection_id)
    batch = library.submit(library.add_objects(texts(1)))
    assert (batch.status, batch.error) == (
        BatchStatus.COMPLETED,
        "No collection reads from this bucket: nothing was extracted.",
    )
    assert library.claim() == []
    assert events(library) == [("batch.completed", batch.batch_id)]


@pytest.mark.parametrize("count", [1, 255, 256, 257, 512])
def test_the_bounds_of_a_fixed_window_are_kept(library: Library, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    windows_of(monkeypatch, 256)
    library.submit(library.add_objects(texts(count)))
    (report,) = library.run()
    assert report.step.documents == len(library.documents()) == count
    library.assert_exact()


@pytest.mark.parametrize("count", [1, 63, 64, 65, 191, 192, 193, 449])
def test_window_boundaries_neither_lose_nor_double_objects(library: Library, count: int) -> None:
    batch = library.submit(library.add_objects(texts(count)))
    (report,) = library.run()
    assert (report.step.inputs, report.step.documents, report.step.inferred) == (count, count, count)
    assert library.batch(batch).documents_written == count
    library.assert_exact()


def test_a_batch_whose_objects_are_all_gone_completes_with_nothing(library: Library) -> None:
    ids = library.add_objects(texts(2))
    batch = library.submit(ids)
    with library.warehouse.catalog.transaction() as records:
        remove_objects(records, library.warehouse, ids, now=NOW)
    (report,) = library.run()
    assert (report.step.inputs, report.step.skipped, report.step.documents) == (2, 2, 0)
    assert library.batch(batch).status is BatchStatus.COMPLETED


def test_a_large_batch_is_split_into_parts_and_folded(library: Library) -> None:
    library.with_settings(max_objects_per_run=4)
    batch = library.submit(library.add_objects(texts(10)))
    claims = library.claim()
    assert [one.part.partition_key for one in claims] == [f"{batch.batch_id}.000{n}" for n in (1, 2, 3)]
    seen = []
    for claimed in claims:
        run_step(library.warehouse, claimed.part.partition_key, library.passages, run_id="r")
        seen.append(library.batch(batch).status)
    assert seen == [BatchStatus.PROCESSING, BatchStatus.PROCESSING, BatchStatus.COMPLETED]
    assert library.batch(batch).documents_written == 10
    assert len(events(library)) == 1
    library.assert_exact()


def test_one_failed_part_fails_the_batch_when_the_others_are_done(library: Library) -> None:
    library.with_settings(max_objects_per_run=1)
    batch = library.submit(library.add_objects(texts(2)))
    one, two = library.claim()
    with library.warehouse.catalog.transaction() as records:
        fail_part(records, one.part, "out of memory", settings=library.warehouse.settings, now=NOW, retry=False)
    assert library.batch(batch).status is BatchStatus.QUEUED
    run_step(library.warehouse, two.part.partition_key, library.passages, run_id="r")
    assert (library.batch(batch).status, library.batch(batch).error) == (BatchStatus.FAILED, "out of memory")


# Failures


@pytest.mark.parametrize(
    ("count", "bad", "status"),
    [(10, 1, BatchStatus.COMPLETED), (10, 2, BatchStatus.FAILED), (1, 1, BatchStatus.FAILED), (20, 2, BatchStatus.COMPLETED)],
)
def test_the_share_of_failed_objects_decides(
    warehouse: Warehouse, clock: Clock, count: int, bad: int, status: BatchStatus
) -> None:
    library = fresh_library(warehouse, clock, fail_on="bad")
    batch = library.submit(library.add_objects(texts(count, bad=bad)))
    library.run()
    done = library.batch(batch)
    assert (done.status, done.failed_count, done.documents_written) == (status, bad, count - bad)
    assert (done.error is None) == (status is BatchStatus.COMPLETED)
    if done.error:
        assert done.error == f"{bad} of {count} objects failed, more than the allowed share of 10%."
    reasons = failures(library, batch)
    assert sorted(reasons) == [f"o{number:04d}" for number in range(bad)]
    assert reasons["o0000"].startswith("o0000.txt: The object contains 'bad'")
    found = {one.object_id: (one.status, one.error) for one in library.objects().values()}
    assert found["o0000"] == (ObjectStatus.FAILED, reasons["o0000"])
    assert all(found[f"o{number:04d}"] == (ObjectStatus.COMPLETED, None) for number in range(bad, count))


def test_a_bad_object_fails_in_every_copy(warehouse: Warehouse, clock: Clock) -> None:
    library = fresh_library(warehouse, clock, fail_on="bad")
    library.with_settings(max_failed_ratio=1.0)
    batch = library.submit(library.add_objects({"a": "bad", "b": "bad", "c": "good"}))
    library.run()
    assert sorted(failures(library, batch)) == ["a", "b"]
    assert library.batch(batch).documents_written == 1


def test_an_object_that_failed_is_well_after_it_was_mended(warehouse: Warehouse, clock: Clock) -> None:
    library = fresh_library(warehouse, clock, fail_on="bad")
    library.world.put("a.txt", b"bad")
    library.cycle()
    assert library.object_statuses() == {ObjectStatus.FAILED}
    library.world.put("a.txt", b"good")
    library.cycle()
    assert library.object_statuses() == {ObjectStatus.COMPLETED}
    assert library.texts() == [4]
    library.assert_exact()


def test_a_retryable_failure_is_tried_until_it_stalled_too_often(library: Library) -> None:
    batch = library.submit(library.add_objects(texts(1)))
    for attempt in range(1, MAX_STALLS + 1):
        (claimed,) = library.claim()
        assert claimed.part.attempt == attempt
        with library.warehouse.catalog.transaction() as records:
            fail_part(records, claimed.part, f"try {attempt}", settings=library.warehouse.settings, now=NOW, retry=True)
    assert library.claim() == []
    assert (library.batch(batch).status, library.batch(batch).error) == (BatchStatus.FAILED, f"try {MAX_STALLS}")


# Interruptions


class Killed(BaseException):
    pass


def run_until_settled(
    library: Library, deadly: set[bytes], monkeypatch: pytest.MonkeyPatch, *, marked: str | None = None, most: int = 60
) -> int:
    """Run parts until none is queued, tier by tier, as processes that die of some contents; how many runs there were.

    Args:
        marked: the collection that dies of them, by the `fail_on` of its extractor.
    """
    prepare = extraction.prepare

    def preparing(extractor: Any, inputs: Any, **options: Any) -> Any:
        is_deadly = any(content.data in deadly for contents in inputs for content in contents.values())
        if is_deadly and extractor.params.fail_on == marked:
            raise Killed
        return prepare(extractor, inputs, **options)

    with monkeypatch.context() as patch:
        patch.setattr(extraction, "prepare", preparing)
        return _run_all(library, most=most)


def _run_all(library: Library, *, most: int) -> int:
    for number in range(most):
        claimed = library.claim()
        if not claimed:
            return number
        for one in claimed:
            key, run_id = one.part.partition_key, f"run-{one.part.attempt}"
            try:
                for collection_id in one.collection_ids:
                    run_step(library.warehouse, key, library.get(collection_id), run_id=run_id)
            except Killed:
                with library.warehouse.catalog.transaction() as records:
                    part = records.batches.part(key)
                    assert part is not None
                    fail_part(records, part, "killed", settings=library.warehouse.settings, now=NOW, retry=True)
    raise AssertionError("runs and runs")


def poisoned(library: Library, *numbers: int) -> set[bytes]:
    """Put 200 files at the source, and return the contents of those with these numbers."""
    for number in range(200):
        library.world.put(f"{number:03}.txt", b"%s %03d" % (b"poison" if number in numbers else b"text", number))
    return {b"poison %03d" % number for number in numbers}


def letters_of_the_deadly(library: Library) -> list[StoredObject]:
    """The dead letters, all of them because runs died; with them everything has come to rest."""
    with library.warehouse.catalog.reading() as records:
        letters, total = dead_letters(records, library.sync.sync_id, limit=10)
    found = [one for one in letters if isinstance(one, StoredObject)]
    assert len(found) == total
    assert all("Runs died, " in str(one.error) for one in found)
    assert library.poll().counters.new == 0
    assert library.claim() == []
    library.assert_exact()
    return found


def test_a_file_that_kills_its_runs_fails_alone_and_ends_as_a_dead_letter(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    deadly = poisoned(library, 0, 77, 150, 199)
    library.poll()
    assert run_until_settled(library, deadly, monkeypatch) < 20
    assert library.statuses() == {BatchStatus.COMPLETED}
    for _ in range(4):
        library.poll()
        run_until_settled(library, deadly, monkeypatch)
    assert len(library.documents()) == 196
    statuses = [stored.status for stored in library.objects().values()]
    assert (statuses.count(ObjectStatus.COMPLETED), statuses.count(ObjectStatus.FAILED)) == (196, 4)
    assert len(letters_of_the_deadly(library)) == 4


def test_files_that_kill_their_runs_one_after_the_other_take_none_of_the_others_with_them(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    deadly = poisoned(library, *range(100, 105))
    library.poll()
    assert run_until_settled(library, deadly, monkeypatch) < 20
    assert library.statuses() == {BatchStatus.COMPLETED}
    assert len(library.documents()) == 195
    statuses = [stored.status for stored in library.objects().values()]
    assert (statuses.count(ObjectStatus.COMPLETED), statuses.count(ObjectStatus.FAILED)) == (195, 5)
    library.assert_exact()


def test_runs_that_die_when_they_write_to_the_index_come_to_an_end(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what they have written themselves: the next brings that to the index, and dies of its own."""
    library.with_settings(index="mixpeek_dagster.testing:FakeIndex")
    poisoned(library)
    library.poll()
    dead, index_documents = set[str](), extraction.index_documents

    def indexing(warehouse: Warehouse, collection: Collection, documents: Sequence[Document]) -> None:
        own = {str(one.run_id) for one in documents} - dead
        dead.update(own)
        if own:
            raise Killed
        index_documents(warehouse, collection, documents)

    monkeypatch.setattr(extraction, "index_documents", indexing)
    assert run_until_settled(library, set(), monkeypatch) == MOST_STALLS
    assert library.statuses() == {BatchStatus.FAILED}
    assert library.object_statuses() == {ObjectStatus.FAILED}


@pytest.mark.parametrize("marked", ["middle", "top"])
def test_a_document_that_kills_its_runs_fails_alone_in_a_later_tier(
    library: Library, monkeypatch: pytest.MonkeyPatch, marked: str
) -> None:
    middle = library.above("middle", library.passages, fail_on="middle")
    top = library.above("top", middle, fail_on="top")
    deadly = poisoned(library, 0, 77, 150, 199)
    library.poll()
    assert run_until_settled(library, deadly, monkeypatch, marked=marked) < 20
    (batch,) = library.batches()
    assert (batch.status, batch.failed_count) == (BatchStatus.COMPLETED, 4)
    above, own = (library.passages, middle) if marked == "middle" else (middle, top)
    made, killed = {one.root_object_id for one in library.documents(own)}, library.documents(above)
    roots = {one.document_id: one.root_object_id for one in killed if one.root_object_id not in made}
    with library.warehouse.catalog.reading() as records:
        found, _ = records.batches.failures(batch.batch_id)
    assert {one.item_id: one.object_id for one in found} == roots
    assert {one.collection_id for one in found} == {own.collection_id}
    assert all(f"when it worked on document {one.item_id} alone: killed" in one.error for one in found)
    for _ in range(3):
        library.poll()
        run_until_settled(library, deadly, monkeypatch, marked=marked)
    assert [len(library.documents(one)) for one in (library.passages, above, own, top)] == [200, 200, 196, 196]
    letters = letters_of_the_deadly(library)
    assert {(one.object_id, one.status) for one in letters} == {(root, ObjectStatus.FAILED) for root in roots.values()}


def test_a_document_of_a_triggered_collection_that_kills_its_runs_fails_alone_with_its_object(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    deadly = poisoned(library, 20)
    library.cycle()
    top = library.above("top", library.passages, fail_on="top")
    (batch,) = trigger(library.warehouse, top, TriggerRequest()).batches
    run_until_settled(library, deadly, monkeypatch, marked="top")
    assert library.batch(batch).status is BatchStatus.COMPLETED
    assert len(library.documents(top)) == 199
    with library.warehouse.catalog.reading() as records:
        ((failure,), _) = records.batches.failures(batch.batch_id)
    (killer,) = {one.document_id: one for one in library.documents() if one.document_id == failure.item_id}.values()
    assert failure.object_id == killer.root_object_id == library.objects()["020.txt"].object_id


@pytest.mark.parametrize("ended", ["done", "canceled"])
def test_the_end_of_a_run_that_is_told_too_late_takes_nothing_back(library: Library, ended: str) -> None:
    """The part had ended by then, however many runs had died before."""
    batch = library.submit(library.add_objects(texts(3)))
    key, run_id = start(library)
    with library.warehouse.catalog.transaction() as records:
        open_step(records, key, library.passages.collection_id, run_id=run_id, now=NOW)
        part = records.batches.part(key)
    assert part is not None
    if ended == "done":
        run_step(library.warehouse, key, library.passages, run_id=run_id)
    else:
        with library.warehouse.catalog.transaction() as records:
            cancel(records, batch.batch_id, now=NOW)
    before = library.batch(batch)
    late = part.model_copy(update={"stalls": MAX_STALLS - 1})
    with library.warehouse.catalog.transaction() as records:
        steps = records.batches.steps(batch.batch_id)
        assert fail_part(records, late, "killed", settings=library.warehouse.settings, now=NOW, retry=True) is None
        assert records.batches.steps(batch.batch_id) == steps
    assert failures(library, batch) == {}
    assert library.batch(batch) == before


def test_of_a_part_that_fails_what_it_had_done_is_done_and_the_rest_is_tried_again(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    windows_of(monkeypatch, 10)
    for number in range(40):
        library.world.put(f"{number:03}.txt", b"text %03d" % number)
    library.poll()
    (claimed,) = library.claim()

    def breaks(step: Any) -> None:
        if step.inputs == 20:
            raise Killed

    with pytest.raises(Killed):
        run_step(library.warehouse, claimed.part.partition_key, library.passages, run_id="run", progress=breaks)
    with library.warehouse.catalog.transaction() as records:
        part = records.batches.part(claimed.part.partition_key)
        assert part is not None
        fail_part(records, part, "The model is missing.", settings=library.warehouse.settings, now=NOW, retry=False)
    assert library.statuses() == {BatchStatus.FAILED}
    errors = [stored.error for stored in library.objects().values()]
    assert (errors.count(None), errors.count("The model is missing.")) == (20, 20)
    library.cycle()
    assert library.object_statuses() == {ObjectStatus.COMPLETED}
    assert len(library.documents()) == 40
    library.assert_exact()


def kill_at(library: Library, monkeypatch: pytest.MonkeyPatch, commit: int, *, after: bool) -> Callable[[], None]:
    """Die at the nth commit from here on, before or after it reached the disk; returns how to live again."""
    dialect = library.warehouse.catalog.engine.dialect
    real, left = dialect.do_commit, [commit]

    def dying(connection: Any) -> None:
        left[0] -= 1
        if (left[0] == 0 and not after) or left[0] < 0:
            raise Killed
        real(connection)
        if left[0] == 0:
            raise Killed

    monkeypatch.setattr(dialect, "do_commit", dying)
    return lambda: monkeypatch.setattr(dialect, "do_commit", real)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("commit", [1, 2, 3, 4, 5, 6])
def test_a_killed_run_is_resumed_without_loss_or_repetition(
    library: Library, monkeypatch: pytest.MonkeyPatch, commit: int, after: bool
) -> None:
    windows_of(monkeypatch, 10)
    embedded: list[bytes] = []
    real_embed = type(library.warehouse.extractor(library.passages.feature_extractor)).embed  # type: ignore[attr-defined]

    def counting(self: Any, output: str, payloads: Any) -> Any:
        embedded.extend(payloads)
        return real_embed(self, output, payloads)

    monkeypatch.setattr("mixpeek_dagster.testing.StubExtractor.embed", counting)
    batch = library.submit(library.add_objects(texts(35)))
    key, run_id = start(library)
    live = kill_at(library, monkeypatch, commit, after=after)
    with pytest.raises(Killed):
        run_step(library.warehouse, key, library.passages, run_id=run_id)
    live()
    if library.batch(batch).status is not BatchStatus.COMPLETED:
        with library.warehouse.catalog.transaction() as records:
            part = records.batches.part(key)
            assert part is not None
            fail_part(records, part, "killed", settings=library.warehouse.settings, now=NOW, retry=True)
        library.run()
    done = library.batch(batch)
    assert (done.status, done.documents_written) == (BatchStatus.COMPLETED, 35)
    assert sorted(one.root_object_id or "" for one in library.documents()) == sorted(texts(35))
    assert 35 <= len(embedded) <= 45, "at most one window is inferred twice"
    library.assert_exact()


def test_a_run_that_was_taken_over_writes_nothing_more(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    windows_of(monkeypatch, 10)
    batch = library.submit(library.add_objects(texts(30)))
    key, _ = start(library)
    with library.warehouse.catalog.transaction() as records:
        open_step(records, key, library.passages.collection_id, run_id="old", now=NOW)

    def take_over(step: Any) -> None:
        if step.inputs == 10:
            with library.warehouse.catalog.transaction() as records:
                part = records.batches.part(key)
                assert part is not None
                fail_part(records, part, "presumed dead", settings=library.warehouse.settings, now=NOW, retry=True)

    with pytest.raises(Superseded):
        run_step(library.warehouse, key, library.passages, run_id="old", progress=take_over)
    assert len(library.documents()) == 10
    library.run("new")
    assert library.batch(batch).documents_written == 30
    library.assert_exact()


def test_a_canceled_batch_stops_at_the_next_window(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    windows_of(monkeypatch, 10)
    batch = library.submit(library.add_objects(texts(30)))
    key, run_id = start(library)

    def stop(step: Any) -> None:
        if step.inputs == 20:
            with library.warehouse.catalog.transaction() as records:
                _, runs = cancel(records, batch.batch_id, now=NOW)
            assert runs == [run_id]

    with pytest.raises(Superseded):
        run_step(library.warehouse, key, library.passages, run_id=run_id, progress=stop)
    assert library.batch(batch).status is BatchStatus.CANCELED
    assert len(library.documents()) == 20
    assert events(library) == [("batch.canceled", batch.batch_id)]


@pytest.mark.parametrize("moment", ["draft", "queued", "claimed"])
def test_a_batch_that_was_canceled_before_its_run_began_is_never_run(library: Library, moment: str) -> None:
    ids = library.add_objects(texts(2))
    with library.warehouse.catalog.transaction() as records:
        batch = create_batch(
            records, ids, namespace_id=library.namespace.namespace_id, bucket_id=library.bucket.bucket_id, now=NOW
        )
        if moment != "draft":
            batch = submit(records, batch, settings=library.warehouse.settings, now=NOW)
    key = start(library)[0] if moment == "claimed" else None
    with library.warehouse.catalog.transaction() as records:
        canceled, runs = cancel(records, batch.batch_id, now=NOW)
    assert (canceled.status, runs) == (BatchStatus.CANCELED, [])
    assert library.claim() == []
    if key is not None:
        with pytest.raises(Superseded, match="canceled"):
            run_step(library.warehouse, key, library.passages, run_id="late")
    assert library.documents() == []
    assert library.batch(batch).status is BatchStatus.CANCELED


def test_an_ended_batch_cannot_be_canceled(library: Library) -> None:
    batch = library.submit(library.add_objects(texts(1)))
    library.run()
    with library.warehouse.catalog.transaction() as records, pytest.raises(WrongState, match="COMPLETED"):
        cancel(records, batch.batch_id, now=NOW)


def test_materialising_an_ended_batch_again_changes_nothing(library: Library) -> None:
    library.world.put("a.txt", b"one")
    library.world.put("b.txt", b"two")
    library.cycle()
    (batch,) = library.batches()
    above = library.documents()
    report = run_step(library.warehouse, batch.batch_id, library.passages, run_id="again")
    assert (report.step.inferred, library.inferred()) == (0, 2)
    assert library.batches() == [batch]

    def lasting(documents: Any) -> Any:
        return [one.model_dump(exclude={"run_id", "updated_at"}) for one in documents]

    assert lasting(library.documents()) == lasting(above)
    library.assert_exact()


def test_a_partition_of_no_batch_and_a_collection_of_no_step_are_named(library: Library) -> None:
    with pytest.raises(NotFound, match="'btch_none' belongs to no batch"):
        run_step(library.warehouse, "btch_none", library.passages, run_id="r")
    batch = library.submit(library.add_objects(texts(1)))
    late = library.collection("late", {"type": "bucket", "bucket_ids": [library.bucket.bucket_id]})
    with pytest.raises(NotFound, match="has no work for collection"):
        run_step(library.warehouse, batch.batch_id, late, run_id="r")


# Which collections


def test_a_batch_may_name_its_collections(library: Library) -> None:
    second = library.collection("second", {"type": "bucket", "bucket_ids": [library.bucket.bucket_id]})
    ids = library.add_objects(texts(2))
    library.submit(ids, collection_ids=[second.collection_id])
    library.run()
    assert (len(library.documents()), len(library.documents(second))) == (0, 2)


def test_a_collection_is_not_run_without_what_it_reads_from(library: Library) -> None:
    above = library.above("above", library.passages)
    ids = library.add_objects(texts(2))
    with pytest.raises(BadRequest, match=f"{above.collection_id} reads from"):
        library.submit(ids, collection_ids=[above.collection_id])


def test_a_file_that_changed_since_it_was_listed_is_left_to_the_next_pass(library: Library) -> None:
    library.world.put("a.txt", b"one")
    library.world.put("b.txt", b"b")
    library.poll()
    library.world.put("a.txt", b"changed")
    (report,) = library.run()
    assert (report.step.skipped, report.step.failed, report.step.documents) == (1, 0, 1)
    library.cycle()
    assert library.texts() == [1, 7]
    library.assert_exact()


@pytest.mark.parametrize("text", [b"one", b"bad"])
def test_an_object_that_changes_while_its_batch_runs_waits_for_the_batch_that_takes_the_change(
    warehouse: Warehouse, clock: Clock, text: bytes
) -> None:
    """Until then it is neither done nor to be tried again, and its documents are not called stale."""
    library = fresh_library(warehouse, clock, fail_on="bad")
    library.with_settings(max_failed_ratio=1.0)
    library.world.put("a.txt", text)
    library.world.put("b.txt", b"b")
    library.poll()
    key, run_id = start(library)

    def change(_step: Any) -> None:
        clock.move(1)
        library.world.put("a.txt", b"changed")
        library.poll()

    run_step(warehouse, key, library.passages, run_id=run_id, progress=change)
    statuses = {path: stored.status for path, stored in library.objects().items()}
    assert statuses == {"a.txt": ObjectStatus.PENDING, "b.txt": ObjectStatus.COMPLETED}
    assert [(check.stale, check.failed) for check in verify(warehouse)] == [(0, 0)] * 2
    assert library.poll().counters.new == 0
    assert len(library.batches()) == 2, "a failure that is outdated is not tried again"
    library.run()
    assert library.object_statuses() == {ObjectStatus.COMPLETED}
    assert library.texts() == [1, 7]
    library.assert_exact()


def test_a_provider_that_refuses_a_file_fails_that_file_only(library: Library) -> None:
    for name in ("a.txt", "b.txt"):
        library.world.put(name, name.encode())
    library.with_settings(max_failed_ratio=0.5)
    library.poll()

    def refuse(name: str) -> None:
        if name == "open" and library.world.calls["open"] == 1:
            raise PermissionError("no")

    library.world.before = refuse
    (report,) = library.run()
    assert (report.step.failed, report.step.documents) == (1, 1)
    (reason,) = failures(library, library.batches()[0]).values()
    assert "PermissionError: no" in reason


def test_an_object_listed_twice_in_a_batch_makes_its_documents_once(library: Library) -> None:
    ids = library.add_objects(texts(2))
    with library.warehouse.catalog.transaction() as records:
        batch = create_batch(
            records, ids, namespace_id=library.namespace.namespace_id, bucket_id=library.bucket.bucket_id, now=NOW
        )
        batch = records.batches.append_items(batch, ids, now=NOW)
        submit(records, batch, settings=library.warehouse.settings, now=NOW)
    (report,) = library.run()
    assert (report.step.documents, report.step.skipped) == (2, 2)
    library.assert_exact()


def test_a_draft_that_a_client_submits_between_two_pages_of_a_sync_gets_no_more(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Items that came after the parts were cut would never be processed."""
    fill = Intake.fill_batches

    def after_the_client(self: Intake, records: Records, object_ids: Any, **more: Any) -> None:
        for draft in records.batches.open_of_sync(library.sync.sync_id):
            submit(records, draft, settings=library.warehouse.settings, now=library.warehouse.now())
        fill(self, records, object_ids, **more)

    monkeypatch.setattr(Intake, "fill_batches", after_the_client)
    library.world.page_size = 3
    for number in range(8):
        library.world.put(f"{number}.txt", f"text {number}".encode())
    assert library.poll().error is None
    library.run()
    assert sorted((one.item_count, one.status) for one in library.batches()) == [(n, BatchStatus.COMPLETED) for n in (2, 3, 3)]
