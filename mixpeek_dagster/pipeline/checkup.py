"""Ask every part that a warehouse depends on whether it works: catalog, vector index, blob store, model packs, connections, sources.

Each answer is one `Check`; nothing stays that was written but what a connection's own test records. Asking is cheap: a listing of one
file and a read of its first byte per source, one small file through the blob store, no model is loaded or fetched.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Literal

from mixpeek_dagster import plugins
from mixpeek_dagster.errors import AccessDenied, BadListing, Invalid, MixpeekError, ProviderDown, WrongConnection
from mixpeek_dagster.extractors.manifest import Manifest
from mixpeek_dagster.extractors.models import ModelStore
from mixpeek_dagster.models.collections import Collection
from mixpeek_dagster.models.syncs import Connection, Sync
from mixpeek_dagster.models.values import Value
from mixpeek_dagster.pipeline.connections import open_config
from mixpeek_dagster.pipeline.removal import space_of
from mixpeek_dagster.pipeline.sync_control import test_place
from mixpeek_dagster.pipeline.warehouse import Warehouse
from mixpeek_dagster.storage.blobs import safe_name
from mixpeek_dagster.storage.stores import put_as_client

_THREADS = 8
Kind = Literal["catalog", "vector index", "blob store", "model pack", "connection", "sync"]
REMEDIES: dict[type[MixpeekError], str] = {
    AccessDenied: "check the connection's credentials and what they may do",
    WrongConnection: "check the connection's bucket, region and endpoint_url",
    ProviderDown: "check that the provider can be reached from this machine, and try again",
    BadListing: "check that endpoint_url is the storage's own address, not a proxy or a login page",
}

OF_BLOBS = {
    AccessDenied: "check this server's own credentials for the store, and that they may write, read and delete there",
    WrongConnection: "check MIXPEEK_BLOBS: name, region, endpoint_url",
    Invalid: "set what is missing in this server's environment",
}


class Check(Value):
    """One part that was asked. `problem` says what is wrong, `remedy` what to do; both are empty when it works."""

    kind: Kind
    name: str
    detail: str = ""
    problem: str = ""
    remedy: str = ""
    code: str = ""
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        return not self.problem


def check_up(warehouse: Warehouse) -> Sequence[Check]:
    """Check everything; sources are asked side by side, as one that does not answer takes its time. Nothing is raised."""
    catalog = _asked("catalog", warehouse.settings.catalog_place, lambda: _catalog(warehouse))
    if not catalog.ok:
        return [catalog]
    with warehouse.catalog.reading() as records:
        syncs, collections = records.syncs.all(), records.collections.all()
        connections = {one.connection_id: one for one in records.syncs.all_connections()}
    used = {sync.connection_id for sync in syncs}
    questions: list[Callable[[], Check]] = [lambda: _index(warehouse, collections), lambda: _blobs(warehouse)]
    extractors = {
        one.feature_extractor.model_dump_json(include={"feature_extractor_name", "version", "parameters"}): one
        for one in collections
    }
    questions += [_models(warehouse, one) for one in extractors.values()]
    questions += [_connection(warehouse, one) for one in connections.values() if one.connection_id not in used]
    questions += [_source(warehouse, sync, connections[sync.connection_id].name) for sync in syncs]
    with ThreadPoolExecutor(_THREADS) as pool:
        return [catalog, *pool.map(lambda question: question(), questions)]


def _asked(kind: Kind, name: str, question: Callable[[], str], *, remedies: Mapping[type[MixpeekError], str] = REMEDIES) -> Check:
    started = time.perf_counter()

    def answer(**more: str) -> Check:
        return Check(kind=kind, name=name, seconds=round(time.perf_counter() - started, 3), **more)

    try:
        return answer(detail=question())
    except MixpeekError as error:
        remedy = next((words for each, words in remedies.items() if isinstance(error, each)), "see the message")
        return answer(problem=error.message, remedy=remedy, code=error.code)
    except Exception as error:  # noqa: BLE001 - a check-up reports whatever breaks, and goes on
        return answer(
            problem=f"{type(error).__name__}: {error}"[:500], remedy="this is a defect: please report it", code="unexpected"
        )


def _catalog(warehouse: Warehouse) -> str:
    with warehouse.catalog.transaction() as records:  # takes the write lock, and writes nothing
        return f"{len(records.namespaces.all())} namespaces, {len(records.buckets.all())} buckets; can be written"


def _index(warehouse: Warehouse, collections: Sequence[Collection]) -> Check:
    def question() -> str:
        if not warehouse.index.is_projection:
            return "reads the catalog"
        counted = next((one for one in collections if one.vectors), None)
        return (
            f"{warehouse.index.count(space_of(counted))} documents of {counted.collection_name}" if counted else "no vectors yet"
        )

    return _asked("vector index", warehouse.settings.index, question)


def _blobs(warehouse: Warehouse) -> Check:
    key = f"check/{safe_name(warehouse.owner)}"

    def question() -> str:
        blobs = warehouse.blobs
        blobs.delete(key)
        try:
            signed = blobs.presign_put(key, expires_s=60, size=5)
            if blobs.is_remote:  # the other's URLs lead to the API, which may not run
                put_as_client(signed, b"check")
            blobs.put(key, BytesIO(b"check"), replace=True)
            with blobs.open(key) as stream:
                stream.read()
        finally:
            blobs.delete(key)
        return "can be written, read and deleted from" + ("; clients put files there themselves" if blobs.is_remote else "")

    place = warehouse.settings.blobs_url or str(warehouse.settings.home / "blobs")
    return _asked("blob store", place, question, remedies={**REMEDIES, **OF_BLOBS})


def _models(warehouse: Warehouse, collection: Collection) -> Callable[[], Check]:
    """The packs of a collection's extractor: building it reads their manifests, and fetches nothing."""
    config = collection.feature_extractor

    def question() -> str:
        store = _Asked(warehouse.settings.models)
        kind = plugins.load("extractors", config.extractor_id)
        kind(kind.Params(**config.parameters), models=store)
        here = [
            f"{uri}: " + ("here" if store.has(uri) else "not here yet, the first batch gets it") for uri in sorted(store.uris)
        ]
        return "; ".join(here) or "needs no model"

    return lambda: _asked("model pack", f"{collection.collection_name} ({config.extractor_id})", question)


class _Asked(ModelStore):
    """A store that remembers which packs it was asked about."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.uris: set[str] = set()

    def manifest(self, uri: str) -> Manifest:
        self.uris.add(uri)
        return super().manifest(uri)


def _connection(warehouse: Warehouse, connection: Connection) -> Callable[[], Check]:
    def question() -> str:
        with warehouse.catalog.reading() as records:
            _, secrets = records.syncs.connection(connection.connection_id)
        config = open_config(connection.config, secrets, settings=warehouse.settings)
        tokens = warehouse.tokens(connection.connection_id)
        told = test_place(warehouse, connection.provider, config, tokens=tokens)
        return "can be listed and read" if told else "no sync uses it yet"

    return lambda: _asked("connection", f"{connection.name} ({connection.provider})", question)


def _source(warehouse: Warehouse, sync: Sync, connection: str) -> Callable[[], Check]:
    def question() -> str:
        source = warehouse.open_source(sync.connection_id, sync.spec.source_path)  # anew: credentials may have changed
        return f"{source.uri} can be listed" + (" and read" if source.check() else "; there is no file yet")

    name = sync.sync_id if connection == sync.connection_id else f"{sync.sync_id} ({connection})"
    return lambda: _asked("sync", name, question)
