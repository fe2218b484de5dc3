"""One process's warehouse: the settings and the things built from them once, when first needed."""

import os
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property, partial
from typing import Any, NamedTuple

from mixpeek_dagster import plugins
from mixpeek_dagster.catalog import Catalog
from mixpeek_dagster.errors import UnknownName
from mixpeek_dagster.extractors.extractor import Extractor
from mixpeek_dagster.extractors.models import ModelStore
from mixpeek_dagster.models.batches import Step
from mixpeek_dagster.models.collections import ExtractorConfig
from mixpeek_dagster.models.ids import ConnectionId
from mixpeek_dagster.models.syncs import Sync
from mixpeek_dagster.models.values import iso, utc_now
from mixpeek_dagster.pipeline.catalog_vectors import CatalogVectors
from mixpeek_dagster.pipeline.connections import open_config, signing_key
from mixpeek_dagster.pipeline.kept_tokens import KeptTokens
from mixpeek_dagster.settings import Settings
from mixpeek_dagster.storage.blobs import BlobStore
from mixpeek_dagster.storage.connect import open_source
from mixpeek_dagster.storage.managed import LocalBlobs
from mixpeek_dagster.storage.model_files import read_model_file
from mixpeek_dagster.storage.provider import ObjectSource
from mixpeek_dagster.storage.stores import open_store
from mixpeek_dagster.vectors.index import VectorIndex, open_index

LOOK_AGAIN_S = 5.0
"""How long a process may go on with a connection that was changed."""


@dataclass(kw_only=True)
class Warehouse:
    """Everything a step of the pipeline may need. Cheap to make; parts open when first used and are then shared by all threads.

    Attributes:
        clock: where the time comes from; tests move it.
        progress: told after every window of every step; a progress bar hangs on it.
        owner: names this process, as `host:pid`.
    """

    settings: Settings
    clock: Callable[[], datetime] = utc_now
    progress: Callable[[Step], None] = lambda _: None
    owner: str = field(default_factory=lambda: f"{socket.gethostname()}:{os.getpid()}")

    @classmethod
    def from_env(cls) -> "Warehouse":
        return cls(settings=Settings.from_env())

    @cached_property
    def catalog(self) -> Catalog:
        return Catalog(self.settings.catalog_url)

    @cached_property
    def index(self) -> VectorIndex:
        return open_index(self.settings, CatalogVectors(self.catalog))

    @cached_property
    def models(self) -> ModelStore:
        return ModelStore(self.settings.models, download=partial(read_model_file, settings=self.settings))

    @cached_property
    def blobs(self) -> BlobStore:
        if self.settings.blobs_url is not None:
            return open_store(self.settings.blobs_url, settings=self.settings)
        base_url = self.settings.public_url or f"http://127.0.0.1:{self.settings.api_port}"
        return LocalBlobs(self.settings.home / "blobs", base_url=f"{base_url}/v1/blobs", secret=signing_key(self.settings))

    def now(self, *, plus_s: float = 0.0) -> str:
        """The time as the catalog writes it, `plus_s` seconds from now."""
        return iso(self.clock() + timedelta(seconds=plus_s))

    def new_holder(self) -> str:
        """A name for one holder of a lock, `host:pid/…`: threads of a process exclude each other, too."""
        return f"{self.owner}/{secrets.token_hex(4)}"

    def extractor(self, config: ExtractorConfig) -> Extractor:
        """The extractor of a collection, built once per process and configuration; its models load when it first infers.

        Raises:
            UnknownName: nobody registered it, or what is registered is none.
            Invalid: its parameters do not fit.
        """
        key = config.model_dump_json(include={"feature_extractor_name", "version", "parameters"})
        if key not in self._extractors:
            kind = plugins.load("extractors", config.extractor_id)
            if not isinstance(kind, type) or not hasattr(kind, "Params") or not hasattr(kind, "accepts"):
                raise UnknownName(f"{config.extractor_id} is no extractor: extractors/extractor.py says what one has.")
            self._extractors[key] = kind(kind.Params(**config.parameters), models=self.models)
        return self._extractors[key]

    def source(self, sync: Sync) -> ObjectSource:
        """The place a sync follows, opened once per process and connection; again when the connection was changed, here or by
        another process, which is seen within `LOOK_AGAIN_S`.
        """
        key = f"{sync.connection_id}\x1f{sync.spec.source_path}"
        known = self._sources.get(key)
        if known is not None and time.monotonic() - known.looked_at < LOOK_AGAIN_S:
            return known.source
        reached = self._reached(sync.connection_id)
        source = known.source if known is not None and known.reached == reached else self._open(reached, sync.spec.source_path)
        self._sources[key] = _Opened(source, reached, time.monotonic())
        return source

    def open_source(self, connection_id: ConnectionId, source_path: str) -> ObjectSource:
        return self._open(self._reached(connection_id), source_path)

    def _reached(self, connection_id: ConnectionId) -> "_Reached":
        with self.catalog.reading() as records:
            connection, secrets = records.syncs.connection(connection_id)
        return _Reached(connection.connection_id, connection.provider, connection.config, secrets)

    def _open(self, reached: "_Reached", source_path: str) -> ObjectSource:
        config = open_config(reached.config, reached.secrets, settings=self.settings)
        tokens = self.tokens(reached.connection_id)
        return open_source(reached.provider, config, source_path=source_path, settings=self.settings, tokens=tokens)

    def tokens(self, connection_id: ConnectionId) -> KeptTokens:
        """Where a connection's rotating tokens are kept."""
        return KeptTokens(self.catalog, connection_id, settings=self.settings, now=self.now)

    def close(self) -> None:
        """Release what was opened."""
        for name in ("index", "catalog"):
            opened: Any = self.__dict__.pop(name, None)
            if opened is not None:
                opened.close()

    @cached_property
    def _extractors(self) -> dict[str, Extractor]:
        return {}

    @cached_property
    def _sources(self) -> dict[str, "_Opened"]:
        return {}


class _Reached(NamedTuple):
    """How a provider is reached, as recorded: secrets are ciphertext."""

    connection_id: ConnectionId
    provider: str
    config: dict[str, Any]
    secrets: str | None


class _Opened(NamedTuple):
    """An open source, and when it was last seen that its connection is still this one."""

    source: ObjectSource
    reached: _Reached
    looked_at: float
