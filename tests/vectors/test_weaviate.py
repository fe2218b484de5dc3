"""The Weaviate index against a real server: the contract, races, crashes, and what stands in the server afterwards."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mixpeek_dagster.errors import Invalid, VectorIndexError
from mixpeek_dagster.vectors import weaviate as adapter
from mixpeek_dagster.vectors.embedded import EmbeddedIndex
from mixpeek_dagster.vectors.index import Point, Space
from mixpeek_dagster.vectors.weaviate import WeaviateIndex
from mixpeek_dagster.vectors.weaviate_schema import class_name, object_uuid
from tests.vectors.contract import DIM, IMAGE, TEXT, IndexContract, World, cosine, points, vectors
from tests.vectors.stored import StoredVectors
from tests.weaviate_server import WeaviateServer


@pytest.fixture
def index(weaviate_server: WeaviateServer) -> Iterator[WeaviateIndex]:
    index = WeaviateIndex(weaviate_server.url, grpc_port=weaviate_server.grpc_port)
    yield index
    index.close()


@pytest.fixture
def world(index: WeaviateIndex) -> Iterator[World]:
    world = World(index, index)
    yield world
    for space in world.spaces:
        index.drop(space)


def stored_objects(index: WeaviateIndex, space: Space) -> dict[str, Any]:
    """What the server itself says it holds, by uuid."""
    collection = index._connected().collections.use(class_name(space))
    return {str(item.uuid): item for item in collection.iterator(include_vector=True)}


class TestWeaviate(IndexContract):
    @pytest.fixture
    def world(self, index: WeaviateIndex) -> Iterator[World]:
        world = World(index, index)
        yield world
        for space in world.spaces:
            index.drop(space)


def test_both_engines_give_the_same_scores(world: World, tmp_path: Path) -> None:
    rows, space, some = StoredVectors(tmp_path / "catalog.db"), world.space(), points(1_000)
    rows.upsert(space, some)
    world.writer.upsert(space, some)
    exact = EmbeddedIndex(rows)
    for query in vectors(10, seed=11):
        ours = {hit.document_id: hit.score for hit in exact.search(space, TEXT, query, top_k=1_000)}
        theirs = world.index.search(space, TEXT, query, top_k=20)
        assert theirs[0].document_id == next(iter(ours))
        assert [hit.score for hit in theirs] == pytest.approx([ours[hit.document_id] for hit in theirs], abs=1e-3)
    rows.connection.close()


def test_the_server_holds_the_whole_payload_and_the_columns(world: World, index: WeaviateIndex) -> None:
    space, vector = world.space(), vectors(1)[0]
    payload = {
        "title": "日本語 🎞\n\x00\ud800",
        "big": 2**63 + 1,
        "root_object_id": "obj_root",
        "source_object_id": "obj_source",
        "batch_id": 7,
        "created_at": "2026-11-22T01:02:03Z",
    }
    index.upsert(space, [Point("doc_a", {TEXT: vector}, payload)])
    (item,) = stored_objects(index, space).values()
    assert json.loads(item.properties["metadata_json"]) == payload
    assert item.properties["root_object_id"] == "obj_root"
    assert item.properties["source_object_id"] == "obj_source"
    assert item.properties["batch_id"] is None
    assert item.properties["namespace_id"] == space.namespace_id
    assert item.properties["collection_id"] == space.collection_id
    assert item.properties["created_at"].isoformat() == "2026-11-22T01:02:03+00:00"
    assert item.uuid == object_uuid(space, "doc_a")
    assert cosine(np.asarray(item.vector[TEXT], np.float32), vector) == pytest.approx(1, abs=1e-6)
    assert list(item.vector) == [TEXT]


def test_the_class_is_searched_by_cosine_and_indexes_only_what_is_asked_for(world: World, index: WeaviateIndex) -> None:
    space = world.space()
    config = index._connected().collections.use(class_name(space)).config.get()
    assert set(config.vector_config) == {TEXT, IMAGE}
    assert {v.vector_index_config.distance_metric.value for v in config.vector_config.values()} == {"cosine"}
    filterable = {prop.name for prop in config.properties if prop.index_filterable}
    assert filterable == {"document_id", "root_object_id", "source_object_id", "batch_id", "created_at"}
    assert not any(prop.index_searchable for prop in config.properties)


RACER = """
import sys
from mixpeek_dagster.vectors.index import Space
from mixpeek_dagster.vectors.weaviate import WeaviateIndex
index = WeaviateIndex(sys.argv[1], grpc_port=int(sys.argv[2]))
index.count(Space(namespace_id="ns", collection_id="col_none", outputs={}))
print("ready", flush=True)
sys.stdin.readline()
for number in range(8):
    index.ensure(Space(namespace_id="ns", collection_id=f"col_race_{number}", outputs={"both": 3}))
