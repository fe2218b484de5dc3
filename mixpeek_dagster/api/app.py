"""The application: routers, error shape, access log, and the guard at the door."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio.to_thread
from fastapi import APIRouter, FastAPI
from starlette.concurrency import run_in_threadpool

from mixpeek_dagster import __version__
from mixpeek_dagster.api import (
    account,
    batch_groups,
    batch_reports,
    batches,
    blobs,
    buckets,
    collection_documents,
    collection_reports,
    collections,
    connections,
    documents,
    errors,
    events,
    extractors,
    feeds,
    health,
    lineage,
    namespaces,
    objects,
    retrievers,
    search,
    syncs,
    uploads,
    webhooks,
    work,
)
from mixpeek_dagster.api.access import Access
from mixpeek_dagster.api.cross_origin import SignedCORS
from mixpeek_dagster.api.description import TAGS, describe, unique_id
from mixpeek_dagster.api.guard import Guard
from mixpeek_dagster.pipeline.tasks import resume_tasks
from mixpeek_dagster.pipeline.warehouse import Warehouse

ROUTERS: list[APIRouter] = [
    health.router,
    health.guarded,
    account.router,
    namespaces.router,
    connections.router,
    buckets.router,
    objects.router,
    uploads.router,
    uploads.signed,
    blobs.signed,
    feeds.signed,
    syncs.router,
    extractors.router,  # before collections: `features` is no collection's name in these paths
    collections.router,
    lineage.router,
    collection_reports.router,  # before collection_documents: `schema` is no document
    collection_documents.router,
    documents.router,
    batch_groups.router,  # before batches: `queue` is no batch
    batches.router,
    batch_reports.router,
    work.router,
    search.router,
    retrievers.router,
    events.router,
    webhooks.router,
]
THREADS = 14  # with the threads of list/batch, not more than the catalog's connections: `catalog.POOL`

logger = logging.getLogger("mixpeek_dagster.api")


def create_app(warehouse: Warehouse) -> FastAPI:
    """An ASGI application over one warehouse; `mixpeek-dagster serve` runs it."""
    app = FastAPI(
        title="mixpeek_dagster",
        version=__version__,
        summary="A self-hosted multimodal data warehouse on Dagster.",
        description="Bearer key in `Authorization`, namespace (id or name) in `X-Namespace`. Every error has one shape.",
        redirect_slashes=False,
        lifespan=_lifespan,
        responses=errors.DECLARED,
        openapi_tags=TAGS,
        generate_unique_id_function=unique_id,
    )
    describe(app)
    app.state.warehouse = warehouse
    app.state.guard = Guard(warehouse)
    errors.install(app)
    for router in ROUTERS:
        app.include_router(router)
    settings = warehouse.settings
    app.add_middleware(Access, max_body_bytes=settings.max_body_bytes, max_upload_bytes=settings.max_upload_bytes)
    app.add_middleware(SignedCORS)  # outermost: pages may read what is refused, too
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    anyio.to_thread.current_default_thread_limiter().total_tokens = THREADS
    resumed = await run_in_threadpool(resume_tasks, app.state.warehouse)
    if resumed:
        logger.info("resumed %d tasks of a process that ended", resumed)
    yield
