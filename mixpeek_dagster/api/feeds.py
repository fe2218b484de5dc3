"""Webhooks that providers send us about their files. They carry no key of ours: the provider's signature is the permission."""

from typing import Annotated

from fastapi import APIRouter, Header, Path, Request
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from mixpeek_dagster.api.deps import Opened
from mixpeek_dagster.errors import Forbidden, MixpeekError
from mixpeek_dagster.models.ids import SyncId
from mixpeek_dagster.pipeline.looks import look_at
from mixpeek_dagster.pipeline.warehouse import Warehouse
from mixpeek_dagster.storage.feed import News

signed = APIRouter(prefix="/v1", tags=["signed"])


class FollowedAnswer(BaseModel):
    """What a webhook led to."""

    new: int = 0
    changed: int = 0
    deleted: int = 0


@signed.post("/syncs/{sync_id}/webhooks/mux")
async def mux(
    request: Request,
    sync_id: Annotated[str, Path(min_length=1, max_length=100)],
    warehouse: Opened,
    mux_signature: Annotated[str, Header(max_length=1000)] = "",
) -> FollowedAnswer:
    """Look at the asset that Mux tells of. Anything but 200 makes Mux send it again, for a day."""
    return await run_in_threadpool(_follow, warehouse, SyncId(sync_id), await request.body(), mux_signature)


def _follow(warehouse: Warehouse, sync_id: SyncId, body: bytes, signature: str) -> FollowedAnswer:
    news = _news(warehouse, sync_id, body, signature)
    if not news.keys:
        return FollowedAnswer()
    looked = look_at(warehouse, sync_id, news)
    return FollowedAnswer(new=looked.new, changed=looked.changed, deleted=looked.deleted)


def _news(warehouse: Warehouse, sync_id: SyncId, body: bytes, signature: str) -> News:
    """Raises Forbidden for whatever is wrong before the signature was checked: who asks is unknown until then."""
    from mixpeek_dagster.storage.mux import MuxSource

    try:
        with warehouse.catalog.reading() as records:
            sync = records.syncs.get(sync_id)
        source = warehouse.source(sync)
    except MixpeekError as error:
        raise Forbidden("This is not the webhook of a sync.") from error
    if not isinstance(source, MuxSource):
        raise Forbidden("This is not the webhook of a sync.")
    return source.webhook(body, signature)
