"""What route functions ask for in their signatures."""

from typing import Annotated

from fastapi import Depends, Header, Path, Query, Request

from mixpeek_dagster.errors import BadRequest, Forbidden
from mixpeek_dagster.models.buckets import Bucket
from mixpeek_dagster.models.collections import Collection
from mixpeek_dagster.models.namespaces import Namespace
from mixpeek_dagster.pipeline.keys import Caller
from mixpeek_dagster.pipeline.warehouse import Warehouse


async def _warehouse(request: Request) -> Warehouse:
    warehouse: Warehouse = request.app.state.warehouse
    return warehouse


async def _caller(request: Request) -> Caller:
    caller: Caller = request.state.caller
    return caller


Opened = Annotated[Warehouse, Depends(_warehouse)]
By = Annotated[Caller, Depends(_caller)]


def _organization(caller: By) -> Caller:
    if caller.namespace_id is not None:
        raise Forbidden(
            f"API key {caller.key_id} is limited to namespace {caller.namespace_id}; this call needs one that is not."
        )
    return caller


ByOrganization = Annotated[Caller, Depends(_organization)]
"""A caller whose key is not limited to one namespace: what connections and new namespaces take."""


def _namespace(
    request: Request,
    warehouse: Opened,
    caller: By,
    x_namespace: Annotated[
        str | None, Header(description="Namespace id or name; falls back to ?namespace=", examples=["production"])
    ] = None,
    namespace: Annotated[str | None, Query(description="Namespace id or name, where the header is absent")] = None,
) -> Namespace:
    wanted = (x_namespace or namespace or "").strip()
    if not wanted:
        raise BadRequest("Say which namespace: header X-Namespace (id or name), or ?namespace=.")
    with warehouse.catalog.reading() as records:
        found = records.namespaces.get(wanted)
    if not caller.may_use(found.namespace_id):
        raise Forbidden(f"API key {caller.key_id} may not use namespace {wanted!r}.")
    request.state.namespace_id = found.namespace_id
    return found


InNamespace = Annotated[Namespace, Depends(_namespace)]
"""The namespace a request is about; nothing outside of it may be read or written."""

Identifier = Annotated[str, Path(min_length=1, max_length=255, description="Id or name")]


def _bucket(warehouse: Opened, namespace: InNamespace, bucket_identifier: Identifier) -> Bucket:
    with warehouse.catalog.reading() as records:
        return records.buckets.get(bucket_identifier, namespace_id=namespace.namespace_id)


InBucket = Annotated[Bucket, Depends(_bucket)]
"""The bucket of `{bucket_identifier}` in the path, inside the request's namespace."""


def _collection(warehouse: Opened, namespace: InNamespace, collection_identifier: Identifier) -> Collection:
    with warehouse.catalog.reading() as records:
        return records.collections.get(collection_identifier, namespace_id=namespace.namespace_id)


InCollection = Annotated[Collection, Depends(_collection)]
"""The collection of `{collection_identifier}` in the path, inside the request's namespace."""
