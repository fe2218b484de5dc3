"""Objects that nothing is made of, and stored searches"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"

TEXT = sa.String().with_variant(sa.String(collation="C"), "postgresql")
JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")


def upgrade() -> None:
    op.create_table(
        "disabled_objects",
        sa.Column("object_id", TEXT, sa.ForeignKey("objects.object_id", ondelete="CASCADE"), primary_key=True),
        sa.Column("lifecycle_state", TEXT, nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("created_at", TEXT, nullable=False),
    )
    op.create_table(
        "retrievers",
        sa.Column("retriever_id", TEXT, primary_key=True),
        sa.Column("namespace_id", TEXT, sa.ForeignKey("namespaces.namespace_id", ondelete="CASCADE"), nullable=False),
        sa.Column("retriever_name", TEXT, nullable=False),
        sa.Column("body", JSON, nullable=False),
        sa.Column("created_at", TEXT, nullable=False),
        sa.Column("updated_at", TEXT, nullable=False),
        sa.UniqueConstraint("namespace_id", "retriever_name"),
    )
