"""`/v1/organizations/connections`: how to reach other people's storage. Secrets go in and never come out."""

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Body, Path, Query
from pydantic import BaseModel, Field

from mixpeek_dagster.api.deps import ByOrganization, Opened
from mixpeek_dagster.api.organization import ORGANIZATION, USER
from mixpeek_dagster.api.paging import Asked, PageBody, Pagination, Paging, pagination, select_page
from mixpeek_dagster.api.routes import new_router
from mixpeek_dagster.models.connections import ConnectionCreate, ConnectionPatch
from mixpeek_dagster.models.syncs import Connection
from mixpeek_dagster.models.values import iso
from mixpeek_dagster.pipeline import sync_control as pipeline
from mixpeek_dagster.pipeline.answers import readable
from mixpeek_dagster.pipeline.browsing import look_into
from mixpeek_dagster.pipeline.warehouse import Warehouse
from mixpeek_dagster.storage.connect import canonical

router = new_router("connections", prefix="/v1/organizations/connections")
Name = Annotated[str, Path(min_length=1, max_length=255, description="Connection id or name")]
PlacePath = Annotated[str, Query(max_length=4096, description="As a sync would name it; `/` is the connection's own place")]

SDK_PROVIDERS = frozenset({"s3", "tigris", "box", "backblaze", "mux", "supabase", "gcs", "azure_blob"})
_SDK_WORDS = {"r2": "s3", "wasabi": "s3"}
_USUAL = {
    "gcs": "service_account",
    "azure_blob": "account_key",
    "backblaze": "application_key",
    "box": "oauth",
    "mux": "access_token",
}


class ConnectionAnswer(BaseModel):
    """A connection without its secrets. `provider_type` is a word that the SDK knows, `provider` the one that was asked for."""

    connection_id: str
    internal_id: str = ORGANIZATION
    provider_type: str
    provider: str
    provider_config: dict[str, Any]
    write_enabled: bool = False
    name: str
    description: str | None = None
    status: str
    is_active: bool
    last_used_at: str | None = None
    last_error: str | None = None
    consecutive_failures: int = 0
    created_at: str
    updated_at: str
    created_by_user_id: str = USER
    metadata: dict[str, Any] | None = None


class ConnectionList(BaseModel):
    """One page of connections."""

    results: list[ConnectionAnswer]
    pagination: Pagination
    total: int


class ConnectionTest(BaseModel):
    """Whether the provider answered and took the credentials."""

    success: bool
    message: str
    details: dict[str, Any] = {}


class ConnectionPageBody(PageBody):
    """Which connections to list."""

    provider_type: str | None = Field(default=None, max_length=100)
    status: str | None = Field(default=None, max_length=50)
    is_active: bool | None = None


class FolderAnswer(BaseModel):
    """A folder at the provider; `path` is what a sync would name."""

    id: str
    name: str
    path: str
    mime_type: str = "application/x-directory"


class FolderList(BaseModel):
    """The folders at a path; `truncated` when the place is too large to have been looked through."""

    results: list[FolderAnswer]
    parent_path: str
    truncated: bool = False


class FileAnswer(BaseModel):
    """A file at the provider."""

    id: str
    name: str
    path: str
    size_bytes: int
    mime_type: str | None = None
    modified_at: str | None = None


class FileList(BaseModel):
    """The first files at a path; `truncated` when there may be more."""

    results: list[FileAnswer]
    total: int
    parent_path: str
    truncated: bool = False


class TestQuestion(BaseModel):
    """What to look at; the place of the connection's first sync when left out."""

    source_path: str | None = Field(default=None, max_length=4096)


@router.post("")
def create(body: ConnectionCreate, warehouse: Opened, caller: ByOrganization) -> ConnectionAnswer:
    """Make a connection; it is tested first, and not saved when the test fails."""
    return answer(pipeline.save_connection(warehouse, body))


@router.get("")
def list_by_query(warehouse: Opened, caller: ByOrganization, asked: Asked) -> ConnectionList:
    """List connections, oldest first."""
    return _list(warehouse, Paging.of(asked), ConnectionPageBody())


@router.post("/list")
def list_by_body(
    warehouse: Opened, caller: ByOrganization, asked: Asked, body: Annotated[ConnectionPageBody | None, Body()] = None
) -> ConnectionList:
    """List connections of a provider or status."""
    return _list(warehouse, Paging.of(asked, body), body or ConnectionPageBody())


