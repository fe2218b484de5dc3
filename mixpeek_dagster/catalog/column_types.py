"""Types of columns, the same on both databases."""

from sqlalchemy import JSON, String, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator, TypeEngine

from mixpeek_dagster.models.values import storable

Json: TypeEngine[object] = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
# Text that compares by bytes on both databases: Postgres would use the locale of the cluster.
Bytewise: TypeEngine[str] = String().with_variant(String(collation="C"), "postgresql")


class Words(TypeDecorator[str]):
    """Text for people, which may quote what came from anywhere: what no database holds is escaped, so that it can be recorded."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else storable(value)
