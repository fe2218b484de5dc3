"""Change, copy and delete collections."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from mixpeek_dagster import plugins
from mixpeek_dagster.catalog import Records
from mixpeek_dagster.catalog.listing import Scope
from mixpeek_dagster.errors import WrongState
from mixpeek_dagster.models.collections import Collection, CollectionCreate, CollectionSource, ExtractorConfig
from mixpeek_dagster.models.ids import NamespaceId
from mixpeek_dagster.models.values import Lenient
from mixpeek_dagster.pipeline.creation import create_collection, open_extractor
from mixpeek_dagster.pipeline.removal import finish_removals, remove_documents, space_of
from mixpeek_dagster.pipeline.warehouse import Warehouse

_CHUNK = 1000


class CollectionPatch(Lenient):
    """What may change of a collection: what it reads and how it extracts stay, a clone may differ."""

    collection_name: str | None = Field(default=None, min_length=3, max_length=100, pattern=r"^[^/\x00-\x1f]+$")
    description: str | None = Field(default=None, max_length=2000)
    enabled: bool | None = None
    metadata: dict[str, Any] | None = None


class CollectionClone(Lenient):
    """A copy under another name, and what is different about it."""

    collection_name: str = Field(min_length=3, max_length=100, pattern=r"^[^/\x00-\x1f]+$")
    description: str | None = Field(default=None, max_length=2000)
    source: CollectionSource | None = None
    feature_extractor: ExtractorConfig | None = None
    enabled: bool | None = None
    metadata: dict[str, Any] | None = None


def make_collection(warehouse: Warehouse, body: CollectionCreate, *, namespace_id: NamespaceId) -> Collection:
    """A new collection that a request asks for, with its event.

    Raises:
        As `create_collection`; UnknownName for a dotted path into a module that the operator did not open to requests.
    """
    plugins.check_named("extractors", body.feature_extractor.extractor_id, modules=warehouse.settings.plugin_modules)
    open_extractor(warehouse, body.feature_extractor)  # a model's manifest may be far away: read before writers have to wait
    with warehouse.catalog.transaction() as records:
        now = warehouse.now()
        made = create_collection(records, body, warehouse=warehouse, namespace_id=namespace_id, now=now)
        tell(records, "collection.created", made, now=now)
    return made


def clone_collection(warehouse: Warehouse, collection: Collection, body: CollectionClone) -> Collection:
    """A collection like this one but for what the body says; it has no documents yet."""
    given = {name: value for name, value in body if value is not None}
    plain = {name: getattr(collection, name) for name in CollectionCreate.model_fields}
    if body.source is not None and body.feature_extractor is None:  # the old mappings may not fit the new source
        plain["feature_extractor"] = collection.feature_extractor.model_copy(update={"input_mappings": {}})
    return make_collection(warehouse, CollectionCreate(**{**plain, **given}), namespace_id=collection.namespace_id)


def change_collection(warehouse: Warehouse, collection: Collection, body: CollectionPatch) -> Collection:
    """Raises AlreadyExists for a name that another collection has."""
    given: Mapping[str, Any] = {name: value for name, value in body if value is not None}
    with warehouse.catalog.transaction() as records:
        now = warehouse.now()
        records.collections.hold(collection.collection_id)
        before = records.collections.get(collection.collection_id, namespace_id=collection.namespace_id)
        changed = before.model_copy(update={**given, "updated_at": now})
        records.collections.put(changed)
        tell(records, "collection.updated", changed, now=now)
    return changed


def delete_collection(warehouse: Warehouse, collection: Collection, *, force: bool = False) -> int:
    """Delete a collection with its documents, what was made from them, and their vectors; how many documents went.

    Raises:
        WrongState: other collections read from it, and it is not forced; forced, they are disabled.
    """
    with warehouse.catalog.transaction() as records:
        readers = _readers(records, collection)
        if readers and not force:
            names = ", ".join(one.collection_name for one in readers[:5])
            raise WrongState(f"Collections read from {collection.collection_name!r} ({names}): delete them first, or force=true.")
        _disable(records, [*readers, collection], now=warehouse.now())
    removed = 0
    scope = Scope(namespace_id=collection.namespace_id, collection_ids=[collection.collection_id])
    while True:
        with warehouse.catalog.transaction() as records:
            order = records.listing.order("document_id", descending=False)
            doomed = [one.document_id for one in records.listing.page(scope, order, limit=_CHUNK)]
            removed += remove_documents(records, warehouse, doomed, now=warehouse.now())
        finish_removals(warehouse)
        if not doomed:
            break
    warehouse.index.drop(space_of(collection))
    with warehouse.catalog.transaction() as records:
        records.namespaces.hold(collection.namespace_id)
        _disable(records, _readers(records, collection), now=warehouse.now())  # also those that were made meanwhile
        records.collections.remove(collection.collection_id)
        tell(records, "collection.deleted", collection, now=warehouse.now())
    return removed


def _disable(records: Records, collections: Sequence[Collection], *, now: str) -> None:
    for one in collections:
        records.collections.put(one.model_copy(update={"enabled": False, "updated_at": now}))


def _readers(records: Records, collection: Collection) -> Sequence[Collection]:
    every = records.collections.all(collection.namespace_id)
    return [one for one in every if collection.collection_id in one.source.collection_ids]


def tell(records: Records, event: str, collection: Collection, *, now: str) -> None:
    payload = {"collection_id": collection.collection_id, "collection_name": collection.collection_name}
    resource = ("collection", str(collection.collection_id))
    records.events.add(event, namespace_id=collection.namespace_id, resource=resource, payload=payload, now=now)
