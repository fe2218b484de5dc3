"""How the warehouse's nouns are called and described in Dagster: every key, group, kind, tag and partitions definition comes from here.

Subclass `Translator` and override `get_asset_spec` to name things otherwise; `build_definitions` takes one.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from mixpeek_dagster.definitions.plan import NamespacePlan, SyncPlan
from mixpeek_dagster.models.buckets import Bucket, BucketSchema
from mixpeek_dagster.models.collections import Collection
from mixpeek_dagster.models.namespaces import Namespace

_KINDS = {"s3": "s3", "gcs": "gcs", "azure_blob": "azure", "r2": "cloudflare", "local": "file"}


def safe(name: str) -> str:
    """A name with only the letters Dagster allows in ops, jobs, sensors and groups."""
    return re.sub(r"[^A-Za-z0-9_]", "_", name)


class Translator:
    """The default names."""

    def get_asset_spec(self, entity: Bucket | Collection, plan: NamespacePlan) -> dg.AssetSpec:
        """The spec of a bucket or a collection: the one method to override."""
        return self._bucket(entity, plan) if isinstance(entity, Bucket) else self._collection(entity, plan)

    def _bucket(self, bucket: Bucket, plan: NamespacePlan) -> dg.AssetSpec:
        syncs = [sync for sync in plan.syncs if sync.bucket_id == bucket.bucket_id]
        kinds = sorted({_KINDS.get(sync.provider, sync.provider) for sync in syncs})[:2]
        metadata: dict[str, Any] = {"bucket_id": bucket.bucket_id, "dagster/column_schema": _column_schema(bucket.bucket_schema)}
        for number, sync in enumerate(syncs, 1):
            metadata["source" if len(syncs) == 1 else f"source_{number}"] = f"{sync.provider}: {sync.source_path}"
        return dg.AssetSpec(
            key=self.key(plan.namespace, "buckets", bucket.bucket_name),
            group_name=self.group(plan.namespace),
            description=bucket.description or f"Raw files of bucket {bucket.bucket_name}.",
            kinds={"bucket", *kinds},
            metadata=metadata,
            tags={"mixpeek/bucket": safe(bucket.bucket_id)},
        )

    def _collection(self, collection: Collection, plan: NamespacePlan) -> dg.AssetSpec:
        named: dict[str, Bucket | Collection] = {one.bucket_id: one for one in plan.buckets}
        named |= {one.collection_id: one for one in plan.collections}
        upstream = [named[one] for one in collection.source.upstream if one in named]
        extractor = collection.feature_extractor
        return dg.AssetSpec(
            key=self.key(plan.namespace, "collections", collection.collection_name),
            deps=[self.get_asset_spec(one, plan).key for one in upstream],
            group_name=self.group(plan.namespace),
            description=collection.description
            or f"{extractor.feature_extractor_name} {extractor.version} over {collection.source.type}s.",
            code_version=collection.fingerprint[:16],
            kinds={"onnx" if collection.vectors else "python", safe(extractor.feature_extractor_name).removesuffix("_extractor")},
            metadata={
                "collection_id": collection.collection_id,
                "extractor": f"{extractor.feature_extractor_name}@{extractor.version}",
                "inputs": ", ".join(f"{name} ← {path}" for name, path in extractor.input_mappings.items()) or "none",
                "vectors": ", ".join(f"{vector.index_name} ({vector.dim}-d)" for vector in collection.vectors) or "none",
                "dagster/column_schema": _column_schema(collection.output_schema),
            },
            tags={"mixpeek/collection": safe(collection.collection_id)},
        )

    def key(self, namespace: Namespace, kind: str, name: str) -> dg.AssetKey:
        return dg.AssetKey([namespace.namespace_name, kind, name])

    def group(self, namespace: Namespace) -> str:
        return safe(namespace.namespace_name)

    def op_name(self, entity: Bucket | Collection) -> str:
        name = entity.bucket_name if isinstance(entity, Bucket) else entity.collection_name
        identifier = entity.bucket_id if isinstance(entity, Bucket) else entity.collection_id
        return f"{safe(name)}_{identifier[-6:]}"  # readable in a run's chart, unique across namespaces

    def job_name(self, pipeline: str, plan: NamespacePlan) -> str:
        """The job that materialises a pipeline's collections for batches."""
        bucket = next(one for one in plan.buckets if one.bucket_id == pipeline)
        return f"batches_{safe(plan.namespace.namespace_name)}_{safe(bucket.bucket_name)}"

    def partitions(self, pipeline: str) -> dg.DynamicPartitionsDefinition:
        """A pipeline's partitions are the parts of its batches."""
        return dg.DynamicPartitionsDefinition(name=f"batches_of_{pipeline}")

    def sensor_name(self, sync: SyncPlan, plan: NamespacePlan) -> str:
        bucket = next(one for one in plan.buckets if one.bucket_id == sync.bucket_id)
        return f"sync_{safe(plan.namespace.namespace_name)}_{safe(bucket.bucket_name)}_{sync.sync_id[-6:]}"


def _column_schema(schema: BucketSchema) -> dg.TableSchema:
    columns: Sequence[dg.TableColumn] = [
        dg.TableColumn(
            name,
            type=field.type.value,
            description=field.description,
            constraints=dg.TableColumnConstraints(nullable=not field.required),
        )
        for name, field in schema.properties.items()
    ]
    return dg.TableSchema(columns=columns)


def job_names(translator: Translator, plan: NamespacePlan) -> Mapping[str, str]:
    """Pipeline → job, unique even where safe names would collide."""
    names: dict[str, str] = {}
    for pipeline in plan.pipelines:
        name = translator.job_name(pipeline, plan)
        names[pipeline] = name if name not in names.values() else f"{name}_{pipeline[-6:]}"
    return names
