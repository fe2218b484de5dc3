"""One process's warehouse: the settings and the things built from them once, when first needed."""

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from mixpeek_dagster import plugins
from mixpeek_dagster.catalog import Catalog
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
from mixpeek_dagster.storage.provider import ObjectSource
from mixpeek_dagster.vectors.index import VectorIndex, open_index


@dataclass(kw_only=True)
class Warehouse:
    """Everything a step of the pipeline may need. Cheap to make; parts open when first used and are then shared by all threads.

    Attributes:
        clock: where the time comes from; tests move it.
        progress: told after every window of every step; a progress bar hangs on it.
        owner: names this process in locks.
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
        return ModelStore(self.settings.models)

    @cached_property
    def blobs(self) -> BlobStore:
        if self.settings.blobs_url is not None:
            from mixpeek_dagster.storage.managed_s3 import S3Blobs

            return S3Blobs.at(self.settings.blobs_url)
        base_url = self.settings.public_url or f"http://127.0.0.1:{self.settings.api_port}"
        return LocalBlobs(self.settings.home / "blobs", base_url=f"{base_url}/v1/blobs", secret=signing_key(self.settings))

    def now(self, *, plus_s: float = 0.0) -> str:
        """The time as the catalog writes it, `plus_s` seconds from now."""
        return iso(self.clock() + timedelta(seconds=plus_s))

    def extractor(self, config: ExtractorConfig) -> Extractor:
        """The extractor of a collection, built once per process and configuration; its models load when it first infers.

        Raises:
            UnknownName: nobody registered it.
            Invalid: its parameters do not fit.
        """
        key = config.model_dump_json(include={"feature_extractor_name", "version", "parameters"})
        if key not in self._extractors:
            kind = plugins.load("extractors", config.extractor_id)
            self._extractors[key] = kind(kind.Params(**config.parameters), models=self.models)
        return self._extractors[key]

    def source(self, sync: Sync) -> ObjectSource:
        """The place a sync follows, opened once per process and connection."""
        key = f"{sync.connection_id}\x1f{sync.spec.source_path}"
        if key not in self._sources:
            self._sources[key] = self.open_source(sync.connection_id, sync.spec.source_path)
        return self._sources[key]

    def open_source(self, connection_id: ConnectionId, source_path: str) -> ObjectSource:
        with self.catalog.reading() as records:
            connection, secrets = records.syncs.connection(connection_id)
        config = open_config(connection.config, secrets, settings=self.settings)
        return open_source(
            connection.provider,
            config,
            source_path=source_path,
            settings=self.settings,
            tokens=self.tokens(connection.connection_id),
        )

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
    def _sources(self) -> dict[str, ObjectSource]:
        return {}
