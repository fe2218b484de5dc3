"""Vectors in a Weaviate server (1.31 or newer): one class per collection, one named vector per output.

The class is called `Mx_` and 16 hex digits of sha256(namespace|collection); why it is not a tenant: docs/decisions/0003. An
object's uuid follows from its document id, so writing again replaces. The payload travels whole in `metadata_json`; the columns
beside it are there for people who query Weaviate themselves.
"""

import logging
import os
import random
import re
import socket
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from threading import Lock
from typing import Any, Self, TypeVar, cast
from urllib.parse import urlsplit
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from mixpeek_dagster.errors import Invalid, MissingExtra, VectorIndexError
from mixpeek_dagster.settings import Settings
from mixpeek_dagster.vectors.index import Hit, Point, Space, VectorRows, checked

try:
    import httpx
    import weaviate
    from grpc import RpcError  # type: ignore[import-untyped]  # ships no types
    from weaviate.classes.init import AdditionalConfig, Auth, Timeout
    from weaviate.classes.query import Filter, MetadataQuery
    from weaviate.exceptions import (
        InsufficientPermissionsError,
        UnexpectedStatusCodeError,
        WeaviateBaseError,
        WeaviateInsertManyAllFailedError,
        WeaviateQueryError,
    )
except ImportError as error:
    raise MissingExtra("weaviate", needed_by="the Weaviate vector index") from error

from mixpeek_dagster.vectors.weaviate_schema import (  # after the check above: it imports the client too
    StoredObject,
    class_name,
    ensure_class,
    object_uuid,
    stored_object,
    vector_name,
)

T = TypeVar("T")
BATCH_POINTS = 256
BATCH_BYTES = 16 << 20  # the server's own limit is 100 MiB a message
WRITERS = 2  # more do not help: the server's CPU is the limit (about 1 ms a document)
ATTEMPTS = 4
BACKOFF_S = 0.5  # doubles
GIVE_UP_S = 120.0  # no new attempt after this, whatever ATTEMPTS says
CONNECT_S, QUERY_S, INSERT_S = 3.0, 30.0, 60.0
IDS_PER_CALL = 5_000  # below QUERY_MAXIMUM_RESULTS (10,000): a delete takes no more than that at a time, and does not say so
_NAMED_IN_MESSAGE = 10

# The client logs whole objects, payloads included, when one of a batch fails. We report the same failures by id.
logging.getLogger("weaviate-client").addFilter(lambda record: not isinstance(record.msg, dict))


