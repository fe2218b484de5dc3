"""The code location: `python -m dagster dev -m mixpeek_dagster.definitions`, or the repository's `workspace.yaml`."""

import time

import dagster as dg

# Dagster offers no public way yet to carry loaded state into run workers; this import is the only private one, and only here.
from dagster._core.definitions.definitions_load_context import DefinitionsLoadContext, DefinitionsLoadType

from mixpeek_dagster.definitions.build import build_definitions
from mixpeek_dagster.definitions.plan import WarehousePlan, load_plan
from mixpeek_dagster.definitions.resources import shared_warehouse
from mixpeek_dagster.errors import CatalogError

_PLAN = "mixpeek_dagster/plan"
_PATIENCE_S = 20.0


@dg.definitions
def defs() -> dg.Definitions:
    """The definitions of the whole warehouse: from the catalog in a code server, from that server's plan in a run worker."""
    context = DefinitionsLoadContext.get()
    if context.load_type is DefinitionsLoadType.RECONSTRUCTION and _PLAN in context.reconstruction_metadata:
        plan = WarehousePlan.model_validate_json(context.reconstruction_metadata[_PLAN])
    else:
        plan = _load_patiently()
    return build_definitions(plan).with_reconstruction_metadata({_PLAN: plan.model_dump_json()})


def _load_patiently() -> WarehousePlan:
    """The catalog's plan. A server that fails to load stays empty until somebody reloads it, so a database may restart meanwhile."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return load_plan(shared_warehouse().catalog)
        except CatalogError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(1.0)
