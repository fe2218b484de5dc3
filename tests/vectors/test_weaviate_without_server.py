"""What the Weaviate index decides by itself; no server runs here."""

import logging
import socket
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import numpy as np
import pytest

from mixpeek_dagster.errors import Invalid, UnknownName, VectorIndexError
from mixpeek_dagster.settings import Settings
from mixpeek_dagster.vectors import weaviate as adapter
from mixpeek_dagster.vectors.embedded import EmbeddedIndex
from mixpeek_dagster.vectors.index import Point, Space, open_index
from mixpeek_dagster.vectors.weaviate import WeaviateIndex, _lost
from mixpeek_dagster.vectors.weaviate_schema import class_name, object_uuid, stored_object, vector_name
from tests.vectors.stored import StoredVectors

SPACE = Space(namespace_id="ns_a", collection_id="col_a", outputs={"text": 3})


def test_names_are_the_same_for_ever() -> None:
    assert class_name(SPACE) == "Mx_5b6cd7b744122d24"
    assert object_uuid(SPACE, "doc_1") == UUID("8e933839-5818-5764-a04f-3b3ae3585c6b")


def test_another_namespace_or_collection_is_another_class() -> None:
    other = Space(namespace_id="ns_b", collection_id="col_a", outputs={})
    assert class_name(other) != class_name(SPACE)
    assert object_uuid(other, "doc_1") != object_uuid(SPACE, "doc_1")


@pytest.mark.parametrize(
    ("output", "allowed"), [("text_extractor_v1_embedding", True), ("faces-v1", False), ("1st", False), ("ü", False)]
)
def test_vector_names_are_what_weaviate_allows(output: str, allowed: bool) -> None:
    name = vector_name(output)
    assert (name == output) is allowed
    assert name.isascii()
    assert name.isidentifier()
    assert vector_name(output) == name


def test_a_vector_that_does_not_fit_is_refused_before_anything_is_sent() -> None:
    for vector in (np.ones(4, np.float32), np.array([1, 2, np.inf], np.float32)):
        with pytest.raises(Invalid, match="col_a"):
            stored_object(SPACE, Point("doc_1", {"text": vector}, {}))
    with pytest.raises(Invalid, match="no vector output 'image'"):
        stored_object(SPACE, Point("doc_1", {"image": np.ones(3, np.float32)}, {}))


def test_a_payload_that_is_not_json_is_refused_with_the_document_id() -> None:
    with pytest.raises(Invalid, match="col_a/doc_1 cannot be stored: set is not JSON"):
        stored_object(SPACE, Point("doc_1", {}, {"tags": {1}}))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2026-11-22T01:02:03Z", datetime(2026, 11, 22, 1, 2, 3, tzinfo=UTC)),
        ("2026-11-22T01:02:03", datetime(2026, 11, 22, 1, 2, 3, tzinfo=UTC)),
        (datetime(2026, 11, 22, 1, tzinfo=timezone(timedelta(hours=1))), datetime(2026, 11, 22, tzinfo=UTC)),
        ("yesterday", None),
        (None, None),
        (5, None),
    ],
    ids=str,
)
def test_created_at_is_a_moment_or_left_out(value: object, expected: datetime | None) -> None:
    assert stored_object(SPACE, Point("doc_1", {}, {"created_at": value})).properties.get("created_at") == expected


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "ftp://host", "http://", "http://host/prefix", "http://host:x", ""])
def test_a_url_that_cannot_be_one_is_refused_with_the_variable_name(url: str) -> None:
    with pytest.raises(Invalid, match="MIXPEEK_WEAVIATE_URL"):
        WeaviateIndex(url, grpc_port=50051)


def test_one_port_cannot_be_both() -> None:
    with pytest.raises(Invalid, match="MIXPEEK_WEAVIATE_GRPC_PORT is 8080"):
        WeaviateIndex("http://127.0.0.1:8080", grpc_port=8080)


def test_opening_an_index_connects_to_nothing(settings: Settings) -> None:
    rows = StoredVectors(settings.home / "catalog.db")
    assert isinstance(open_index(settings, rows), EmbeddedIndex)
    index = open_index(Settings(**{**settings.__dict__, "index": "weaviate", "weaviate_url": "http://192.0.2.1:1"}), rows)
    assert isinstance(index, WeaviateIndex)
    assert index.is_projection
    index.close()
    with pytest.raises(UnknownName, match="Known: embedded, weaviate"):
        open_index(Settings(**{**settings.__dict__, "index": "other"}), rows)
    rows.connection.close()


def test_a_refused_connection_says_at_once_where_and_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WeaviateIndex, "_connect", lambda _: pytest.fail("the client would try for a minute"))
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound but not listening: refuses
        port = held.getsockname()[1]
        index = WeaviateIndex(f"http://127.0.0.1:{port}", grpc_port=1, api_key="very-secret")
        with pytest.raises(
            VectorIndexError, match=rf"http://127.0.0.1:{port} \(gRPC port 1\) does not answer.*MIXPEEK_WEAVIATE_URL"
        ) as e:
            index.count(SPACE)
        assert "very-secret" not in str(e.value)


def test_a_server_that_accepts_and_never_answers_does_not_hang_us(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "CONNECT_S", 1)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        index = WeaviateIndex(f"http://127.0.0.1:{port}", grpc_port=1)
        with pytest.raises(VectorIndexError, match="does not answer"):
            index.count(SPACE)


def test_losses_name_a_few_documents_and_list_all() -> None:
    error = _lost(SPACE, [(f"doc_{i}", "shard is read-only") for i in range(25)])
    assert isinstance(error, VectorIndexError)
    assert error.message.startswith("25 documents of collection col_a were not indexed (doc_0, ")
    assert "doc_9 and 15 more): shard is read-only" in error.message
    assert len(error.details["document_ids"]) == 25


def test_the_client_does_not_log_payloads(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="weaviate-client"):
        logging.getLogger("weaviate-client").error({"errors": "a whole object"})
        logging.getLogger("weaviate-client").error("a plain line")
    assert [record.getMessage() for record in caplog.records] == ["a plain line"]
