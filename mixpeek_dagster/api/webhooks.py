"""`/v1/organizations/webhooks`: who is told of which events. Secrets go in and read `redacted`."""

from typing import Annotated, Any

from fastapi import Body, Path, Response
from pydantic import BaseModel, Field

from mixpeek_dagster.api.deps import ByOrganization, Opened
from mixpeek_dagster.api.paging import Asked, Pagination, Paging, PlainPageBody, pagination
from mixpeek_dagster.api.routes import new_router
from mixpeek_dagster.models.webhooks import Webhook, WebhookBody
from mixpeek_dagster.pipeline.webhooks import save_webhook

router = new_router("webhooks", prefix="/v1/organizations/webhooks")
Identifier = Annotated[str, Path(min_length=1, max_length=255, description="Webhook id or name")]


class ChannelAnswer(BaseModel):
    """One way to tell; secrets read `redacted`."""

    channel: str
    configs: dict[str, Any]


class WebhookAnswer(BaseModel):
    """A webhook, and how its deliveries go."""

    webhook_id: str
    webhook_name: str
    event_types: list[str]
    resource_types: list[str] | None = None
    channels: list[ChannelAnswer]
    is_active: bool
    delivery_health: dict[str, Any]
    created_at: str
    updated_at: str


class WebhookPageBody(PlainPageBody):
    """Which webhooks."""

    event_type: str | None = Field(default=None, max_length=100)
    is_active: bool | None = None


class WebhookList(BaseModel):
    """One page of webhooks."""

    results: list[WebhookAnswer]
    pagination: Pagination
    total: int


@router.post("")
@router.post("/", include_in_schema=False)
def create(body: WebhookBody, warehouse: Opened, caller: ByOrganization) -> WebhookAnswer:
    """Make a webhook. 409 when the name is taken."""
    return _answer(save_webhook(warehouse, body))


@router.post("/list")
def list_by_body(
    warehouse: Opened, caller: ByOrganization, asked: Asked, body: Annotated[WebhookPageBody | None, Body()] = None
) -> WebhookList:
    """List webhooks."""
    body = body or WebhookPageBody()
    paging = Paging.of(asked, body)
    with warehouse.catalog.reading() as records:
        every = records.webhooks.all()
    found = [
        one
        for one in every
        if body.is_active in (None, one.is_active) and (body.event_type is None or {body.event_type, "*"} & set(one.event_types))
    ]
    page = [_answer(one) for one in found[paging.offset : paging.offset + paging.limit]]
    return WebhookList(results=page, pagination=pagination(paging, total=len(found), returned=len(page)), total=len(found))


@router.get("/{webhook_identifier}")
def get(webhook_identifier: Identifier, warehouse: Opened, caller: ByOrganization) -> WebhookAnswer:
    """Read a webhook."""
    with warehouse.catalog.reading() as records:
        return _answer(records.webhooks.get(webhook_identifier)[0])


@router.put("/{webhook_identifier}")
def put(webhook_identifier: Identifier, body: WebhookBody, warehouse: Opened, caller: ByOrganization) -> WebhookAnswer:
    """Replace a webhook; a secret sent as `redacted` stays. Making a paused one active again starts its health anew."""
    return _answer(save_webhook(warehouse, body, identifier=webhook_identifier))


@router.delete("/{webhook_identifier}", status_code=204, response_class=Response)
def delete(webhook_identifier: Identifier, warehouse: Opened, caller: ByOrganization) -> None:
    """Delete a webhook; what it has not been told yet is dropped."""
    with warehouse.catalog.transaction() as records:
        records.webhooks.remove(records.webhooks.get(webhook_identifier)[0].webhook_id)


def _answer(webhook: Webhook) -> WebhookAnswer:
    channels = [
        ChannelAnswer(channel=one.channel, configs=one.configs.model_dump(mode="json", exclude_none=True))
        for one in webhook.channels
    ]
    return WebhookAnswer(
        webhook_id=webhook.webhook_id,
        webhook_name=webhook.webhook_name,
        event_types=list(webhook.event_types),
        resource_types=list(webhook.resource_types) if webhook.resource_types is not None else None,
        channels=channels,
        is_active=webhook.is_active,
        delivery_health=webhook.health.model_dump(mode="json"),
        created_at=webhook.created_at,
        updated_at=webhook.updated_at,
    )
