"""What the code location shows, as a value: read once from the catalog, then only from this.

A run worker rebuilds its definitions from the plan that its code server had loaded (it travels as reconstruction metadata), so a run
neither notices changes of the catalog nor waits for it.
"""

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property

from pydantic import ConfigDict

from mixpeek_dagster.catalog import Catalog
from mixpeek_dagster.models.buckets import Bucket
from mixpeek_dagster.models.collections import Collection
from mixpeek_dagster.models.ids import CollectionId, NamespaceId
from mixpeek_dagster.models.namespaces import Namespace
from mixpeek_dagster.models.syncs import FileFilters, SyncMode
from mixpeek_dagster.models.values import Value


class SyncPlan(Value):
    """What a sync's sensor has to know."""

    sync_id: str
    bucket_id: str
    provider: str
    source_path: str
    mode: SyncMode
    polling_interval_seconds: int
    filters: FileFilters


class NamespacePlan(Value):
    """One namespace's buckets, syncs and collections."""

    model_config = ConfigDict(frozen=True, extra="forbid", ignored_types=(cached_property,))

    namespace: Namespace
    buckets: Sequence[Bucket] = ()
    syncs: Sequence[SyncPlan] = ()
    collections: Sequence[Collection] = ()

    def bucket_of(self, sync: SyncPlan) -> Bucket:
        """The bucket that a sync fills."""
        return next(one for one in self.buckets if one.bucket_id == sync.bucket_id)

    @cached_property
    def pipelines(self) -> Mapping[str, Sequence[Collection]]:
        """Collections by pipeline: a connected component of buckets and collections, named after its oldest bucket.

        All assets of one run share one partitions definition, so a pipeline is what one run can reach.
        """
        parent: dict[str, str] = {}

        def root(node: str) -> str:
            while parent.setdefault(node, node) != node:
                node = parent[node]
            return node

        for collection in self.collections:
            for upstream in collection.source.upstream:
                parent[root(collection.collection_id)] = root(upstream)
        oldest: dict[str, str] = {}
        for bucket in self.buckets:  # in order of creation
            oldest.setdefault(root(bucket.bucket_id), bucket.bucket_id)
        found: dict[str, list[Collection]] = {}
        for collection in self.collections:
            name = oldest.get(root(collection.collection_id))
            if name is not None and collection.enabled:
                found.setdefault(name, []).append(collection)
        return found


class WarehousePlan(Value):
    """Every namespace's plan.

    Attributes:
        skipped: entries that could not be read, with the reason: they never empty the rest.
        revision: what the catalog held when the plan was read, as a hash; empty for a plan that is not from a catalog.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ignored_types=(cached_property,))

    namespaces: Sequence[NamespacePlan] = ()
    skipped: Sequence[str] = ()
    revision: str = ""

    @cached_property
    def collections(self) -> Mapping[CollectionId, Collection]:
        return {one.collection_id: one for namespace in self.namespaces for one in namespace.collections}

    @cached_property
    def pipeline_of(self) -> Mapping[str, str]:
        """Collection id → pipeline."""
        return {
            collection.collection_id: pipeline
            for namespace in self.namespaces
            for pipeline, collections in namespace.pipelines.items()
            for collection in collections
        }


def load_plan(catalog: Catalog) -> WarehousePlan:
    """Read the whole plan in one snapshot."""
    with catalog.reading() as records:
        namespaces = records.namespaces.all()
        buckets, collections, syncs = records.buckets.all(), records.collections.all(), records.syncs.all()
    ids: Sequence[NamespaceId] = [namespace.namespace_id for namespace in namespaces]
    plans = [
        NamespacePlan(
            namespace=namespace,
            buckets=[bucket for bucket in buckets if bucket.namespace_id == namespace.namespace_id],
            collections=[one for one in collections if one.namespace_id == namespace.namespace_id],
            syncs=[
                SyncPlan(
                    sync_id=sync.sync_id,
                    bucket_id=sync.bucket_id,
                    provider=sync.provider,
                    source_path=sync.spec.source_path,
                    mode=sync.spec.sync_mode,
                    polling_interval_seconds=sync.spec.polling_interval_seconds,
                    filters=sync.spec.file_filters,
                )
                for sync in syncs
                if sync.namespace_id == namespace.namespace_id
            ],
        )
        for namespace in namespaces
    ]
    skipped = [f"{one.bucket_id}: no namespace" for one in buckets if one.namespace_id not in ids]
    return WarehousePlan(namespaces=plans, skipped=skipped, revision=_revision(plans))


_TOTALS = {"object_count", "total_size_bytes", "document_count", "updated_at"}


def _revision(plans: Sequence[NamespacePlan]) -> str:
    """A hash over what definitions are made of: running totals and times of change are not in it."""
    noun = {"__all__": _TOTALS}
    shown = [plan.model_dump_json(exclude={"namespace": _TOTALS, "buckets": noun, "collections": noun}) for plan in plans]
    return hashlib.sha256("\n".join(shown).encode()).hexdigest()
