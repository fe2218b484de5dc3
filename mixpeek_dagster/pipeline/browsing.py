"""Look into the place of a connection before a sync is made: its folders, and the files in one."""

from collections.abc import Sequence
from dataclasses import dataclass

from mixpeek_dagster.models.values import storable
from mixpeek_dagster.pipeline.connections import open_config
from mixpeek_dagster.pipeline.warehouse import Warehouse
from mixpeek_dagster.storage.connect import open_source
from mixpeek_dagster.storage.provider import Entry

MOST_KEYS = 10_000
"""Providers list whole trees; so many keys are looked at, however deep they are."""


@dataclass(frozen=True)
class File:
    """A file that lies in the folder itself."""

    name: str
    location: str
    entry: Entry


@dataclass(frozen=True)
class Folder:
    """What is in a folder: names of folders, and files. `is_cut` when there may be more."""

    folders: Sequence[str]
    files: Sequence[File]
    is_cut: bool


def look_into(warehouse: Warehouse, identifier: str, path: str, *, most_files: int = MOST_KEYS) -> Folder:
    """The folders and files at a path of a connection, in the order of their names.

    Args:
        path: as a sync would name it: `bucket/prefix`, a folder; empty or `/` for the connection's own place.

    Raises:
        NotFound: no such connection. Invalid: the path does not fit the provider.
        ProviderError: the provider refused, or did not answer.
    """
    with warehouse.catalog.reading() as records:
        connection, secrets = records.syncs.connection(identifier)
    config = open_config(connection.config, secrets, settings=warehouse.settings)
    wanted = "" if path == "/" else path
    source = open_source(connection.provider, config, source_path=wanted, settings=warehouse.settings)
    folders: set[str] = set()
    files: list[File] = []
    seen, is_cut = 0, False
    page = source.list_page(limit=1000)
    while True:
        for entry in page.entries:
            first, slash, _ = storable(source.relative(entry.key)).partition("/")
            if slash:
                folders.add(first)
            elif first:
                files.append(File(first, source.location(entry.key), entry))
        seen += len(page.entries)
        if page.token is None:
            break
        if seen >= MOST_KEYS:
            is_cut = True
            break
        page = source.list_page(token=page.token, limit=1000)
    files.sort(key=lambda one: one.name)
    return Folder(sorted(folders - {""}), files[:most_files], is_cut or len(files) > most_files)
