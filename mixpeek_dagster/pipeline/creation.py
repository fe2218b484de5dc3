"""Make namespaces, buckets, collections and syncs from what a user asks for, with everything about them computed and checked."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from mixpeek_dagster import plugins
from mixpeek_dagster.catalog import Records
from mixpeek_dagster.errors import Invalid, ModelError
from mixpeek_dagster.extractors.extractor import Extractor
from mixpeek_dagster.models.buckets import Bucket, BucketCreate, BucketSchema, SchemaField
from mixpeek_dagster.models.collections import Collection, CollectionCreate, ExtractorConfig, VectorSpec, downstream_tiers
from mixpeek_dagster.models.filters import Filter
from mixpeek_dagster.models.ids import BucketId, CollectionId, NamespaceId, SyncId, new_id
from mixpeek_dagster.models.namespaces import Namespace, NamespaceCreate
from mixpeek_dagster.models.syncs import ConnectionSpec, Sync, SyncCursor, SyncSpec, SyncStatus
from mixpeek_dagster.pipeline.batches import check_upstream
from mixpeek_dagster.pipeline.connections import make_connection, open_config
from mixpeek_dagster.pipeline.warehouse import Warehouse
from mixpeek_dagster.storage.connect import open_source


def create_namespace(records: Records, body: NamespaceCreate, *, now: str) -> Namespace:
    """Raises UnknownName for an extractor nobody registered, AlreadyExists for a taken name."""
    for extractor in body.feature_extractors:
        plugins.check_named("extractors", f"{extractor.feature_extractor_name}_{extractor.version}", modules=())
    namespace = Namespace(**body.model_dump(), namespace_id=NamespaceId(new_id("ns")), created_at=now, updated_at=now)
    records.namespaces.add(namespace)
    return namespace


def create_bucket(records: Records, body: BucketCreate, *, namespace_id: NamespaceId, now: str) -> Bucket:
    """Raises AlreadyExists for a taken name."""
    bucket_id = BucketId(new_id("bkt"))
    bucket = Bucket(**body.model_dump(), bucket_id=bucket_id, namespace_id=namespace_id, created_at=now, updated_at=now)
    records.buckets.add(bucket)
    return bucket


def create_collection(
    records: Records, body: CollectionCreate, *, warehouse: Warehouse, namespace_id: NamespaceId, now: str
) -> Collection:
    """Resolve the sources and the mappings, and compute input schema, output schema and vectors.

    Raises:
        NotFound: a source does not exist in the namespace.
        UnknownName: nobody registered the extractor.
        Invalid: parameters, mappings or filters do not fit, or no field of the source suits the extractor.
        AlreadyExists: the name is taken.
    """
    records.namespaces.hold(namespace_id)  # what it reads does not go meanwhile
    source = body.source
    if source.type == "bucket":
        buckets = [records.buckets.get(one, namespace_id=namespace_id) for one in source.bucket_ids]
        input_schema = _joined([bucket.bucket_schema for bucket in buckets])
        source = source.model_copy(update={"bucket_ids": [bucket.bucket_id for bucket in buckets]})
        reachable: BucketSchema = input_schema
    else:
        upstream = [records.collections.get(one, namespace_id=namespace_id) for one in source.collection_ids]
        input_schema = _joined([one.output_schema for one in upstream])
        source = source.model_copy(update={"collection_ids": [one.collection_id for one in upstream]})
        reachable = _joined([input_schema, *_root_schemas(records, upstream, namespace_id)])
    Filter.parse((source.source_filters or {}).get("filters"))
    extractor = open_extractor(warehouse, body.feature_extractor)
    config = body.feature_extractor.model_copy(update={"input_mappings": _mappings(body.feature_extractor, extractor, reachable)})
    asked = body.model_copy(update={"source": source, "feature_extractor": config})
    collection = Collection(
        **asked.model_dump(),
        collection_id=CollectionId(new_id("col", length=10)),
        namespace_id=namespace_id,
        input_schema=input_schema,
        output_schema=_output_schema(config, extractor, input_schema),
        vectors=_vectors(extractor),
        fingerprint=extractor.fingerprint,
        created_at=now,
        updated_at=now,
    )
    downstream_tiers([*records.collections.all(namespace_id), collection], roots=source.upstream)
    records.collections.add(collection)
    return collection


def open_extractor(warehouse: Warehouse, config: ExtractorConfig) -> Extractor:
    """The extractor of a configuration; parameters that do not fit become an `Invalid` that names them, a model pack among them."""
    try:
        return warehouse.extractor(config)
    except ValidationError as error:
        raise Invalid(f"Parameters of {config.extractor_id}: {validation_words(error)}") from error
    except ModelError as error:
        raise Invalid(f"Parameters of {config.extractor_id}: {error.message}") from error


def validation_words(error: ValidationError) -> str:
    """A pydantic error in one line: `chunk_size: Input should be less than or equal to 10000`."""
    return "; ".join(f"{'.'.join(str(part) for part in one['loc']) or 'value'}: {one['msg']}" for one in error.errors())


def _root_schemas(records: Records, upstream: list[Collection], namespace_id: NamespaceId) -> list[BucketSchema]:
    """The schemas of the buckets that collections come from: their blobs stay readable in later tiers."""
    schemas, waiting, seen = [], list(upstream), set()
    while waiting:
        one = waiting.pop()
        if one.collection_id in seen:
            continue
        seen.add(one.collection_id)
        schemas += [records.buckets.get(b, namespace_id=namespace_id).bucket_schema for b in one.source.bucket_ids]
        waiting += [records.collections.get(c, namespace_id=namespace_id) for c in one.source.collection_ids]
    return schemas


def _joined(schemas: list[BucketSchema]) -> BucketSchema:
    properties: dict[str, SchemaField] = {}
    for schema in schemas:
        for name, field in schema.properties.items():
            before = properties.setdefault(name, field)
            if before.type is not field.type:
                raise Invalid(f"The sources disagree about field {name!r}: {before.type.value} and {field.type.value}.")
    return BucketSchema(properties=properties)


def _mappings(config: ExtractorConfig, extractor: Extractor, schema: BucketSchema) -> dict[str, str]:
    """Extractor input → source field: as given, else the first field of a type the input takes."""
    if config.input_mappings:
        unknown = sorted(set(config.input_mappings) - set(extractor.accepts))
        if unknown:
            raise Invalid(f"{config.extractor_id} has no input {unknown[0]!r}; it takes {sorted(extractor.accepts)}.")
        for name, path in config.input_mappings.items():
            field = schema.properties.get(path)
            if field is not None and field.type.value not in extractor.accepts[name]:
                takes = sorted(extractor.accepts[name])
                raise Invalid(f"Field {path!r} is {field.type.value}; input {name!r} of {config.extractor_id} takes {takes}.")
            if field is None and "." not in path:
                raise Invalid(
                    f"Input {name!r} is mapped to {path!r}, which is no field of the source: {sorted(schema.properties)}."
                )
        return dict(config.input_mappings)
    found = {}
    for name, types in extractor.accepts.items():
        fitting = [field for field, declared in schema.properties.items() if declared.type.value in types]
        blobs = [field for field in fitting if schema.properties[field].type.is_blob]
        if fitting:
            found[name] = (blobs or fitting)[0]
    if extractor.accepts and not found:
        wanted = sorted({one for types in extractor.accepts.values() for one in types})
        raise Invalid(f"{config.extractor_id} takes {wanted}; the source has none of them: {sorted(schema.properties)}.")
    return found


def _output_schema(config: ExtractorConfig, extractor: Extractor, input_schema: BucketSchema) -> BucketSchema:
    properties: dict[str, SchemaField] = {}
    if config.include_all_source_fields:
        properties |= {name: field for name, field in input_schema.properties.items() if not field.type.is_blob}
    for rule in config.field_passthrough:
        properties[rule.target] = input_schema.properties.get(rule.source_path) or SchemaField(type="string")
    properties |= {name: SchemaField(type=kind) for name, kind in extractor.fields.items()}
    return BucketSchema(properties=properties)


def _vectors(extractor: Extractor) -> list[VectorSpec]:
    return [
        VectorSpec(
            index_name=f"{extractor.name}_{extractor.version}_{output.name}",
            feature_uri=f"mixpeek://{extractor.name}@{extractor.version}/{output.name}",
            output=output.name,
            dim=output.dim,
            modality=output.modality,
        )
        for output in extractor.outputs
    ]


def create_sync(records: Records, body: Mapping[str, Any], *, warehouse: Warehouse, bucket: Bucket, now: str) -> Sync:
    """A sync from the seed's form `{provider, connection, sync_config}` or from `{connection_id, source_path, …}`.

    Raises:
        Invalid: neither form, or a value in it does not fit.
        NotFound: the connection, or a collection of `batch_collection_ids`, does not exist.
        BadRequest: `batch_collection_ids` names a collection without what it reads from.
        UnknownName: nobody registered the provider.
    """
    try:
        if "provider" in body:
            connection, secrets = make_connection(
                ConnectionSpec(provider=str(body["provider"]), config=dict(body.get("connection") or {})),
                settings=warehouse.settings,
                now=now,
            )
            spec = _spec(body)
            given = open_config(connection.config, secrets, settings=warehouse.settings)
            open_source(connection.provider, given, source_path=spec.source_path, settings=warehouse.settings)
            records.syncs.add_connection(connection, body=connection.config, secrets=secrets)
        elif "connection_id" in body:
            connection, _ = records.syncs.connection(str(body["connection_id"]))
            spec = _spec(body)
        else:
            raise Invalid("A sync needs `provider` with `connection`, or a `connection_id`.")
    except ValidationError as error:
        raise Invalid(f"Sync: {validation_words(error)}") from error
    sync = Sync(
        sync_id=SyncId(new_id("sync")),
        namespace_id=bucket.namespace_id,
        bucket_id=bucket.bucket_id,
        connection_id=connection.connection_id,
        provider=connection.provider,
        spec=checked_spec(records, spec, namespace_id=bucket.namespace_id),
        status=SyncStatus.PENDING,
        cursor=SyncCursor(),
        next_pass_at=now,
        created_at=now,
        updated_at=now,
    )
    records.syncs.add(sync)
    return sync


def _spec(body: Mapping[str, Any]) -> SyncSpec:
    """What is said about the sync, in `sync_config` or beside it; `sync_config` has the last word."""
    beside = {key: value for key, value in body.items() if key not in ("provider", "connection", "connection_id", "sync_config")}
    inside = {key: value for key, value in (body.get("sync_config") or {}).items() if value is not None}
    return SyncSpec.model_validate({**beside, **inside})


def checked_spec(records: Records, spec: SyncSpec, *, namespace_id: NamespaceId) -> SyncSpec:
    """With the ids of the collections that its batches are to go to; every pass would fail on what is refused here.

    Raises:
        NotFound: there is no such collection. BadRequest: one is named without what it reads from.
    """
    if spec.batch_collection_ids is None:
        return spec
    chosen = [records.collections.get(one, namespace_id=namespace_id).collection_id for one in spec.batch_collection_ids]
    check_upstream(records.collections.all(namespace_id), set(chosen))
    return spec.model_copy(update={"batch_collection_ids": chosen})