for number in range(8):
    outputs = {"both": 3, sys.argv[3]: 4}
    index.ensure(Space(namespace_id="ns", collection_id=f"col_race_{number}", outputs=outputs))
index.close()
"""


def test_two_processes_may_make_and_widen_the_same_spaces_at_once(weaviate_server: WeaviateServer, index: WeaviateIndex) -> None:
    command = [sys.executable, "-c", RACER, weaviate_server.url, str(weaviate_server.grpc_port)]
    racers = [
        subprocess.Popen([*command, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for name in ("one", "two")
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    for racer in racers:
        _, complaints = racer.communicate(timeout=60)
        assert racer.returncode == 0, complaints
    for number in range(8):
        space = Space(namespace_id="ns", collection_id=f"col_race_{number}", outputs={})
        config = index._connected().collections.use(class_name(space)).config.get()
        assert set(config.vector_config) == {"both", "one", "two"}
        index.drop(space)


def test_a_vector_the_server_refuses_names_its_document_and_stores_the_others(world: World, index: WeaviateIndex) -> None:
    space = world.space(**{TEXT: DIM})
    index.upsert(space, points(3))
    wrong = Space(namespace_id=space.namespace_id, collection_id=space.collection_id, outputs={TEXT: 5})
    with pytest.raises(Invalid, match=r"1 documents of collection col_\w+ were not indexed \(doc_bad\).*rebuild it") as caught:
        index.upsert(wrong, [Point("doc_bad", {TEXT: np.ones(5, np.float32)}, {}), Point("doc_good", {}, {})])
    assert caught.value.details["document_ids"] == ["doc_bad"]
    assert set(index.ids(space)) == {"doc_000000", "doc_000001", "doc_000002", "doc_good"}


def test_failed_objects_are_tried_again_alone(world: World, index: WeaviateIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    space, sent = world.space(), []
    insert = adapter._insert

    def flaky(client: Any, space: Space, batch: Any) -> dict[str, str]:
        sent.append(list(batch))
        failed = [document_id for document_id in batch if document_id.endswith("7")] if len(sent) < 3 else []
        insert(client, space, {k: v for k, v in batch.items() if k not in failed})
        return dict.fromkeys(failed, "try later")

    monkeypatch.setattr(adapter, "_insert", flaky)
    monkeypatch.setattr(adapter, "BACKOFF_S", 0.0)
    index.upsert(space, points(20))
    assert [len(batch) for batch in sent] == [20, 2, 2]
    assert index.count(space) == 20


def test_batches_are_bounded_by_count_and_by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    space = Space(namespace_id="ns", collection_id="col", outputs={TEXT: DIM})
    objects = {p.document_id: adapter.stored_object(space, p) for p in points(600)}
    assert [len(batch) for batch in adapter._batches(objects)] == [256, 256, 88]
    monkeypatch.setattr(adapter, "BATCH_BYTES", 5_000)
    parts = list(adapter._batches(objects))
    assert max(len(part) for part in parts) <= 8
    assert [document_id for part in parts for document_id in part] == list(objects)
    monkeypatch.setattr(adapter, "BATCH_BYTES", 1)
    assert len(list(adapter._batches(objects))) == 600


def test_deleting_more_than_the_server_takes_at_once_leaves_none(
    world: World, index: WeaviateIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = world.space(tiny=2)
    index.upsert(space, [Point(f"doc_{i}", {}, {}) for i in range(10_200)])
    assert index.count(space) == 10_200
    monkeypatch.setattr(adapter, "IDS_PER_CALL", 20_000)  # above QUERY_MAXIMUM_RESULTS
    index.delete(space, [f"doc_{i}" for i in range(10_200)])
    assert index.count(space) == 0
    assert list(index.ids(space)) == []


def test_more_hits_than_the_server_gives_are_refused(world: World, index: WeaviateIndex) -> None:
    space = world.space()
    index.upsert(space, points(3))
    with pytest.raises(Invalid, match="QUERY_MAXIMUM_RESULTS"):
        index.search(space, TEXT, vectors(1)[0], top_k=10_001)


def test_many_among_ids_are_asked_for_in_parts(world: World, index: WeaviateIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    space, some = world.space(), points(500)
    index.upsert(space, some)
    among = [point.document_id for point in some]
    whole = index.search(space, TEXT, some[0].vectors[TEXT], top_k=7, among=among)
    monkeypatch.setattr(adapter, "IDS_PER_CALL", 33)
    assert index.search(space, TEXT, some[0].vectors[TEXT], top_k=7, among=among) == whole


def test_an_index_may_be_opened_before_a_fork_but_not_used(
    weaviate_server: WeaviateServer, world: World, index: WeaviateIndex
) -> None:
    space = world.space()
    index.upsert(space, points(5))
    code = f"""
