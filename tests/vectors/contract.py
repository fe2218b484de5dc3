"""What every vector index has to do. A test of one index is this class and a fixture that makes a `World`."""

from collections.abc import Iterator, Sequence
from typing import Protocol
from uuid import uuid4

import numpy as np
import pytest
from numpy.typing import NDArray

from mixpeek_dagster.errors import Invalid
from mixpeek_dagster.vectors.index import Point, Space, VectorIndex

TEXT, IMAGE = "text_extractor_v1_embedding", "image_extractor_v1_embedding"
DIM = 48


class Writer(Protocol):
    """Puts points where the index under test finds them: the index itself, or a stand-in for the catalog it reads."""

    def ensure(self, space: Space) -> None: ...
    def upsert(self, space: Space, points: Sequence[Point]) -> None: ...
    def delete(self, space: Space, document_ids: Sequence[str]) -> None: ...
    def drop(self, space: Space) -> None: ...


class World:
    def __init__(self, index: VectorIndex, writer: Writer) -> None:
        self.index, self.writer = index, writer
        self.spaces: list[Space] = []

    def space(self, **outputs: int) -> Space:
        space = Space(
            namespace_id="ns_test", collection_id=f"col_{uuid4().hex[:12]}", outputs=outputs or {TEXT: DIM, IMAGE: DIM // 2}
        )
        self.writer.ensure(space)
        self.spaces.append(space)
        return space


def vectors(count: int, dim: int = DIM, *, seed: int = 7) -> NDArray[np.float32]:
    """Random vectors of random lengths: cosine must not care about the lengths."""
    random = np.random.default_rng(seed)
    return (random.standard_normal((count, dim)) * random.uniform(0.1, 9, (count, 1))).astype(np.float32)


def points(count: int, dim: int = DIM, *, seed: int = 7) -> list[Point]:
    return [
        Point(f"doc_{i:06d}", {TEXT: vector}, {"source_object_id": f"obj_{i}", "number": i})
        for i, vector in enumerate(vectors(count, dim, seed=seed))
    ]


def cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


class IndexContract:
    @pytest.fixture
    def world(self) -> Iterator[World]:
        raise NotImplementedError

    def test_search_finds_the_nearest_first_with_its_cosine(self, world: World) -> None:
        space, stored, queries = world.space(), points(200), vectors(5, seed=8)
        world.writer.upsert(space, stored)
        for query in queries:
            expected = sorted(((cosine(query, p.vectors[TEXT]), p.document_id) for p in stored), reverse=True)[:5]
            hits = world.index.search(space, TEXT, query, top_k=5)
            assert [hit.document_id for hit in hits] == [document_id for _, document_id in expected]
            assert [hit.score for hit in hits] == pytest.approx([score for score, _ in expected], abs=1e-3)

    def test_writing_again_replaces(self, world: World) -> None:
        space, stored = world.space(), points(20)
        world.writer.upsert(space, stored)
        world.writer.upsert(space, stored)
        moved = Point("doc_000003", {TEXT: -stored[3].vectors[TEXT]}, {"number": 33})
        world.writer.upsert(space, [moved])
        assert world.index.count(space) == 20
        assert world.index.search(space, TEXT, moved.vectors[TEXT], top_k=1)[0].document_id == "doc_000003"
        opposite = world.index.search(space, TEXT, stored[3].vectors[TEXT], top_k=20)
        assert opposite[-1].document_id == "doc_000003"
        assert opposite[-1].score == pytest.approx(-1, abs=1e-3)

    def test_of_two_points_of_one_document_the_last_counts(self, world: World) -> None:
        space, (one, two) = world.space(), vectors(2)
        world.writer.upsert(space, [Point("doc_a", {TEXT: one}, {}), Point("doc_a", {TEXT: two}, {})])
        assert world.index.count(space) == 1
        assert world.index.search(space, TEXT, two, top_k=2)[0].score == pytest.approx(1, abs=1e-3)

    def test_a_search_after_each_write_sees_it(self, world: World) -> None:
        space, stored = world.space(), points(12)
        for number, point in enumerate(stored, 1):
            world.writer.upsert(space, [point])
            hits = world.index.search(space, TEXT, point.vectors[TEXT], top_k=50)
            assert (hits[0].document_id, len(hits)) == (point.document_id, number)
        world.writer.delete(space, ["doc_000000", "doc_000011"])
        hits = world.index.search(space, TEXT, stored[0].vectors[TEXT], top_k=50)
        assert {hit.document_id for hit in hits} == {point.document_id for point in stored[1:11]}

    def test_among_restricts_to_those_documents(self, world: World) -> None:
        space, stored = world.space(), points(300)
        world.writer.upsert(space, stored)
        query = stored[5].vectors[TEXT]
        among = {f"doc_{i:06d}" for i in range(100, 200)} | {"doc_unknown"}
        allowed = [point for point in stored if point.document_id in among]
        expected = sorted(allowed, key=lambda p: -cosine(query, p.vectors[TEXT]))[:10]
        hits = world.index.search(space, TEXT, query, top_k=10, among=among)
        assert [hit.document_id for hit in hits] == [point.document_id for point in expected]
        assert world.index.search(space, TEXT, query, top_k=10, among=set()) == []
        assert world.index.search(space, TEXT, query, top_k=10, among=["doc_unknown"]) == []
        assert [h.document_id for h in world.index.search(space, TEXT, query, top_k=9, among=["doc_000007"])] == ["doc_000007"]

    def test_each_vector_is_optional(self, world: World) -> None:
        space, text, image = world.space(), vectors(3), vectors(3, DIM // 2)
        both = Point("doc_both", {TEXT: text[0], IMAGE: image[0]}, {})
        world.writer.upsert(
            space,
            [both, Point("doc_text", {TEXT: text[1]}, {}), Point("doc_image", {IMAGE: image[1]}, {}), Point("doc_none", {}, {})],
        )
        assert world.index.count(space) == 4
        assert {h.document_id for h in world.index.search(space, TEXT, text[2], top_k=9)} == {"doc_both", "doc_text"}
        assert {h.document_id for h in world.index.search(space, IMAGE, image[2], top_k=9)} == {"doc_both", "doc_image"}
        world.writer.upsert(space, [Point("doc_both", {IMAGE: image[0]}, {})])
        assert {h.document_id for h in world.index.search(space, TEXT, text[2], top_k=9)} == {"doc_text"}

    def test_equal_vectors_are_ordered_by_document_id(self, world: World) -> None:
        space, vector = world.space(), vectors(1)[0]
        world.writer.upsert(space, [Point(f"doc_{name}", {TEXT: vector}, {}) for name in "dbeac"])
        hits = world.index.search(space, TEXT, vector, top_k=5)
        assert [hit.document_id for hit in hits] == ["doc_a", "doc_b", "doc_c", "doc_d", "doc_e"]

    def test_a_zero_vector_is_similar_to_nothing(self, world: World) -> None:
        space, vector = world.space(), vectors(1)[0]
        world.writer.upsert(space, [Point("doc_zero", {TEXT: np.zeros(DIM, np.float32)}, {}), Point("doc_a", {TEXT: vector}, {})])
        hits = world.index.search(space, TEXT, vector, top_k=2)
        assert [hit.document_id for hit in hits] == ["doc_a", "doc_zero"]
        assert hits[1].score == pytest.approx(0, abs=1e-6)

    def test_deleted_documents_are_gone_and_unknown_ids_ignored(self, world: World) -> None:
        space, stored = world.space(), points(30)
        world.writer.upsert(space, stored)
        gone = [point.document_id for point in stored[:10]]
        world.writer.delete(space, [*gone, "doc_unknown"])
        world.writer.delete(space, gone)
        world.writer.delete(space, [])
        assert world.index.count(space) == 20
        assert set(world.index.ids(space)) == {point.document_id for point in stored[10:]}
        hits = world.index.search(space, TEXT, stored[0].vectors[TEXT], top_k=50)
        assert {hit.document_id for hit in hits} == {point.document_id for point in stored[10:]}

    def test_ids_are_all_ids_once(self, world: World) -> None:
        space, stored = world.space(), points(2_300)
        world.writer.upsert(space, stored)
        assert sorted(world.index.ids(space)) == [point.document_id for point in stored]

    def test_a_dropped_space_is_empty_and_can_be_built_again(self, world: World) -> None:
        space, stored = world.space(), points(10)
        world.writer.upsert(space, stored)
        world.writer.drop(space)
        world.writer.drop(space)
        world.writer.delete(space, ["doc_000001"])
        assert world.index.count(space) == 0
        assert list(world.index.ids(space)) == []
        assert world.index.search(space, TEXT, stored[0].vectors[TEXT], top_k=3) == []
        assert world.index.search(space, TEXT, stored[0].vectors[TEXT], top_k=3, among=["doc_000001"]) == []
        world.writer.upsert(space, stored[:5])
        assert world.index.count(space) == 5
        assert world.index.search(space, TEXT, stored[2].vectors[TEXT], top_k=1)[0].document_id == "doc_000002"

    def test_spaces_do_not_see_each_other(self, world: World) -> None:
        one, two, stored = world.space(), world.space(), points(10)
        world.writer.upsert(one, stored[:5])
        world.writer.upsert(two, stored[5:])
        assert set(world.index.ids(one)) == {point.document_id for point in stored[:5]}
        hits = world.index.search(two, TEXT, stored[0].vectors[TEXT], top_k=10)
        assert {hit.document_id for hit in hits} == {point.document_id for point in stored[5:]}

    def test_an_output_may_be_added_later(self, world: World) -> None:
        space = world.space(**{TEXT: DIM})
        world.writer.upsert(space, points(3))
        wider = Space(namespace_id=space.namespace_id, collection_id=space.collection_id, outputs={TEXT: DIM, "faces-v1": 8})
        world.writer.ensure(wider)
        vector = vectors(1, 8)[0]
        world.writer.upsert(wider, [Point("doc_face", {"faces-v1": vector}, {})])
        assert [hit.document_id for hit in world.index.search(wider, "faces-v1", vector, top_k=3)] == ["doc_face"]
        assert world.index.count(wider) == 4

    def test_any_json_payload_is_taken(self, world: World) -> None:
        space, vector = world.space(), vectors(1)[0]
        payload = {"title": "日本語 🎞 Ünïcode\n\x00\ud800", "nested": {"list": [1, 2.5, None, True, {"a": []}]}, "big": 2**63 + 1}
        world.writer.upsert(space, [Point("doc_ü", {TEXT: vector}, payload)])
        assert world.index.search(space, TEXT, vector, top_k=1)[0].document_id == "doc_ü"

    def test_a_query_that_does_not_fit_is_refused(self, world: World) -> None:
        space = world.space()
        world.writer.upsert(space, points(3))
        with pytest.raises(Invalid, match=rf"{space.collection_id}/{TEXT} takes vectors of {DIM} numbers, this one has 5"):
            world.index.search(space, TEXT, np.ones(5, np.float32), top_k=1)
        with pytest.raises(Invalid, match=f"no vector output 'other'. Known: {IMAGE}, {TEXT}"):
            world.index.search(space, "other", np.ones(5, np.float32), top_k=1)
        with pytest.raises(Invalid, match="not finite"):
            world.index.search(space, TEXT, np.full(DIM, np.nan, np.float32), top_k=1)
        assert world.index.search(space, TEXT, np.ones(DIM, np.float32), top_k=0) == []

    def test_five_thousand_points(self, world: World) -> None:
        space, stored = world.space(), points(5_000)
        world.writer.upsert(space, stored)
        assert world.index.count(space) == 5_000
        for number in range(0, 5_000, 250):
            hit = world.index.search(space, TEXT, stored[number].vectors[TEXT], top_k=1)[0]
            assert hit.document_id == stored[number].document_id
            assert hit.score == pytest.approx(1, abs=1e-3)
        among = [point.document_id for point in stored[1_000:]]
        hits = world.index.search(space, TEXT, stored[0].vectors[TEXT], top_k=3, among=among)
        assert len(hits) == 3
        world.writer.delete(space, among)
        assert world.index.count(space) == 1_000

    def test_it_works_again_after_close(self, world: World) -> None:
        space, stored = world.space(), points(3)
        world.writer.upsert(space, stored)
        world.index.close()
        world.index.close()
        assert world.index.search(space, TEXT, stored[1].vectors[TEXT], top_k=1)[0].document_id == "doc_000001"
