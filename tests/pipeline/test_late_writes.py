"""What a run has worked out when its files are not what they were any more: files that went, or that a faster run has read again."""

from collections.abc import Callable
from typing import Any

import pytest

from mixpeek_dagster.models.collections import Collection
from mixpeek_dagster.models.documents import DocumentState
from mixpeek_dagster.models.objects import ObjectStatus
from mixpeek_dagster.pipeline import extraction
from mixpeek_dagster.pipeline.extraction import run_step
from mixpeek_dagster.pipeline.removal import finish_removals, remove_documents
from mixpeek_dagster.testing import FakeIndex
from tests.pipeline.worlds import Library

Meanwhile = Callable[[Collection, Callable[[], None]], None]


@pytest.fixture(params=["in the catalog", "in an index beside it"])
def shelf(library: Library, request: pytest.FixtureRequest) -> Library:
    """A library whose vectors are in one of two places."""
    if request.param != "in the catalog":
        library.with_settings(index="mixpeek_dagster.testing:FakeIndex")
    return library


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Meanwhile:
    """Lets something happen once, after a run has inferred the first window of a collection and before it writes what came out."""

    def arrange(collection: Collection, happens: Callable[[], None]) -> None:
        infer = extraction.infer
        waiting = [happens]

        def inferred(extractor: Any, prepared: Any, **options: Any) -> Any:
            made = infer(extractor, prepared, **options)
            if waiting and extractor.fingerprint == collection.fingerprint:
                waiting.pop()()
            return made

        monkeypatch.setattr(extraction, "infer", inferred)

    return arrange


def run_first(library: Library) -> None:
    """Run the oldest queued part alone."""
    claimed = library.claim()[0]
    for collection_id in claimed.collection_ids:
        run_step(library.warehouse, claimed.part.partition_key, library.get(collection_id), run_id="first")


def test_of_a_file_that_goes_while_it_is_inferred_no_document_is_left(shelf: Library, meanwhile: Meanwhile) -> None:
    shelf.world.put("a.txt", b"a")
    shelf.world.put("b.txt", b"bb")
    shelf.poll()

    def goes() -> None:
        shelf.world.delete("a.txt")
        shelf.poll()

    meanwhile(shelf.passages, goes)
    run_first(shelf)
    assert shelf.texts() == [2]
    (batch,) = shelf.batches()
    with shelf.warehouse.catalog.reading() as records:
        totals = records.batches.totals(batch.batch_id)
    assert (totals["inputs"], totals["documents"], totals["skipped"], totals["failed"]) == (2, 1, 1, 0)
    shelf.assert_exact()


def test_a_slow_run_does_not_write_over_what_a_faster_one_read_later(shelf: Library, meanwhile: Meanwhile) -> None:
    shelf.world.put("a.txt", b"a")
    shelf.world.put("b.txt", b"bb")
    shelf.poll()

    def changes() -> None:
        shelf.world.put("a.txt", b"newer content")
        shelf.cycle()

    meanwhile(shelf.passages, changes)
    run_first(shelf)
    assert shelf.texts() == [2, 13]
    assert shelf.object_statuses() == {ObjectStatus.COMPLETED}
    shelf.assert_exact()


def test_what_changed_and_was_not_read_again_yet_is_written_as_it_was(shelf: Library, meanwhile: Meanwhile) -> None:
    shelf.world.put("a.txt", b"a")
    shelf.poll()

    def changes() -> None:
        shelf.world.put("a.txt", b"newer content")
        shelf.poll()

    meanwhile(shelf.passages, changes)
    run_first(shelf)
    assert shelf.texts() == [1]
    assert shelf.object_statuses() == {ObjectStatus.PENDING}
    shelf.run()
    assert shelf.texts() == [13]
    shelf.assert_exact()


def test_of_a_document_that_goes_nothing_is_made_in_the_next_tier(shelf: Library, meanwhile: Meanwhile) -> None:
    top = shelf.above("top", shelf.passages, fail_on="never")
    shelf.world.put("a.txt", b"a")
    shelf.world.put("b.txt", b"bb")
    shelf.poll()

    def goes() -> None:
        (document,) = [one for one in shelf.documents() if one.payload["size"] == 1]
        with shelf.warehouse.catalog.transaction() as records:
            remove_documents(records, shelf.warehouse, [document.document_id], now=shelf.warehouse.now())
        finish_removals(shelf.warehouse)

    meanwhile(top, goes)
    run_first(shelf)
    assert shelf.texts() == shelf.texts(top) == [2]


def run_while(library: Library, happens: Callable[[], object]) -> None:
    """Run a batch of two files, and let something happen when their vectors are on the way to an index beside the catalog."""
    library.with_settings(index="mixpeek_dagster.testing:FakeIndex")
    library.world.put("a.txt", b"a")
    library.world.put("b.txt", b"bb")
    library.poll()

    def before(name: str) -> None:
        if name == "upsert":
            FakeIndex.before = staticmethod(lambda _: None)
            happens()

    FakeIndex.before = staticmethod(before)
    run_first(library)


def test_of_a_file_that_goes_on_the_way_to_the_index_no_vector_is_left(library: Library) -> None:
    def goes() -> None:
        library.world.delete("a.txt")
        library.poll()

    run_while(library, goes)
    assert len(FakeIndex.points[library.passages.collection_id]) == 1
    library.assert_exact()


def test_what_a_faster_run_brought_to_the_index_is_not_replaced_there_by_an_older_revision(library: Library) -> None:
    def changes() -> None:
        library.world.put("a.txt", b"newer content")
        library.cycle()

    run_while(library, changes)
    assert library.texts() == [2, 13]
    with library.warehouse.catalog.reading() as records:
        documents = library.documents()
        vectors = records.documents.vectors_of(documents)
    held = FakeIndex.points[library.passages.collection_id]
    for one in documents:
        assert {name: vector.tobytes() for name, vector in held[one.document_id].vectors.items()} == vectors[one.document_id]
        assert held[one.document_id].payload["size"] == one.payload["size"]
    assert {one.state for one in documents} == {DocumentState.INDEXED}
    library.assert_exact()