@router.get("/{connection_identifier}")
def get(connection_identifier: Name, warehouse: Opened, caller: ByOrganization) -> ConnectionAnswer:
    """Read a connection by id or name."""
    with warehouse.catalog.reading() as records:
        return answer(records.syncs.connection(connection_identifier)[0])


@router.patch("/{connection_identifier}")
def patch(connection_identifier: Name, body: ConnectionPatch, warehouse: Opened, caller: ByOrganization) -> ConnectionAnswer:
    """Change what the body names."""
    return answer(pipeline.change_connection(warehouse, connection_identifier, body))


@router.delete("/{connection_identifier}")
def delete(connection_identifier: Name, warehouse: Opened, caller: ByOrganization) -> dict[str, Any]:
    """Delete a connection that no sync uses."""
    connection_id = pipeline.delete_connection(warehouse, connection_identifier)
    return {"success": True, "message": "Successfully deleted", "connection_id": connection_id}


@router.post("/{connection_identifier}/test")
def test(
    connection_identifier: Name, warehouse: Opened, caller: ByOrganization, body: Annotated[TestQuestion | None, Body()] = None
) -> ConnectionTest:
    """Contact the provider."""
    path = body.source_path if body else None
    success, message = pipeline.test_connection(warehouse, connection_identifier, path)
    return ConnectionTest(success=success, message=message)


@router.get("/{connection_identifier}/folders")
def folders(connection_identifier: Name, warehouse: Opened, caller: ByOrganization, path: PlacePath = "/") -> FolderList:
    """The folders at a path, to choose what a sync should follow."""
    found = look_into(warehouse, connection_identifier, path)
    above = path.rstrip("/")
    names = [readable(one) for one in found.folders]
    results = [FolderAnswer(id=f"{above}/{one}", name=one, path=f"{above}/{one}") for one in names]
    return FolderList(results=results, parent_path=path, truncated=found.is_cut)


@router.get("/{connection_identifier}/files")
def files(
    connection_identifier: Name,
    warehouse: Opened,
    caller: ByOrganization,
    path: PlacePath = "/",
    max_results: Annotated[int, Query(ge=1, le=100)] = 20,
) -> FileList:
    """The first files at a path."""
    found = look_into(warehouse, connection_identifier, path, most_files=max_results)
    above = path.rstrip("/")
    results = [
        FileAnswer(
            id=readable(one.location),
            name=readable(one.name),
            path=f"{above}/{readable(one.name)}",
            size_bytes=one.entry.size,
            mime_type=one.entry.content_type or None,
            modified_at=iso(datetime.fromtimestamp(one.entry.modified_at, UTC)) if one.entry.modified_at else None,
        )
        for one in found.files
    ]
    return FileList(results=results, total=len(results), parent_path=path, truncated=found.is_cut)


def answer(connection: Connection) -> ConnectionAnswer:
    """A connection as clients see it: of its credentials only their type."""
    said = connection.config.get("credentials")
    kind = said.get("type") if isinstance(said, dict) else None
    config = {name: value for name, value in connection.config.items() if name != "credentials"}
    sdk_word = sdk_provider(connection.provider)
    return ConnectionAnswer(
        **connection.model_dump(exclude={"config", "provider"}),
        provider=connection.provider,
        provider_type=sdk_word,
        provider_config={
            "provider_type": sdk_word,
            **config,
            "credentials": {"type": kind or _USUAL.get(sdk_word, "access_key")},
        },
        is_active=connection.status == "ACTIVE",
    )


def sdk_provider(provider: str) -> str:
    """The SDK's word for a provider: it refuses to read others, so those it has none for are its generic `http_api`."""
    provider = canonical(provider)
    return _SDK_WORDS.get(provider) or (provider if provider in SDK_PROVIDERS else "http_api")


def _list(warehouse: Warehouse, paging: Paging, body: ConnectionPageBody) -> ConnectionList:
    with warehouse.catalog.reading() as records:
        every = [answer(one) for one in records.syncs.connections()]
    wanted = [
        one
        for one in every
        if body.provider_type in (None, one.provider, one.provider_type)
        and body.status in (None, one.status)
        and body.is_active in (None, one.is_active)
    ]
    found, total = select_page(wanted, paging, body, record=lambda one: one.model_dump(mode="json"), text=lambda one: one.name)
    return ConnectionList(results=found, pagination=pagination(paging, total=total, returned=len(found)), total=total)
