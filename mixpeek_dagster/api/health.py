"""Whether the server lives, whether it can work, and how its parts are. Open to everybody but for `deep`."""

import time
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel

from mixpeek_dagster import __version__
from mixpeek_dagster.api.deps import Opened
from mixpeek_dagster.errors import CatalogError

router = APIRouter(prefix="/v1", tags=["health"])


class Health(BaseModel):
    """`status` is `OK` or `DEGRADED`; `data` says how each part is."""

    status: str
    data: dict[str, Any]
    errors: dict[str, Any] | None = None
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


@router.get("/health/deep")
def deep(warehouse: Opened) -> Health:
    """Every part asked, with the time it took."""
    started, problem = time.perf_counter(), None
    try:
        with warehouse.catalog.reading() as records:
            records.keys.count()
    except CatalogError as error:
        problem = error.code
    ms = round((time.perf_counter() - started) * 1000, 1)
    parts = {"catalog": {"status": "FAILED" if problem else "OK", "ms": ms}, "index": {"name": warehouse.settings.index}}
    errors = {"catalog": problem} if problem else None
    return Health(status="DEGRADED" if problem else "OK", data=parts, errors=errors, meta={"version": __version__})
