"""The REST API server, and the keys that open it."""

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from mixpeek_dagster.pipeline.keys import create_first_key, create_key
from mixpeek_dagster.pipeline.warehouse import Warehouse

console = Console()
keys = typer.Typer(no_args_is_help=True, help="API keys: create, list, revoke.")


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(help="Port to listen on (API_PORT, default 8000).")] = None,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Serve the REST API. The first start makes an API key and prints it once, unless MIXPEEK_API_KEY is set."""
    import logging

    import uvicorn

    from mixpeek_dagster.api import create_app

    warehouse = Warehouse.from_env()
    _ = warehouse.blobs  # opened now: wrong settings end the start, not the first upload
    first = create_first_key(warehouse)
    if first is not None:
        console.print(f"API key, shown this once: [bold]{first.token}[/]", highlight=False, soft_wrap=True)
    logging.basicConfig(level=log_level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s")
    port = port or warehouse.settings.api_port
    console.print(f"REST API on http://{host}:{port}/v1, described at /docs", highlight=False, soft_wrap=True)
    # uvicorn's own access log would print query strings, and with them signatures.
    uvicorn.run(create_app(warehouse), host=host, port=port, access_log=False, log_level=log_level, server_header=False)


@keys.command()
def create(
    name: Annotated[str, typer.Option(help="What the key is for.")] = "key",
    namespace: Annotated[str | None, typer.Option(help="Limit it to one namespace, by id or name.")] = None,
) -> None:
    """Make an API key and print it; it is not shown again."""
    made = create_key(Warehouse.from_env(), name=name, namespace=namespace)
    console.print(f"{made.key.key_id} {made.token}", highlight=False, soft_wrap=True)


@keys.command(name="list")
def list_them() -> None:
    """List API keys: never the keys themselves, only how they begin."""
    with Warehouse.from_env().catalog.reading() as records:
        found = records.keys.all()
    table = Table("id", "name", "begins", "namespace", "created", "revoked")
    for key in found:
        table.add_row(
            key.key_id, key.name, f"{key.prefix}…", key.namespace_id or "all", key.created_at[:19], (key.revoked_at or "")[:19]
        )
    console.print(table)


@keys.command()
def revoke(key_id: Annotated[str, typer.Argument(help="Id of the key, as `keys list` shows it.")]) -> None:
    """Make an API key invalid; a running server notices within two seconds."""
    warehouse = Warehouse.from_env()
    with warehouse.catalog.transaction() as records:
        key = records.keys.revoke(key_id, now=warehouse.now())
    console.print(f"revoked {key.key_id} ({key.name})", highlight=False)
