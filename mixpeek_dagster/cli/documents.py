"""Commands that ask: list documents, search them, explain one."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mixpeek_dagster.errors import Invalid
from mixpeek_dagster.models.ids import NamespaceId
from mixpeek_dagster.pipeline.warehouse import Warehouse

console = Console()
NamespaceOption = Annotated[
    str | None, typer.Option("--namespace", "-n", help="Namespace id or name; may be left out if there is one.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def namespace_id(warehouse: Warehouse, given: str | None) -> NamespaceId:
    """The namespace that was named, or the only one there is."""
    with warehouse.catalog.reading() as records:
        if given is not None:
            return records.namespaces.get(given).namespace_id
        every = records.namespaces.all()
    if len(every) != 1:
        names = ", ".join(one.namespace_name for one in every) or "none yet"
        raise Invalid(f"Say which namespace with --namespace. There are: {names}.")
    return every[0].namespace_id


def list_them(
    namespace: NamespaceOption = None,
    collection: Annotated[list[str] | None, typer.Option("--collection", "-c", help="Collection id or name.")] = None,
    where: Annotated[str | None, typer.Option("--filter", help='Filter as JSON: {"AND": [{"field": "path", …}]}.')] = None,
    sort: Annotated[str | None, typer.Option(help="Field, `-field` for descending.")] = None,
    select: Annotated[str | None, typer.Option(help="Fields to show, separated by commas.")] = None,
    group_by: Annotated[str | None, typer.Option(help="Field to group by.")] = None,
    cursor: Annotated[str | None, typer.Option(help="Where the last page ended.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 10,
    as_json: JsonOption = False,
) -> None:
    """List documents with filters, sorting and grouping."""
    from mixpeek_dagster.models.listing import ListRequest
    from mixpeek_dagster.pipeline.documents import list_documents

    warehouse = Warehouse.from_env()
    request = ListRequest.model_validate(
        {
            "filters": _parsed(where),
            "sort": {"field": sort.removeprefix("-"), "direction": "desc" if sort.startswith("-") else "asc"} if sort else None,
            "select": select.split(",") if select else None,
            "group_by": group_by,
            "cursor": cursor,
            "limit": limit,
            "collection_ids": collection,
        }
    )
    answer = list_documents(warehouse, request, namespace_id=namespace_id(warehouse, namespace))
    if as_json:
        console.print_json(json.dumps(answer))
        return
    for group in answer.get("groups") or ():
        console.print(f"[bold]{group['group_key']}[/]: {group['count']} documents", highlight=False)
    for document in answer.get("results") or ():
        shown = {
            key: value
            for key, value in document.items()
            if not key.startswith("_") and key not in ("collection_id", "document_blobs")
        }
        console.print(_line(shown), highlight=False, soft_wrap=True)
    pagination = answer["pagination"]
    console.print(
        f"{pagination['total_count']} in all" + (f"; next: --cursor {c}" if (c := pagination.get("next_cursor")) else "")
    )


def _parsed(text: str | None) -> object:
    if text is None:
        return None
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise Invalid(f"--filter is not JSON: {error}") from error


def _line(fields: dict[str, object]) -> str:
    return "  ".join(f"{name}={_short(value)}" for name, value in fields.items())


def _short(value: object) -> str:
    text = " ".join(value.split()) if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= 100 else text[:99] + "…"


def search(
    query: Annotated[str, typer.Argument(help="A text, or the path of an image after @: @photo.jpg.")],
    namespace: NamespaceOption = None,
    collection: Annotated[list[str] | None, typer.Option("--collection", "-c", help="Collection id or name.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100)] = 5,
    as_json: JsonOption = False,
) -> None:
    """Find the documents nearest to a text or an image."""
    from mixpeek_dagster.pipeline.search import search as find

    warehouse = Warehouse.from_env()
    asked: str | bytes = query
    if query.startswith("@"):
        try:
            asked = Path(query[1:]).read_bytes()
        except OSError as error:
            raise Invalid(f"{query[1:]}: {error.strerror or error}") from error
    found = find(warehouse, asked, namespace_id=namespace_id(warehouse, namespace), collections=collection or (), top_k=limit)
    if as_json:
        rows = [{"score": one.score, "document_id": one.document.document_id, **one.document.payload} for one in found]
        console.print_json(json.dumps(rows))
        return
    for one in found:
        payload = one.document.payload
        what = payload.get("text") or ", ".join(
            f"{key} {value}" for key, value in payload.items() if key not in ("path", "filename")
        )
        place = payload.get("path") or one.document.document_id
        console.print(f"  {one.score:.3f}  [bold]{place}[/]  {_short(str(what))}", highlight=False, soft_wrap=True)


def explain(document_id: Annotated[str, typer.Argument(help="The document.")], as_json: JsonOption = False) -> None:
    """Print where a document and its vectors come from: file and revision, object, collections, extractor, model, batch, run."""
    from mixpeek_dagster.pipeline.lineage import explain as explain_document

    answer = explain_document(Warehouse.from_env(), document_id).as_json()
    if as_json:
        console.print_json(json.dumps(answer))
        return
    _print_tree(answer, indent=0)


def _print_tree(value: object, *, indent: int) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            if isinstance(inner, dict | list) and inner:
                console.print(f"{'  ' * indent}[bold]{key}[/]", highlight=False)
                _print_tree(inner, indent=indent + 1)
            else:
                console.print(
                    f"{'  ' * indent}{key}: {inner if inner not in (None, '', {}) else '-'}", highlight=False, soft_wrap=True
                )
    elif isinstance(value, list):
        for inner in value:
            _print_tree(inner, indent=indent)
    else:
        console.print(f"{'  ' * indent}{value}", highlight=False)
