"""Register objects that clients send, change them, and take them away again."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from mixpeek_dagster.catalog import Records
from mixpeek_dagster.catalog.rows import LONGEST_INDEXED
from mixpeek_dagster.errors import AlreadyExists, BadRequest, Invalid, MixpeekError, NotFound
from mixpeek_dagster.models.buckets import Bucket, Policy
from mixpeek_dagster.models.ids import ObjectId, new_id
from mixpeek_dagster.models.objects import Blob, ObjectChange, ObjectCreate, ObjectStatus, StoredObject
from mixpeek_dagster.models.values import Lenient
from mixpeek_dagster.pipeline.batches import create_batch, submit
from mixpeek_dagster.pipeline.blobs import BlobMaker, managed_keys
from mixpeek_dagster.pipeline.creation import validation_words
from mixpeek_dagster.pipeline.events import tell_objects
from mixpeek_dagster.pipeline.removal import finish_removals, remove_documents, remove_objects
from mixpeek_dagster.pipeline.warehouse import Warehouse


@dataclass(frozen=True)
class Written:
    """An object as it is now. `replayed` says what found it again instead of making it: the idempotency key, or its content."""

    stored: StoredObject
    replayed: str | None = None


@dataclass(frozen=True)
class Refused:
    """Why one object of several was not registered."""

    index: int
    error: MixpeekError


def create_object(
    warehouse: Warehouse, bucket: Bucket, body: ObjectCreate, *, policy: Policy | None, auto_process: bool = False
) -> Written:
    """Register one object.

    Raises:
        SchemaViolation: it does not fit the bucket's schema.
        Invalid, UrlRefused: a blob is not what it says, or may not be fetched.
        BadRequest: the bucket has a unique key, and neither the call nor the bucket says what to do about it.
        AlreadyExists: policy insert, and the unique key is there. NotFound: policy update, and it is not.
    """
    maker = BlobMaker(warehouse, bucket)
    replaced: list[str] = []
    try:
        blobs = [maker.make(one) for one in body.blobs]
        with warehouse.catalog.transaction() as records:
            written = _register(records, warehouse, bucket, body, blobs, policy=policy, replaced=replaced)
            if auto_process and written.replayed is None:
                _process(records, warehouse, bucket, [written.stored.object_id])
    except BaseException:
        maker.discard()
        raise
    if written.replayed:
        maker.discard()
    for key in replaced:
        warehouse.blobs.delete(key)
    return written


def create_objects(
    warehouse: Warehouse,
    bucket: Bucket,
    bodies: Sequence[Mapping[str, Any]],
    *,
    policy: Policy | None,
    auto_process: bool = False,
) -> list[Written | Refused]:
    """Register several objects, each for itself: what is wrong with one keeps no other out. In the order they came."""
    results: list[Written | Refused] = []
    for index, body in enumerate(bodies):
        try:
            results.append(create_object(warehouse, bucket, ObjectCreate.model_validate(body), policy=policy))
        except MixpeekError as error:
            results.append(Refused(index, error))
        except ValidationError as error:
            results.append(Refused(index, Invalid(validation_words(error))))
    fresh = [one.stored.object_id for one in results if isinstance(one, Written) and one.replayed is None]
    if auto_process and fresh:
        with warehouse.catalog.transaction() as records:
            _process(records, warehouse, bucket, fresh)
    return results


def register(
    records: Records, warehouse: Warehouse, bucket: Bucket, body: ObjectCreate, blobs: Sequence[Blob], *, policy: Policy | None
) -> StoredObject:
    """Record an object inside the caller's transaction; its blobs are made already."""
    return _register(records, warehouse, bucket, body, blobs, policy=policy, replaced=[]).stored