class WeaviateIndex:
    """The `VectorIndex` of production. Connects when first used and keeps one connection per process."""

    def __init__(self, url: str, *, grpc_port: int, api_key: str | None = None) -> None:
        self._secure, self._host, self._port = _address(url)
        self._grpc_port = grpc_port
        if grpc_port == self._port:
            raise Invalid(f"MIXPEEK_WEAVIATE_GRPC_PORT is {grpc_port}, the port of MIXPEEK_WEAVIATE_URL; Weaviate has two.")
        self._api_key = api_key
        self._lock = Lock()
        self._client: weaviate.WeaviateClient | None = None
        self._client_pid = 0

    @classmethod
    def open(cls, settings: Settings, *, rows: VectorRows) -> Self:
        return cls(settings.weaviate_url, grpc_port=settings.weaviate_grpc_port, api_key=settings.weaviate_api_key)

    @property
    def is_projection(self) -> bool:
        return True

    def ensure(self, space: Space) -> None:
        """Make or widen the class. Two processes may do so at once: each looks again after the other won."""
        self._call(space, "prepare", partial(ensure_class, space=space))

    def upsert(self, space: Space, points: Sequence[Point]) -> None:
        """As the port says. Also makes the space, because a server with auto-schema on would guess one from the first object."""
        # The server skips the vector index when an object comes again with an equal vector, also when a crash cost it that vector
        # (docs/decisions/0003). Another length in every call makes it take the vector, so writing again always repairs.
        scale = random.uniform(1.0, 2.0)
        objects = {point.document_id: stored_object(space, point, scale=scale) for point in points}
        if not objects:
            return
        try:
            self.ensure(space)
        except VectorIndexError as error:
            raise _lost(space, [(document_id, error.message) for document_id in objects]) from error
        batches = list(_batches(objects))
        if len(batches) == 1:
            lost = self._write(space, batches[0])
        else:
            with ThreadPoolExecutor(WRITERS, thread_name_prefix="weaviate-write") as pool:
                lost = [loss for losses in pool.map(lambda batch: self._write(space, batch), batches) for loss in losses]
        if lost:
            raise _lost(space, lost)

    def delete(self, space: Space, document_ids: Collection[str]) -> None:
        for uuids in _parts(space, document_ids):
            self._read(space, "delete from", partial(_delete, space=space, uuids=uuids), missing=None)

    def search(
        self, space: Space, output: str, vector: NDArray[np.float32], *, top_k: int, among: Collection[str] | None = None
    ) -> list[Hit]:
        query = checked(space, output, vector)
        if top_k <= 0:
            return []
        hits: list[Hit] = []
        for uuids in [None] if among is None else _parts(space, among):
            find = partial(_search, space=space, output=output, query=query, top_k=top_k, uuids=uuids)
            hits += self._read(space, "search", find, missing=[])
        return sorted(hits, key=lambda hit: (-hit.score, hit.document_id))[:top_k]

    def count(self, space: Space) -> int:
        return self._read(space, "count", lambda client: len(client.collections.use(class_name(space))), missing=0)

    def ids(self, space: Space) -> Iterator[str]:
        """Every id, 1,000 a request. What is written or deleted meanwhile may or may not be among them."""
        after: UUID | None = None
        while True:
            nothing: list[tuple[UUID, str]] = []
            page = self._read(space, "list", partial(_page, space=space, after=after), missing=nothing)
            if not page:
                return
            yield from (document_id for _, document_id in page)
            after = page[-1][0]

    def drop(self, space: Space) -> None:
        self._call(space, "drop", lambda client: client.collections.delete(class_name(space)))

    def close(self) -> None:
        with self._lock:
            client, self._client = self._client, None
        if client is not None and self._client_pid == os.getpid():  # a forked child must not touch its parent's
            client.close()

    def _write(self, space: Space, batch: Mapping[str, StoredObject]) -> list[tuple[str, str]]:
        """Store one batch, the failed part again and again; returns (document id, reason) of what stayed out."""
        left = dict(batch)
        reasons: dict[str, str] = {}
        give_up = time.monotonic() + GIVE_UP_S
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(BACKOFF_S * 2 ** (attempt - 1))
            try:
                reasons = _insert(self._connected(), space, left)
            except VectorIndexError as error:
                reasons = dict.fromkeys(left, error.message)
            except _FOREIGN as error:
                self._disconnect()
                reasons = dict.fromkeys(left, self._said(error))
            left = {document_id: left[document_id] for document_id in reasons}
            if not left or time.monotonic() > give_up:
                break
        return list(reasons.items())

    def _read(self, space: Space, verb: str, work: Callable[[weaviate.WeaviateClient], T], *, missing: T) -> T:
        """`_call`, with `missing` for an answer when there is no such class."""
        try:
            return self._call(space, verb, work)
        except VectorIndexError as error:
            if "could not find class" in str(error.__cause__):
                return missing
            raise

    def _call(self, space: Space, verb: str, work: Callable[[weaviate.WeaviateClient], T]) -> T:
        """Run idempotent work; once more over a fresh connection when the first was stale."""
        for last in (False, True):
            try:
                return work(self._connected())
            except _FOREIGN as error:
                if "maximum results" in str(error).lower():
                    raise Invalid(f"{space.collection_id}: the server answers at most QUERY_MAXIMUM_RESULTS hits.") from error
                if not _is_answer(error):
                    self._disconnect()
                if last or _is_answer(error):
                    raise VectorIndexError(
                        f"Cannot {verb} collection {space.collection_id} ({class_name(space)}): {self._said(error)}",
                        details={"collection_id": space.collection_id},
                    ) from error
        raise AssertionError("unreachable")

    def _connected(self) -> weaviate.WeaviateClient:
        """This process's client. gRPC that was used before a fork may hang in the child for ever, so the child is refused.

        Raises:
            VectorIndexError: nothing answers at the URL, or what answers refuses us.
        """
        if self._client_pid not in (0, os.getpid()):
            raise VectorIndexError("Weaviate was used before this process was forked: start workers with spawn instead of fork.")
        with self._lock:
            if self._client is None:
                try:
                    self._reach(self._port)
                    self._client = self._connect()
                except _FOREIGN as error:
                    raise VectorIndexError(self._said(error)) from error
                self._client_pid = os.getpid()
            client = self._client
        try:
            # The client answers a refused connection with up to a minute of retries; an empty connection tells at once.
            self._reach(self._grpc_port)
        except OSError as error:
            self._disconnect()
            raise VectorIndexError(self._said(error)) from error
        return client

    def _reach(self, port: int) -> None:
        socket.create_connection((self._host, port), timeout=CONNECT_S).close()

    def _connect(self) -> weaviate.WeaviateClient:
        return weaviate.connect_to_custom(
            http_host=self._host,
            http_port=self._port,
            http_secure=self._secure,
            grpc_host=self._host,
            grpc_port=self._grpc_port,
            grpc_secure=self._secure,
            auth_credentials=Auth.api_key(self._api_key) if self._api_key else None,
            additional_config=AdditionalConfig(timeout=Timeout(init=CONNECT_S, query=QUERY_S, insert=INSERT_S)),
        )

    def _disconnect(self) -> None:
        """Forget a connection that failed; a call of another thread that still uses it fails too and tries again."""
        self.close()

    def _said(self, error: Exception) -> str:
        """One line of what went wrong and what the operator can do."""
        scheme = "https" if self._secure else "http"
        where = f"Weaviate at {scheme}://{self._host}:{self._port} (gRPC port {self._grpc_port})"
        status = error.status_code if isinstance(error, UnexpectedStatusCodeError) else None
        reason = " ".join(str(error).split())[:300]
        if status in (401, 403) or isinstance(error, InsufficientPermissionsError) or "401" in reason:
            return f"{where} refused the key: {reason} Set MIXPEEK_WEAVIATE_API_KEY."
        if _is_answer(error):
            return f"{where} answered: {reason}"
        return f"{where} does not answer: {reason} Start it, or set MIXPEEK_WEAVIATE_URL and MIXPEEK_WEAVIATE_GRPC_PORT."


