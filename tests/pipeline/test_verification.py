"""Whatever is wrong between source, catalog and index is found and named."""

import pytest

from mixpeek_dagster.catalog.syncs import KeyState
from mixpeek_dagster.errors import AccessDenied
from mixpeek_dagster.models.collections import Collection
from mixpeek_dagster.models.objects import ObjectStatus
from mixpeek_dagster.pipeline.verification import Check, verify
from mixpeek_dagster.testing import FakeIndex
from tests.pipeline.worlds import NOW, Library


@pytest.fixture
def exact(library: Library) -> tuple[Library, Collection]:
    """A library without a fault, with a second tier and an index beside the catalog."""
    library.with_settings(index="mixpeek_dagster.testing:FakeIndex")
    above = library.above("above", library.passages)
    for name in ("a.txt", "b.txt", "c.txt"):
        library.world.put(name, name.encode())
    library.cycle()
    library.assert_exact()
    return library, above


def faults(library: Library) -> dict[str, list[str]]:
    """What is checked → examples, where something is wrong."""
    found = {check.what: check for check in verify(library.warehouse)}
    assert len(found) == 5
    return {what: check.examples for what, check in found.items() if not check.ok}


SOURCE, PASSAGES, ABOVE = "source fake://default/", "collection passages", "collection above"


def test_everything_is_compared(exact: tuple[Library, Collection]) -> None:
    library, _ = exact
    assert {check.what: check.compared for check in verify(library.warehouse)} == {
        SOURCE: 3,
        PASSAGES: 3,
        ABOVE: 3,
        "index of passages": 3,
        "index of above": 3,
    }


def test_a_source_that_moved_on_is_seen(exact: tuple[Library, Collection]) -> None:
    library, _ = exact
    library.world.put("a.txt", b"edited")
    library.world.put("new.txt", b"new")
    library.world.delete("b.txt")
    library.world.page_size = 1
    assert faults(library) == {SOURCE: ["stale: a.txt", "missing: new.txt", "extra: b.txt"]}


def test_a_source_that_cannot_be_listed_is_an_error_not_a_proof(exact: tuple[Library, Collection]) -> None:
    library, _ = exact

    def refuse(_: str) -> None:
        raise AccessDenied("403")

    library.world.before = refuse
    (check,) = [one for one in verify(library.warehouse) if not one.ok]
    assert (check.what, check.error) == (SOURCE, "403")


def test_rejected_files_are_counted_as_failed_not_as_faults(exact: tuple[Library, Collection]) -> None:
    library, _ = exact
    with library.warehouse.catalog.transaction() as records:
        records.syncs.set_key_state(library.sync.sync_id, [b"a.txt"], KeyState.REJECTED)
    (check,) = [one for one in verify(library.warehouse) if one.what == SOURCE]
    assert (check.ok, check.failed) == (True, 1)


def test_an_object_that_waits_is_missing(exact: tuple[Library, Collection]) -> None:
    library, _ = exact
    library.world.put("d.txt", b"d")
    library.poll()
    assert faults(library) == {name: ["missing: d.txt (not processed yet)"] for name in (PASSAGES, ABOVE)}


def test_an_object_that_failed_is_counted_not_missing(exact: tuple[Library, Collection]) -> None:
    library, _ = exact
    (one, *_) = library.objects().values()
    with library.warehouse.catalog.transaction() as records:
        records.objects.fail({one.object_id: "why"}, now=NOW)
    assert [check.failed for check in verify(library.warehouse)] == [0, 1, 1, 0, 0]


@pytest.mark.parametrize("tier", [0, 1])
def test_a_document_that_is_gone_is_missing_in_its_tier(exact: tuple[Library, Collection], tier: int) -> None:
    library, above = exact
    which = (library.passages, above)[tier]
    objects = {stored.object_id: path for path, stored in library.objects().items()}
    doomed = library.documents(which)[0]
    with library.warehouse.catalog.transaction() as records:
        records.documents.remove(records.documents.with_descendants([doomed.document_id]))
    path = objects[str(doomed.root_object_id)]
    found = faults(library)
    assert any(path in example for example in found[(PASSAGES, ABOVE)[tier]])
    assert any(example.startswith("extra") for example in found[f"index of {which.collection_name}"])


def test_a_document_of_no_object_is_extra(exact: tuple[Library, Collection]) -> None:
    library, _ = exact
    one = library.documents()[0].model_copy(update={"document_id": "doc_x", "root_object_id": "obj_gone", "identity": "x"})
    with library.warehouse.catalog.transaction() as records:
        records.documents.put(library.passages.collection_id, [one])
    assert "extra: doc_x" in faults(library)[PASSAGES]


def test_a_document_of_an_older_revision_is_stale(exact: tuple[Library, Collection]) -> None:
    library, _ = exact
    (one, *_) = library.objects().values()
    with library.warehouse.catalog.transaction() as records:
        records.objects.put([one.model_copy(update={"revision": 2, "status": ObjectStatus.COMPLETED})])
    found = faults(library)
    assert [example.split(":")[0] for example in found[PASSAGES] + found[ABOVE]] == ["stale", "stale"]


def test_two_documents_of_one_unit_are_duplicates(exact: tuple[Library, Collection]) -> None:
    library, _ = exact
    one = library.documents()[0].model_copy(update={"document_id": "doc_zz"})
    with library.warehouse.catalog.transaction() as records:
        records.documents.put(library.passages.collection_id, [one])
    assert "duplicate: doc_zz" in faults(library)[PASSAGES]


def test_an_index_that_lost_or_kept_too_much_is_seen(exact: tuple[Library, Collection]) -> None:
    library, above = exact
    points = FakeIndex.points[above.collection_id]
    (lost, *_) = points
    points["doc_ghost"] = points.pop(lost)
    assert faults(library) == {"index of above": [f"missing: {lost}", "extra: doc_ghost"]}


def test_an_index_that_names_a_document_twice_is_seen(exact: tuple[Library, Collection], monkeypatch: pytest.MonkeyPatch) -> None:
    library, above = exact
    real = FakeIndex.ids
    monkeypatch.setattr(FakeIndex, "ids", lambda self, space: [*real(self, space)] * 2)
    assert all(one.startswith("duplicate") for one in faults(library)["index of above"])
    assert above.collection_id in FakeIndex.points


def test_at_most_twenty_examples_are_named() -> None:
    check = Check("x")
    for number in range(30):
        check.note("missing", str(number))
    assert (check.missing, len(check.examples), check.ok) == (30, 20, False)