def _register(
    records: Records,
    warehouse: Warehouse,
    bucket: Bucket,
    body: ObjectCreate,
    blobs: Sequence[Blob],
    *,
    policy: Policy | None,
    replaced: list[str],
) -> Written:
    key, why = _replay_key(body)
    if key and (known := records.objects.by_key(bucket.bucket_id, key)):
        return Written(known, why)
    types = {blob.property: blob.type for blob in blobs}
    if len(types) < len(blobs):
        raise Invalid("Two blobs name the same property; an object has one blob per property.")
    fields = bucket.bucket_schema.fit(types, body.fields, owner="Object")
    now = warehouse.now()
    existing = _existing(records, bucket, fields, policy)
    stored = StoredObject(
        object_id=existing.object_id if existing else ObjectId(new_id("obj")),
        namespace_id=bucket.namespace_id,
        bucket_id=bucket.bucket_id,
        key_prefix=body.key_prefix,
        blobs=list(blobs),
        fields=fields,
        unique_value=unique_value(bucket, fields),
        revision=existing.revision + 1 if existing else 1,
        status=ObjectStatus.PENDING,
        size_bytes=sum(blob.size_bytes or 0 for blob in blobs),
        created_at=existing.created_at if existing else now,
        updated_at=now,
    )
    if existing:
        records.objects.put([stored])
        replaced += set(managed_keys(existing.blobs)) - set(managed_keys(blobs))
    else:
        records.objects.add([stored])
    grown = stored.size_bytes - (existing.size_bytes if existing else 0)
    records.buckets.count(bucket.bucket_id, objects=0 if existing else 1, size_bytes=grown)
    if key:
        records.objects.remember_key(bucket.bucket_id, key, stored.object_id, now=now)
    tell_objects(records, "object.updated" if existing else "object.created", [stored], now=now)
    return Written(stored)


def _existing(records: Records, bucket: Bucket, fields: dict[str, Any], policy: Policy | None) -> StoredObject | None:
    """The object that the policy says to replace; None to make a new one."""
    if bucket.unique_key is None:
        if policy is not None and policy != "insert":
            raise BadRequest(f"Bucket {bucket.bucket_name!r} has no unique key, so policy={policy} finds nothing to change.")
        return None
    policy = policy or bucket.unique_key.default_policy
    if policy is None:
        raise BadRequest(f"Bucket {bucket.bucket_name!r} has a unique key: say ?policy=insert, update or upsert.")
    value = unique_value(bucket, fields)
    existing = records.objects.by_unique_value(bucket.bucket_id, value) if value else None
    if existing:
        records.objects.hold(existing.object_id)
        existing = records.objects.named([existing.object_id]).get(existing.object_id)
    if policy == "insert" and existing:
        raise AlreadyExists(f"Object {existing.object_id} has the same unique key; policy=upsert replaces it.")
    if policy == "update" and not existing:
        raise NotFound("No object has this unique key; policy=upsert makes one.")
    return existing


def unique_value(bucket: Bucket, fields: dict[str, Any]) -> str | None:
    """What identifies an object of the bucket; None without a unique key.

    Raises:
        Invalid: a field of the key is missing, null or empty, or they are too long together.
    """
    if bucket.unique_key is None:
        return None
    values = [fields.get(name) for name in bucket.unique_key.fields]
    for name, value in zip(bucket.unique_key.fields, values):
        if value is None or value == "":
            raise Invalid(f"Field {name!r} is part of the unique key of bucket {bucket.bucket_name!r}: it may not be empty.")
    value = json.dumps(values, ensure_ascii=False, separators=(",", ":"))
    if (length := len(value.encode())) > LONGEST_INDEXED:
        raise Invalid(
            f"The unique key of an object of bucket {bucket.bucket_name!r} has {length} bytes; at most {LONGEST_INDEXED} can be kept."
        )
    return value


def _replay_key(body: ObjectCreate) -> tuple[str | None, str]:
    """Under what the object is found again: the client's key, or with `skip_duplicates` its content."""
    if body.idempotency_key:
        return f"client:{body.idempotency_key}", "idempotency_key"
    if body.skip_duplicates and body.blobs:
        content = body.model_dump_json(exclude={"idempotency_key", "skip_duplicates"})
        return f"content:{hashlib.sha256(content.encode()).hexdigest()}", "skip_duplicates"
    return None, ""


