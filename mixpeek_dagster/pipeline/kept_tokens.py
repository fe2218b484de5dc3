"""The newest tokens of connections whose refresh tokens work once: in the catalog, encrypted beside the credentials they came from.

A pair is bound to the refresh token that the user gave: when the user gives another one, what was kept for the old one counts no more.
"""

import hashlib
import json
from collections.abc import Callable
from typing import Any

from mixpeek_dagster.catalog import Catalog
from mixpeek_dagster.models.ids import ConnectionId
from mixpeek_dagster.pipeline.connections import encrypt, open_config, unseal
from mixpeek_dagster.settings import Settings
from mixpeek_dagster.storage.tokens import UNKNOWN_S, Grant


class KeptTokens:
    """The `TokenKeeper` of a recorded connection."""

    def __init__(self, catalog: Catalog, connection_id: ConnectionId, *, settings: Settings, now: Callable[[], str]) -> None:
        self._catalog, self._connection_id, self._settings, self._now = catalog, connection_id, settings, now

    def load(self) -> Grant | None:
        with self._catalog.reading() as records:
            connection, secrets = records.syncs.connection(self._connection_id)
        if secrets is None:
            return None
        kept = unseal(secrets, self._settings).get("tokens")
        given = _given(open_config(connection.config, secrets, settings=self._settings))
        if not isinstance(kept, dict) or kept.get("for") != given:
            return None
        return Grant(kept["access_token"], UNKNOWN_S, kept["refresh_token"])

    def save(self, grant: Grant) -> None:
        """Keep a pair; whatever else somebody changes about the connection at the same moment stays changed."""
        while True:
            with self._catalog.transaction() as records:
                connection, secrets = records.syncs.connection(self._connection_id)
                hidden = unseal(secrets, self._settings) if secrets is not None else {}
                hidden["tokens"] = sealed_tokens(grant, open_config(connection.config, secrets, settings=self._settings))
                new = encrypt(json.dumps(hidden), self._settings)
                if records.syncs.swap_secrets(connection.connection_id, old=secrets, new=new, now=self._now()):
                    return


class HeldTokens:
    """The `TokenKeeper` of a connection that is only being tried out: what it was given is recorded together with it."""

    def __init__(self) -> None:
        self.grant: Grant | None = None

    def load(self) -> Grant | None:
        return self.grant

    def save(self, grant: Grant) -> None:
        self.grant = grant


def sealed_tokens(grant: Grant, config: dict[str, Any]) -> dict[str, str | None]:
    """A pair as it is kept among a connection's secrets; `config` is the opened one."""
    return {"for": _given(config), "access_token": grant.access_token, "refresh_token": grant.refresh_token}


def _given(config: dict[str, Any]) -> str:
    """What tells the refresh token that the user gave from any other, without being it."""
    credentials = config.get("credentials")
    token = credentials.get("refresh_token") if isinstance(credentials, dict) else None
    return hashlib.sha256(str(token).encode()).hexdigest()
