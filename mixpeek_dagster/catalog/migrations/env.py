"""What Alembic runs: the migrations, on the connection `bring_up_to_date` opened."""

from alembic import context

from mixpeek_dagster.catalog.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
