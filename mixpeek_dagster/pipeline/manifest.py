"""A warehouse described in YAML: made once, and again without harm. What exists under its name is left as it is.

namespace: library
buckets:
  library: {schema: {properties: {content: {type: text}}}, syncs: {disk: {provider: local, ...}}}
collections:
  passages: {source: {type: bucket, bucket_ids: [library]}, feature_extractor: {...}}
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field, ValidationError

from mixpeek_dagster.catalog import Records
from mixpeek_dagster.errors import Invalid, NotFound
from mixpeek_dagster.models.buckets import BucketCreate
from mixpeek_dagster.models.collections import CollectionCreate
from mixpeek_dagster.models.namespaces import Namespace, NamespaceCreate
from mixpeek_dagster.models.values import Value
from mixpeek_dagster.pipeline.creation import create_bucket, create_collection, create_namespace, create_sync, validation_words
from mixpeek_dagster.pipeline.warehouse import Warehouse


class ManifestBucket(Value):
    """A bucket with its syncs; each sync is a body of `POST /v1/buckets/{b}/syncs` under a name of its own."""

    model_config = ConfigDict(frozen=True, extra="allow")

    bucket_schema: dict[str, Any] = Field(alias="schema")
    syncs: Mapping[str, dict[str, Any]] = Field(default_factory=dict)


class Manifest(Value):
    """What a YAML file says; see the module's docstring."""

    namespace: str
    buckets: Mapping[str, ManifestBucket] = Field(default_factory=dict)
    collections: Mapping[str, dict[str, Any]] = Field(default_factory=dict)

    @property
    def names_resources(self) -> bool:
        """Whether a sync's connection is a Dagster resource, which `definitions.connections` resolves."""
        syncs = [sync for bucket in self.buckets.values() for sync in bucket.syncs.values()]
        return any("resource" in (sync.get("connection") or {}) for sync in syncs)


@dataclass
class Applied:
    """What `apply` made, as `kind name`; empty when everything was there."""

    namespace: Namespace
    made: list[str] = field(default_factory=list)


def read_manifest(file: Path) -> Manifest:
    """Raises Invalid with the place in the file that does not fit."""
    import yaml

    try:
        return absolute(Manifest.model_validate(yaml.safe_load(file.read_text())), file.resolve().parent)
    except (ValidationError, yaml.YAMLError, OSError) as error:
        words = validation_words(error) if isinstance(error, ValidationError) else str(error)
        raise Invalid(f"{file}: {words}") from error


def absolute(manifest: Manifest, base: Path) -> Manifest:
    """Local folders in a file are meant from where the file is."""
    for bucket in manifest.buckets.values():
        for sync in bucket.syncs.values():
            config = sync.get("sync_config")
            if sync.get("provider") == "local" and isinstance(config, dict) and not (sync.get("connection") or {}).get("root"):
                config["source_path"] = str((base / str(config.get("source_path", ""))).resolve())
    return manifest


def apply(warehouse: Warehouse, manifest: Manifest) -> Applied:
    """Create what is missing, all of it or nothing. A sync is known by its bucket and its name, kept in the sync's metadata."""
    now = warehouse.now()
    try:
        with warehouse.catalog.transaction() as records:
            return _apply(records, warehouse, manifest, now=now)
    except ValidationError as error:
        raise Invalid(f"Manifest: {validation_words(error)}") from error


def _apply(records: Records, warehouse: Warehouse, manifest: Manifest, *, now: str) -> Applied:
    try:
        applied = Applied(records.namespaces.get(manifest.namespace))
    except NotFound:
        applied = Applied(create_namespace(records, NamespaceCreate(namespace_name=manifest.namespace), now=now))
        applied.made.append(f"namespace {manifest.namespace}")
    namespace_id = applied.namespace.namespace_id
    for name, asked in manifest.buckets.items():
        try:
            bucket = records.buckets.get(name, namespace_id=namespace_id)
        except NotFound:
            extra = asked.model_extra or {}
            body = BucketCreate.model_validate({**extra, "bucket_name": name, "bucket_schema": asked.bucket_schema})
            bucket = create_bucket(records, body, namespace_id=namespace_id, now=now)
            applied.made.append(f"bucket {name}")
        known = {(sync.spec.metadata or {}).get("name") for sync in records.syncs.all(bucket.bucket_id)}
        for sync_name, sync_body in asked.syncs.items():
            if sync_name not in known:
                config = dict(sync_body.get("sync_config") or {})
                config["metadata"] = {**(config.get("metadata") or sync_body.get("metadata") or {}), "name": sync_name}
                create_sync(records, {**sync_body, "sync_config": config}, warehouse=warehouse, bucket=bucket, now=now)
                applied.made.append(f"sync {sync_name}")
    for name, collection_body in manifest.collections.items():
        try:
            records.collections.get(name, namespace_id=namespace_id)
        except NotFound:
            body_ = CollectionCreate.model_validate({**collection_body, "collection_name": name})
            create_collection(records, body_, warehouse=warehouse, namespace_id=namespace_id, now=now)
            applied.made.append(f"collection {name}")
    return applied