def change_object(warehouse: Warehouse, bucket: Bucket, object_id: str, body: ObjectChange, *, replace: bool) -> StoredObject:
    """Change metadata, all of it with `replace`; blobs stay, and nothing is extracted again.

    Raises:
        NotFound: no such object in the bucket. SchemaViolation: the metadata does not fit.
        AlreadyExists: another object has the unique key that results.
    """
    with warehouse.catalog.transaction() as records:
        records.objects.hold(object_id)
        before = records.objects.get(object_id, namespace_id=bucket.namespace_id, bucket_id=bucket.bucket_id)
        types = {blob.property: blob.type for blob in before.blobs}
        merged = body.fields if replace else {**before.fields, **body.fields}
        fields = bucket.bucket_schema.fit(types, merged, owner=f"Object {object_id}")
        value = unique_value(bucket, fields)
        other = records.objects.by_unique_value(bucket.bucket_id, value) if value else None
        if other and other.object_id != before.object_id:
            raise AlreadyExists(f"Object {other.object_id} has the same unique key.")
        now = warehouse.now()
        prefix = body.key_prefix if body.key_prefix is not None else before.key_prefix
        changed = {"fields": fields, "unique_value": value, "key_prefix": prefix, "updated_at": now}
        after = before.model_copy(update=changed)
        records.objects.put([after])
        tell_objects(records, "object.updated", [after], now=now)
    return after


def delete_objects(warehouse: Warehouse, bucket: Bucket, object_ids: Sequence[str]) -> int:
    """Delete objects with their documents and vectors in every tier, and the files we keep for them; how many documents went.

    Raises:
        NotFound: one of them is not in the bucket; nothing was deleted.
    """
    with warehouse.catalog.transaction() as records:
        doomed = [
            records.objects.get(one, namespace_id=bucket.namespace_id, bucket_id=bucket.bucket_id)
            for one in dict.fromkeys(object_ids)
        ]
        now = warehouse.now()
        documents = remove_objects(records, warehouse, [one.object_id for one in doomed], now=now)
    finish_removals(warehouse)
    for one in doomed:
        for key in managed_keys(one.blobs):
            warehouse.blobs.delete(key)
    return documents


class Disabling(Lenient):
    """Which objects nothing is to be made of from now on; `lifecycle_state: active` takes them back."""

    object_ids: Sequence[Annotated[str, Field(min_length=1, max_length=255)]] = Field(min_length=1, max_length=5000)
    reason: str = Field(max_length=500)
    lifecycle_state: Literal["disabled", "archived", "active"] = "disabled"
    source: str = Field(default="bulk_purge", max_length=100)


def disable_objects(warehouse: Warehouse, bucket: Bucket, body: Disabling) -> int:
    """Keep objects but take away what was made of them, in every tier; how many objects. Batches, triggers and syncs pass them
    over. Those that are not in the bucket are passed over too.
    """
    now = warehouse.now()
    with warehouse.catalog.transaction() as records:
        found = records.objects.named(dict.fromkeys(body.object_ids))
        own = [one for one in found.values() if one.bucket_id == bucket.bucket_id]
        ids = [one.object_id for one in own]
        if body.lifecycle_state == "active":
            records.objects.enable(ids)
        else:
            records.objects.disable(ids, state=body.lifecycle_state, reason=body.reason, source=body.source, now=now)
            documents = [one.document_id for one in records.documents.of_objects(ids)]
            remove_documents(records, warehouse, documents, now=now)
        tell_objects(records, "object.updated", own, now=now)
    finish_removals(warehouse)
    return len(own)


def _process(records: Records, warehouse: Warehouse, bucket: Bucket, object_ids: Sequence[ObjectId]) -> None:
    now = warehouse.now()
    batch = create_batch(records, object_ids, namespace_id=bucket.namespace_id, bucket_id=bucket.bucket_id, now=now)
    submit(records, batch, settings=warehouse.settings, now=now)
