"""Commands that make things."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mixpeek_dagster.pipeline.warehouse import Warehouse

console = Console()


def apply(
    file: Annotated[Path, typer.Argument(help="YAML file that describes a namespace.", exists=True, dir_okay=False)],
) -> None:
    """Make the namespace, buckets, syncs and collections that a YAML file describes; what exists stays as it is."""
    from mixpeek_dagster.pipeline.manifest import apply as apply_manifest
    from mixpeek_dagster.pipeline.manifest import read_manifest

    manifest = read_manifest(file)
    if manifest.names_resources:
        from mixpeek_dagster.definitions.connections import with_resources

        manifest = with_resources(manifest)
    applied = apply_manifest(Warehouse.from_env(), manifest)
    for one in applied.made:
        console.print(f"made {one}")
    if not applied.made:
        console.print(f"namespace {applied.namespace.namespace_name}: everything is there already")
