"""The code location: `python -m dagster dev -m mixpeek_dagster.definitions`, or the repository's `workspace.yaml`."""

import dagster as dg

# Dagster offers no public way yet to carry loaded state into run workers; this import is the only private one, and only here.
from dagster._core.definitions.definitions_load_context import DefinitionsLoadContext, DefinitionsLoadType

from mixpeek_dagster.definitions.build import build_definitions
from mixpeek_dagster.definitions.plan import WarehousePlan, load_plan
from mixpeek_dagster.definitions.resources import shared_warehouse

_PLAN = "mixpeek_dagster/plan"


@dg.definitions
def defs() -> dg.Definitions:
    """The definitions of the whole warehouse: from the catalog in a code server, from that server's plan in a run worker."""
    context = DefinitionsLoadContext.get()
    if context.load_type is DefinitionsLoadType.RECONSTRUCTION and _PLAN in context.reconstruction_metadata:
        plan = WarehousePlan.model_validate_json(context.reconstruction_metadata[_PLAN])
    else:
        plan = load_plan(shared_warehouse().catalog)
    return build_definitions(plan).with_reconstruction_metadata({_PLAN: plan.model_dump_json()})