import os, sys
from mixpeek_dagster.errors import VectorIndexError
from mixpeek_dagster.vectors.index import Space
from mixpeek_dagster.vectors.weaviate import WeaviateIndex
space = Space(namespace_id={space.namespace_id!r}, collection_id={space.collection_id!r}, outputs={{}})
index = WeaviateIndex({weaviate_server.url!r}, grpc_port={weaviate_server.grpc_port})

def in_child():
    child = os.fork()
    if child == 0:
        try:
            os._exit(index.count(space))
        except VectorIndexError as error:
            os._exit(100 if "spawn instead of fork" in error.message else 101)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

assert in_child() == 5
assert index.count(space) == 5
assert in_child() == 100
index.close()
assert in_child() == 100
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=60)


def test_a_server_killed_in_the_middle_of_a_write_keeps_what_it_acknowledged_and_takes_the_rest_again(
    weaviate_server: WeaviateServer, world: World, index: WeaviateIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter, "BACKOFF_S", 0.1)
    space, some = world.space(), points(4_000)
    index.upsert(space, some[:500])
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(index.upsert, space, some)
        while index.count(space) < 1_000 and not writing.done():
            time.sleep(0.02)
        weaviate_server.kill()
        try:
            complaint = f"documents of collection {space.collection_id} were not indexed"
            with pytest.raises(VectorIndexError, match=complaint) as caught:
                writing.result()
        finally:
            weaviate_server.start()
    lost = set(caught.value.details["document_ids"])
    assert lost
    assert {point.document_id for point in some} - lost <= set(index.ids(space))
    index.upsert(space, [point for point in some if point.document_id in lost])
    assert sorted(index.ids(space)) == [point.document_id for point in some]
    assert index.count(space) == 4_000
    assert not_found(index, space, [point for point in some if point.document_id in lost][::20]) == []
    # What was acknowledged in the last seconds may have lost its vector (docs/decisions/0003); writing it again brings that back.
    index.upsert(space, some)
    assert not_found(index, space, some[::20]) == []
    assert index.count(space) == 4_000


def test_with_asynchronous_indexing_a_killed_server_loses_no_vector(tmp_path: Path, weaviate_server: WeaviateServer) -> None:
    server = WeaviateServer(tmp_path)
    server.start(async_indexing=True)
    index = WeaviateIndex(server.url, grpc_port=server.grpc_port)
    try:
        space, some = Space(namespace_id="ns", collection_id="col", outputs={TEXT: DIM}), points(1_000)
        index.upsert(space, some)
        server.kill()
        server.start(async_indexing=True)
        missing, deadline = some[::10], time.monotonic() + 60
        while missing and time.monotonic() < deadline:
            missing = not_found(index, space, missing)
        assert missing == []
    finally:
        index.close()
        server.kill()


def not_found(index: WeaviateIndex, space: Space, wanted: Sequence[Point]) -> list[Point]:
    """Those that are not the first hit of their own vector."""
    firsts = [index.search(space, TEXT, point.vectors[TEXT], top_k=1) for point in wanted]
    return [point for point, hits in zip(wanted, firsts, strict=True) if [hit.document_id for hit in hits] != [point.document_id]]


def test_a_stopped_server_is_reported_at_once_and_forgiven_when_it_is_back(
    weaviate_server: WeaviateServer, world: World, index: WeaviateIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    space, some = world.space(), points(5)
    index.upsert(space, some)
    weaviate_server.kill()
    try:
        monkeypatch.setattr(WeaviateIndex, "_connect", lambda _: pytest.fail("the client would try for a minute"))
        for call in (
            lambda: index.search(space, TEXT, some[0].vectors[TEXT], top_k=1),
            lambda: index.count(space),
            lambda: index.ensure(space),
            lambda: index.delete(space, ["doc_000001"]),
            lambda: list(index.ids(space)),
            lambda: index.drop(space),
        ):
            with pytest.raises(VectorIndexError, match=r"does not answer.*MIXPEEK_WEAVIATE_URL and MIXPEEK_WEAVIATE_GRPC_PORT"):
                call()
        with pytest.raises(VectorIndexError, match="does not answer") as caught:
            index.upsert(space, some)
        assert caught.value.details["document_ids"] == [point.document_id for point in some]
    finally:
        weaviate_server.start()
        monkeypatch.undo()
    index.upsert(space, some)
    assert index.search(space, TEXT, some[0].vectors[TEXT], top_k=1)[0].document_id == "doc_000000"
