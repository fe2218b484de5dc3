"""Whether the server lives, whether it can work, and how its parts are. Open to everybody but for `deep`."""

from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field

from mixpeek_dagster import __version__
from mixpeek_dagster.api.deps import Opened
from mixpeek_dagster.api.routes import new_router
from mixpeek_dagster.pipeline.health import parts

router = APIRouter(prefix="/v1", tags=["health"])
guarded = new_router("health")


class ServiceHealth(BaseModel):
    """Which parts work."""

    cache: bool = Field(default=True, description="Keys are remembered in this process: there is no other cache")
    metadata: bool
    vector_store: bool
    object_storage: bool
    task_queue: bool = Field(description="False when a queued batch has waited for minutes: is the Dagster daemon running?")
    inference: bool


class Health(BaseModel):
    """`status` is `OK` or `DEGRADED`; `data` says which parts work, `errors` what is wrong with the others."""

    status: Literal["OK", "DEGRADED"]
    data: ServiceHealth
    errors: dict[str, str] | None = None
    meta: dict[str, Any]


@router.get("/health/liveness")
@router.get("/health/beat")
async def alive() -> dict[str, str]:
    """The process answers; nothing else is asked."""
    return {"status": "OK"}


@router.get("/health")
@router.get("/health/readiness")
def ready(warehouse: Opened) -> dict[str, str]:
    """The catalog answers. Raises 503 when it does not."""
    with warehouse.catalog.reading() as records:
        records.keys.count()
    return {"status": "OK"}


@guarded.get("/health/deep")
def deep(warehouse: Opened) -> Health:
    """Every part asked, with the milliseconds it took."""
    found = parts(warehouse)
    errors = {one.name: one.problem for one in found if one.problem is not None}
    return Health(
        status="DEGRADED" if errors else "OK",
        data=ServiceHealth(**{one.name: one.problem is None for one in found}),
        errors=errors or None,
        meta={"version": __version__, "index": warehouse.settings.index, "ms": {one.name: one.ms for one in found}},
    )