_FOREIGN = (WeaviateBaseError, httpx.HTTPError, RpcError, OSError)


def _address(url: str) -> tuple[bool, str, int]:
    """(whether TLS, host, port) of a base URL."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise Invalid(f"MIXPEEK_WEAVIATE_URL must look like http://host:port, not {url!r}.") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/"):
        raise Invalid(f"MIXPEEK_WEAVIATE_URL must look like http://host:port, not {url!r}.")
    return parts.scheme == "https", parts.hostname, port or (443 if parts.scheme == "https" else 80)


def _is_answer(error: Exception) -> bool:
    """The server took the request and said no, rather than being away."""
    away = re.search("unavailable|deadline.exceeded", str(error), re.IGNORECASE)
    return isinstance(error, UnexpectedStatusCodeError | WeaviateQueryError) and not away


def _parts(space: Space, document_ids: Collection[str]) -> Iterator[list[UUID]]:
    distinct = iter(dict.fromkeys(document_ids))
    while part := [object_uuid(space, document_id) for document_id in islice(distinct, IDS_PER_CALL)]:
        yield part


def _batches(objects: Mapping[str, StoredObject]) -> Iterator[dict[str, StoredObject]]:
    """Parts of at most BATCH_POINTS objects and about BATCH_BYTES; one larger object makes a part of its own."""
    batch: dict[str, StoredObject] = {}
    size = 0
    for document_id, item in objects.items():
        vectors: Any = item.vector
        weight = len(item.properties["metadata_json"]) + sum(vector.nbytes for vector in vectors.values()) + 500
        if batch and (len(batch) == BATCH_POINTS or size + weight > BATCH_BYTES):
            yield batch
            batch, size = {}, 0
        batch[document_id] = item
        size += weight
    if batch:
        yield batch


def _insert(client: weaviate.WeaviateClient, space: Space, batch: Mapping[str, StoredObject]) -> dict[str, str]:
    """One request. Returns the reason for each document id that was not stored: the request itself succeeds all the same."""
    ids = list(batch)
    try:
        result = client.collections.use(class_name(space)).data.insert_many(list(batch.values()))
    except WeaviateInsertManyAllFailedError as error:
        return dict.fromkeys(ids, str(error))
    return {ids[index]: failure.message for index, failure in result.errors.items()}


def _delete(client: weaviate.WeaviateClient, space: Space, uuids: Sequence[UUID]) -> None:
    """One call deletes at most QUERY_MAXIMUM_RESULTS of its matches and reports all of them, so ask until none is left."""
    collection = client.collections.use(class_name(space))
    while True:
        result = collection.data.delete_many(where=Filter.by_id().contains_any(uuids))
        if result.failed or (result.matches and not result.successful):
            raise WeaviateBaseError(f"{result.failed} of {result.matches} objects could not be deleted")
        if result.successful >= result.matches:
            return


def _search(
    client: weaviate.WeaviateClient,
    space: Space,
    output: str,
    query: NDArray[np.float32],
    top_k: int,
    uuids: Sequence[UUID] | None,
) -> list[Hit]:
    found = client.collections.use(class_name(space)).query.near_vector(
        near_vector=cast(Any, query),  # the annotations only know lists
        target_vector=vector_name(output),
        limit=top_k,
        filters=None if uuids is None else Filter.by_id().contains_any(uuids),
        return_metadata=MetadataQuery(distance=True),
        return_properties=["document_id"],
    )
    # Rounded to what float32 carries, so that equal vectors tie whatever length they were stored with.
    return [Hit(str(item.properties["document_id"]), round(1.0 - (item.metadata.distance or 0.0), 6)) for item in found.objects]


def _page(client: weaviate.WeaviateClient, space: Space, after: UUID | None) -> list[tuple[UUID, str]]:
    query = client.collections.use(class_name(space)).query
    page = query.fetch_objects(limit=1_000, after=after, return_properties=["document_id"])
    return [(item.uuid, str(item.properties["document_id"])) for item in page.objects]


def _lost(space: Space, lost: Sequence[tuple[str, str]]) -> VectorIndexError | Invalid:
    """The error for documents that stayed out, naming the first few and listing all."""
    ids = [document_id for document_id, _ in lost]
    named = ", ".join(ids[:_NAMED_IN_MESSAGE])
    if len(ids) > _NAMED_IN_MESSAGE:
        named += f" and {len(ids) - _NAMED_IN_MESSAGE} more"
    reason = lost[0][1][:400]
    details = {"collection_id": space.collection_id, "document_ids": ids}
    message = f"{len(ids)} documents of collection {space.collection_id} were not indexed ({named}): {reason}"
    if "vector dimensions" in reason or "vector lengths" in reason:
        message += " The class holds vectors of another dimension: drop the collection's index and rebuild it."
        return Invalid(message, details=details)
    return VectorIndexError(message, details=details)
