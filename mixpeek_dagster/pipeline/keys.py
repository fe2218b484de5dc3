"""Make, check and revoke API keys."""

import hashlib
import secrets
from dataclasses import dataclass

from mixpeek_dagster.models.ids import NamespaceId, new_id
from mixpeek_dagster.models.keys import ApiKey, KeyId
from mixpeek_dagster.pipeline.warehouse import Warehouse


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who sends a request. With a namespace it may use only that one."""

    key_id: str
    name: str
    namespace_id: NamespaceId | None = None

    def may_use(self, namespace_id: NamespaceId) -> bool:
        return self.namespace_id is None or self.namespace_id == namespace_id


@dataclass(frozen=True)
class NewKey:
    """A key that was just made. `token` is the secret itself: show it once, it is not stored."""

    key: ApiKey
    token: str


def create_key(warehouse: Warehouse, *, name: str, namespace: str | None = None) -> NewKey:
    """Raises NotFound for an unknown namespace."""
    token = "sk_" + secrets.token_urlsafe(32)
    with warehouse.catalog.transaction() as records:
        namespace_id = records.namespaces.get(namespace).namespace_id if namespace else None
        key = ApiKey(
            key_id=KeyId(new_id("key")), name=name, prefix=token[:10], namespace_id=namespace_id, created_at=warehouse.now()
        )
        records.keys.add(key, key_hash=_hash(token))
    return NewKey(key, token)


def create_first_key(warehouse: Warehouse) -> NewKey | None:
    """A key for a warehouse that never had one; None when it had, or when the operator set MIXPEEK_API_KEY."""
    if warehouse.settings.api_key:
        return None
    with warehouse.catalog.reading() as records:
        if records.keys.count():
            return None
    return create_key(warehouse, name="first key")


def find_caller(warehouse: Warehouse, token: str) -> Caller | None:
    """Whose key this is; None when it is unknown or revoked."""
    with warehouse.catalog.reading() as records:
        key = records.keys.valid(_hash(token))
    return Caller(key_id=key.key_id, name=key.name, namespace_id=key.namespace_id) if key else None


def _hash(token: str) -> str:
    # One round is enough: the token carries 256 random bits, so there is nothing to guess.
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
