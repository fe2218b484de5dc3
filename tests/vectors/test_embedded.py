"""The embedded index: the contract, and how its matrices follow the catalog."""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from mixpeek_dagster.vectors import embedded
from mixpeek_dagster.vectors.embedded import EmbeddedIndex
from mixpeek_dagster.vectors.index import Point, Space, VectorRow
from tests.vectors.contract import DIM, TEXT, IndexContract, World, points, vectors
from tests.vectors.stored import StoredVectors

SPACE = Space(namespace_id="ns_test", collection_id="col_a", outputs={TEXT: DIM})


@pytest.fixture
def stored(tmp_path: Path) -> Iterator[StoredVectors]:
    rows = StoredVectors(tmp_path / "catalog.db")
    yield rows
    rows.connection.close()


class TestEmbedded(IndexContract):
    @pytest.fixture
    def world(self, stored: StoredVectors) -> World:
        return World(EmbeddedIndex(stored), stored)


def test_writes_do_nothing_because_the_catalog_has_the_vectors(stored: StoredVectors) -> None:
    index = EmbeddedIndex(stored)
    assert not index.is_projection
    index.ensure(SPACE)
    index.upsert(SPACE, points(3))
    assert index.count(SPACE) == 0
    stored.upsert(SPACE, points(3))
    index.delete(SPACE, ["doc_000001"])
    index.drop(SPACE)
    assert index.count(SPACE) == 3


def test_only_what_changed_is_read_again(stored: StoredVectors) -> None:
    index, query = EmbeddedIndex(stored), vectors(1)[0]
    stored.upsert(SPACE, points(500))

    def rows_read() -> int:
        before = stored.read
        index.search(SPACE, TEXT, query, top_k=3)
        return stored.read - before

    assert rows_read() == 500
    assert rows_read() == 0
    stored.upsert(SPACE, points(7))
    assert rows_read() == 7
    stored.delete(SPACE, ["doc_000400"])
    assert rows_read() == 499


@pytest.mark.parametrize("block_rows", [1, 7, 64])
def test_any_history_of_writes_gives_the_answers_of_a_fresh_index(
    stored: StoredVectors, monkeypatch: pytest.MonkeyPatch, block_rows: int
) -> None:
    monkeypatch.setattr(embedded, "BLOCK_ROWS", block_rows)
    index, random, query = EmbeddedIndex(stored), np.random.default_rng(block_rows), vectors(1, seed=9)[0]
    for step in range(60):
        names = [f"doc_{number}" for number in random.integers(0, 90, size=random.integers(1, 30))]
        if random.random() < 0.25:
            stored.delete(SPACE, names)
        else:
            some = vectors(len(names), seed=step)
            stored.upsert(SPACE, [Point(n, {TEXT: v} if v[0] > -3 else {}, {}) for n, v in zip(names, some, strict=True)])
        among = None if random.random() < 0.5 else [f"doc_{number}" for number in range(0, 90, 3)]
        top_k = int(random.integers(1, 100))
        fresh = EmbeddedIndex(stored).search(SPACE, TEXT, query, top_k=top_k, among=among)
        followed = index.search(SPACE, TEXT, query, top_k=top_k, among=among)
        assert [hit.document_id for hit in followed] == [hit.document_id for hit in fresh]
        assert [hit.score for hit in followed] == pytest.approx([hit.score for hit in fresh], abs=2e-6)


def test_searches_in_threads_while_documents_change(stored: StoredVectors, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "BLOCK_ROWS", 32)
    index, fixed = EmbeddedIndex(stored), points(100)
    stored.upsert(SPACE, fixed)

    def search(number: int) -> bool:
        point = fixed[number % 50]
        hit = index.search(SPACE, TEXT, point.vectors[TEXT], top_k=1)[0]
        return hit.document_id == point.document_id and hit.score > 0.999

    with ThreadPoolExecutor(4) as pool:
        found = pool.map(search, range(400))
        for step in range(40):
            stored.upsert(SPACE, [Point(f"doc_{50 + step:06d}", {TEXT: -vectors(1, seed=step)[0]}, {})])
            if step % 10 == 0:
                stored.delete(SPACE, [f"doc_{99 - step // 10:06d}"])
        assert all(found)


def test_a_damaged_vector_is_not_found_and_harms_no_other(stored: StoredVectors) -> None:
    index, some = EmbeddedIndex(stored), points(4)
    nan = np.full(DIM, np.nan, np.float32)
    stored.upsert(SPACE, [*some, Point("doc_nan", {TEXT: nan}, {}), Point("doc_short", {TEXT: np.ones(3, np.float32)}, {})])
    hits = index.search(SPACE, TEXT, some[0].vectors[TEXT], top_k=9)
    assert {hit.document_id for hit in hits} == {point.document_id for point in some}
    assert index.search(SPACE, TEXT, some[0].vectors[TEXT], top_k=9, among=["doc_nan", "doc_short"]) == []
    stored.upsert(SPACE, [Point("doc_nan", {TEXT: some[0].vectors[TEXT]}, {})])
    assert len(index.search(SPACE, TEXT, some[0].vectors[TEXT], top_k=9)) == 5


def test_a_read_that_breaks_off_leaves_nothing_half_taken(stored: StoredVectors, monkeypatch: pytest.MonkeyPatch) -> None:
    index, before = EmbeddedIndex(stored), points(20)
    stored.upsert(SPACE, before)
    index.search(SPACE, TEXT, before[0].vectors[TEXT], top_k=1)
    stored.upsert(SPACE, [Point(p.document_id, {TEXT: -p.vectors[TEXT]}, {}) for p in before])
    whole = stored.vectors

    def breaks(collection_id: str, output: str, *, after_seq: int) -> Iterator[VectorRow]:
        for number, row in enumerate(whole(collection_id, output, after_seq=after_seq)):
            if number == 5:
                raise OSError("disk")
            yield row

    monkeypatch.setattr(stored, "vectors", breaks)
    with pytest.raises(OSError, match="disk"):
        index.search(SPACE, TEXT, before[0].vectors[TEXT], top_k=1)
    monkeypatch.setattr(stored, "vectors", whole)
    for point in before:
        assert index.search(SPACE, TEXT, -point.vectors[TEXT], top_k=1)[0].document_id == point.document_id


def test_matrices_beyond_the_limit_are_forgotten(stored: StoredVectors) -> None:
    index = EmbeddedIndex(stored, max_cached_bytes=embedded.BLOCK_ROWS * DIM * 4)
    other = Space(namespace_id="ns_test", collection_id="col_b", outputs={TEXT: DIM})
    for space in (SPACE, other):
        stored.upsert(space, points(5))
    for space in (SPACE, other, SPACE):
        assert len(index.search(space, TEXT, vectors(1)[0], top_k=9)) == 5
    assert stored.read == 15


def test_importing_it_imports_neither_a_server_client_nor_the_catalog() -> None:
    code = (
        "import sys, mixpeek_dagster.vectors.embedded;"
        "bad = {'weaviate', 'grpc', 'sqlalchemy', 'dagster', 'mixpeek_dagster.catalog'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
