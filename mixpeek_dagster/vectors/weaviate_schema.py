"""How a space and its points look inside Weaviate: class, named vectors, columns, uuids. No connections, no retries."""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, cast
from uuid import UUID, uuid5

import numpy as np

from mixpeek_dagster.errors import Invalid, MissingExtra
from mixpeek_dagster.vectors.index import Point, Space, checked

try:
    import weaviate
    from weaviate.classes.config import Configure, DataType, Property, Tokenization, VectorDistances
    from weaviate.classes.data import DataObject
    from weaviate.exceptions import (
        UnexpectedStatusCodeError,
        WeaviateAddInvalidPropertyError,
        WeaviateBaseError,
        WeaviateInvalidInputError,
    )
except ImportError as error:
    raise MissingExtra("weaviate", needed_by="the Weaviate vector index") from error

StoredObject = DataObject[Mapping[str, Any], None]

UUID_SPACE = UUID("5b1d3f0e-8c55-5d0a-9d4e-6d2f0f0a7c11")  # never change it: it is in every stored object's uuid


def class_name(space: Space) -> str:
    """The space's class, e.g. `Mx_0a1b…` (19 characters); the same in every process for ever."""
    return "Mx_" + sha256(f"{space.namespace_id}|{space.collection_id}".encode()).hexdigest()[:16]


def object_uuid(space: Space, document_id: str) -> UUID:
    return uuid5(UUID_SPACE, f"{space.namespace_id}|{space.collection_id}|{document_id}")


def vector_name(output: str) -> str:
    """The output's own name where Weaviate allows it, else `v_` and a hash of it."""
    if re.fullmatch(r"[_A-Za-z][_0-9A-Za-z]{0,99}", output):
        return output
    return "v_" + sha256(output.encode()).hexdigest()[:16]


def _text(name: str, *, filterable: bool) -> Property:
    return Property(
        name=name,
        data_type=DataType.TEXT,
        tokenization=Tokenization.FIELD,  # the default, word, would make ids match by parts
        index_filterable=filterable,
        index_searchable=False,
    )


_COPIED = ("root_object_id", "source_object_id", "batch_id")  # from the payload, when they are text there
_PROPERTIES = [
    _text("document_id", filterable=True),
    _text("collection_id", filterable=False),  # the same in the whole class: an index on it would cost and find nothing
    _text("namespace_id", filterable=False),
    *(_text(name, filterable=True) for name in _COPIED),
    Property(name="created_at", data_type=DataType.DATE, index_filterable=True),
    _text("metadata_json", filterable=False),
]


def _named_vector(output: str) -> Any:
    cosine = Configure.VectorIndex.hnsw(distance_metric=VectorDistances.COSINE)
    return Configure.Vectors.self_provided(name=vector_name(output), vector_index_config=cosine)


def ensure_class(client: weaviate.WeaviateClient, space: Space) -> None:
    """Make the class, or add what it lacks; one request when there is nothing to do. Columns and vectors are never removed."""
    name = class_name(space)
    config = client.collections.use(name).config
    refused: WeaviateBaseError | None = None
    for _ in range(3 + len(space.outputs)):  # each turn another process may have been first
        try:
            found = config.get()
        except UnexpectedStatusCodeError as error:
            if error.status_code != 404:
                raise
            refused = _create(client, space) or refused
            continue
        columns = {prop.name for prop in found.properties}
        outputs = [output for output in sorted(space.outputs) if vector_name(output) not in (found.vector_config or {})]
        missing = [prop for prop in _PROPERTIES if prop.name not in columns]
        if not outputs and not missing:
            return
        try:
            for prop in missing:
                config.add_property(prop)
            if outputs:
                config.add_vector(vector_config=[_named_vector(output) for output in outputs])
        except (UnexpectedStatusCodeError, WeaviateInvalidInputError, WeaviateAddInvalidPropertyError) as error:
            refused = error
    raise refused or WeaviateBaseError(f"{name} lacks vectors or properties although they were added")


def _create(client: weaviate.WeaviateClient, space: Space) -> WeaviateBaseError | None:
    """Returns the refusal, which as a rule means that another process was first."""
    try:
        client.collections.create(
            class_name(space),
            description=f"mixpeek_dagster: {space.namespace_id}/{space.collection_id}",
            properties=_PROPERTIES,
            vector_config=[_named_vector(output) for output in sorted(space.outputs)],
        )
    except UnexpectedStatusCodeError as error:
        return error
    return None


def stored_object(space: Space, point: Point, *, scale: float = 1.0) -> StoredObject:
    """The point as Weaviate takes it, its vectors times `scale`, which cosine does not see.

    Raises:
        Invalid: a vector or the payload cannot be stored.
    """
    factor = np.float32(scale)
    vectors = {vector_name(output): checked(space, output, vector) * factor for output, vector in point.vectors.items()}
    payload = point.payload
    properties: dict[str, Any] = {
        "document_id": point.document_id,
        "collection_id": space.collection_id,
        "namespace_id": space.namespace_id,
        "metadata_json": _json(space, point),
    }
    properties.update((name, payload[name]) for name in _COPIED if isinstance(payload.get(name), str))
    created_at = _moment(payload.get("created_at"))
    if created_at is not None:
        properties["created_at"] = created_at
    # The client packs NumPy arrays well; its annotations only know lists.
    return DataObject(properties=properties, uuid=object_uuid(space, point.document_id), vector=cast(Any, vectors))


def _json(space: Space, point: Point) -> str:
    def moment(value: object) -> str:
        if isinstance(value, datetime):
            return value.isoformat()
        raise TypeError(f"{type(value).__name__} is not JSON")

    payload = dict(point.payload)
    try:
        text = json.dumps(payload, ensure_ascii=False, separators=(",", ":"), default=moment)
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate, legal in a Python string, has no UTF-8 form; escaped it comes back as it was
        text = json.dumps(payload, separators=(",", ":"), default=moment)
    except (TypeError, ValueError) as error:
        raise Invalid(f"The payload of {space.collection_id}/{point.document_id} cannot be stored: {error}.") from error
    return text


def _moment(value: object) -> datetime | None:
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
