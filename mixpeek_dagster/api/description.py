"""The OpenAPI description: short operation ids, summaries, what each operation can answer, and the examples of the seed pages."""

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute

TAGS = [
    {"name": "namespaces", "description": "The isolation boundary: nothing of one is readable in another."},
    {"name": "connections", "description": "How to reach other people's storage. Secrets go in and never come out."},
    {"name": "buckets", "description": "Raw files and their metadata, by a schema."},
    {"name": "objects", "description": "One raw asset of a bucket, made of blobs and metadata."},
    {"name": "uploads", "description": "Files that are put into managed storage through a signed URL, then confirmed."},
    {"name": "syncs", "description": "How a bucket follows a place where other people's files are."},
    {"name": "extractors", "description": "What can be made of files: the catalogue."},
    {"name": "collections", "description": "What one extractor makes of buckets or of other collections."},
    {"name": "documents", "description": "What was made: listed, read, changed, counted, aggregated."},
    {"name": "lineage", "description": "What a document was made from, and what was made from it."},
    {"name": "batches", "description": "Groups of objects on their way through the extractors."},
    {"name": "tasks", "description": "Work that outlives its request."},
    {"name": "search", "description": "The documents nearest to a text."},
    {"name": "retrievers", "description": "Stored searches of several stages."},
    {"name": "events", "description": "What happened, in order."},
    {"name": "webhooks", "description": "Who is told of which events."},
    {"name": "account", "description": "Whose key it is, and what was used."},
    {"name": "signed", "description": "URLs that the API hands out; their signature is the permission."},
    {"name": "health", "description": "Whether the server lives, and whether it can work."},
]

EXAMPLES: dict[tuple[str, str], Any] = {
    ("post", "/v1/namespaces"): {
        "namespace_name": "production",
        "feature_extractors": [{"feature_extractor_name": "multimodal_extractor", "version": "v1"}],
    },
    ("post", "/v1/buckets"): {
        "bucket_name": "product-catalog",
        "bucket_schema": {"properties": {"product_text": {"type": "text", "required": True}, "hero_image": {"type": "image"}}},
    },
    ("post", "/v1/buckets/{bucket_identifier}/syncs"): {
        "provider": "s3",
        "connection": {
            "bucket_name": "my-source-bucket",
            "region": "us-east-1",
            "credentials": {"access_key_id": "AKIA...", "secret_access_key": "..."},
        },
        "sync_config": {"source_path": "/videos/", "sync_mode": "incremental", "polling_interval": 3600},
    },
    ("post", "/v1/buckets/{bucket_identifier}/objects"): {
        "key_prefix": "/products",
        "blobs": [
            {"property": "hero_image", "type": "image", "url": "https://example.com/photo.jpg"},
            {"property": "product_text", "type": "text", "content": "Wireless headphones"},
        ],
    },
    ("post", "/v1/buckets/{bucket_identifier}/uploads"): {"filename": "photo.jpg", "content_type": "image/jpeg"},
    ("post", "/v1/buckets/{bucket_identifier}/batches"): {"object_ids": ["obj_abc", "obj_def"]},
    ("post", "/v1/batches/list"): {"status": "COMPLETED", "limit": 100, "offset": 0},
    ("post", "/v1/collections/{collection_identifier}/trigger"): {
        "source_filters": {"AND": [{"field": "status", "operator": "eq", "value": "pending"}]}
    },
    ("post", "/v1/documents/list/batch"): {
        "queries": [
            {
                "key": "active",
                "request": {
                    "filters": {
                        "AND": [
                            {"field": "name", "operator": "eq", "value": "John"},
                            {"field": "age", "operator": "gte", "value": 30},
                        ],
                        "NOT": [{"field": "department", "operator": "eq", "value": "HR"}],
                        "case_sensitive": True,
                    },
                    "sort": {"field": "created_at", "direction": "desc"},
                    "select": ["metadata.title", "content"],
                    "limit": 10,
                },
            }
        ]
    },
}
"""Bodies by method and path, as the seed pages send them."""

_ONLY_WITH_KEY = ("401", "429")
_SPLIT = "__"


def unique_id(route: APIRoute) -> str:
    """What FastAPI tells operations apart by; `describe` makes it short."""
    module, method = route.endpoint.__module__.rpartition(".")[2], min(route.methods or ()).lower()
    return _SPLIT.join((f"{module}_{route.endpoint.__name__}", method, route.path_format))


def describe(app: FastAPI) -> None:
    """Let the application describe itself as this module says."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            _improve(plain())
        return plain()

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to change the description


def _improve(description: dict[str, Any]) -> None:
    """Short ids, summaries from the docstrings, statuses that can occur, examples; in place."""
    taken: set[str] = set()
    for method, path, operation in _operations(description):
        operation["operationId"] = _short_id(operation["operationId"], path, taken)
        operation["summary"] = _first_words(operation["description"])
        if "security" not in operation:
            for status in _ONLY_WITH_KEY:
                operation["responses"].pop(status, None)
        example = EXAMPLES.get((method, path))
        if example is not None:
            operation["requestBody"]["content"]["application/json"]["example"] = example


def _operations(description: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def _short_id(long: str, path: str, taken: set[str]) -> str:
    """`buckets_create`; a function that serves more than one route is told apart by the method, then by the end of the path."""
    name, method, _ = long.split(_SPLIT, 2)
    word = path.rstrip("/").rpartition("/")[2].strip("{}").replace("-", "_")
    found = next(one for one in (name, f"{name}_{method}", f"{name}_{word}", f"{name}_{method}_{word}") if one not in taken)
    taken.add(found)
    return found


def _first_words(docstring: str) -> str:
    """The first clause of a docstring: `List buckets`."""
    line = docstring.strip().split("\n")[0]
    ends = [place for mark in (". ", "; ", ": ") if (place := line.find(mark)) > 0]
    return line[: min(ends, default=len(line))].rstrip(".")
