"""Who is calling, and what the warehouse holds and has done. Nothing is billed: credits and costs are zero."""

from typing import Annotated, Any

from fastapi import Query
from pydantic import AwareDatetime, BaseModel

from mixpeek_dagster.api.deps import By, ByOrganization, Opened
from mixpeek_dagster.api.organization import NAME, ORGANIZATION
from mixpeek_dagster.api.routes import new_router
from mixpeek_dagster.errors import Invalid
from mixpeek_dagster.models.values import iso
from mixpeek_dagster.pipeline.warehouse import Warehouse

router = new_router("account")
MONTH_S = 30 * 86_400.0
Since = Annotated[AwareDatetime | None, Query(description="ISO 8601 with its offset; 30 days before the end when left out")]
Until = Annotated[AwareDatetime | None, Query(description="ISO 8601 with its offset; now when left out")]


class KeyInfo(BaseModel):
    """The key that was sent: a key may do everything in its namespace, or everywhere when it has none."""

    key_id: str
    name: str
    key_type: str = "SECRET"
    permissions: list[str] = ["READ", "WRITE", "DELETE", "ADMIN"]
    namespace_id: str | None = None
    expires_at: str | None = None


class Me(BaseModel):
    """Who is calling. `rate_limits` are requests a minute; empty without a limit."""

    organization_id: str = ORGANIZATION
    organization_name: str = NAME
    account_type: str = "SELF_HOSTED"
    user_email: str | None = None
    key: KeyInfo
    rate_limits: dict[str, int]
    principal_scoped: bool = False


class Usage(BaseModel):
    """What the warehouse holds now, and what ended between two times."""

    organization_id: str = ORGANIZATION
    start: str
    end: str
    namespaces: int
    buckets: int
    collections: int
    objects: int
    documents: int
    total_size_bytes: int
    batches_completed: int
    objects_processed: int
    documents_written: int
    total_credits: int = 0


class UsageSummary(BaseModel):
    """What was done between two times, by operation."""

    start_date: str
    end_date: str
    usage: list[dict[str, Any]]
    total_credits: int = 0
    total_cost: float = 0.0


@router.get("/me")
def me(warehouse: Opened, caller: By) -> Me:
    """The key that was sent, and its limits."""
    limit = warehouse.settings.rate_limit_per_minute
    key = KeyInfo(key_id=caller.key_id, name=caller.name, namespace_id=caller.namespace_id)
    return Me(key=key, rate_limits={"rest": limit} if limit else {})


@router.get("/organizations/usage")
def usage(warehouse: Opened, caller: ByOrganization, start: Since = None, end: Until = None) -> Usage:
    """What the warehouse holds now, and what its batches did between two times."""
    since, until = _window(warehouse, start, end)
    with warehouse.catalog.reading() as records:
        namespaces = records.namespaces.all()
        counts = [records.namespaces.counts(one.namespace_id) for one in namespaces]
        size = sum(one.total_size_bytes for one in records.buckets.all())
        done = records.batches.done_between(since, until)
    held = {name: sum(one[f"{name[:-1]}_count"] for one in counts) for name in ("buckets", "collections", "objects", "documents")}
    return Usage(start=since, end=until, namespaces=len(namespaces), total_size_bytes=size, **held, **done)


@router.get("/analytics/usage/summary")
def summary(warehouse: Opened, caller: ByOrganization, start_date: Since = None, end_date: Until = None) -> UsageSummary:
    """What was done between two times, by operation."""
    since, until = _window(warehouse, start_date, end_date)
    with warehouse.catalog.reading() as records:
        done = records.batches.done_between(since, until)
    rows = [{"operation_type": name, "count": count, "credits": 0, "cost_usd": 0.0} for name, count in done.items()]
    return UsageSummary(start_date=since, end_date=until, usage=rows)


def _window(warehouse: Warehouse, start: AwareDatetime | None, end: AwareDatetime | None) -> tuple[str, str]:
    until = iso(end) if end else warehouse.now()
    since = iso(start) if start else warehouse.now(plus_s=-MONTH_S)
    if since > until:
        raise Invalid("The start is behind the end.")
    return since, until
