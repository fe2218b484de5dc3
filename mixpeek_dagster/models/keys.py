"""API keys: who may call the REST API. The key itself is shown once and never stored."""

from typing import NewType

from mixpeek_dagster.models.ids import NamespaceId
from mixpeek_dagster.models.values import Value

KeyId = NewType("KeyId", str)


class ApiKey(Value):
    """A key as recorded: `prefix` is its beginning, for people to recognise it. With a namespace it opens only that."""

    key_id: KeyId
    name: str
    prefix: str
    namespace_id: NamespaceId | None = None
    created_at: str
    revoked_at: str | None = None
