"""Schema versions of the catalog, forward only. Alembic runs them; it is imported only when there is something to run."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

HEAD = "0011"
_LOCK = 7_240_915_002  # any constant: Postgres advisory lock taken while migrating


def bring_up_to_date(engine: Engine, *, to: str = HEAD) -> None:
    """Run the missing migrations. Safe when several processes open a new catalog at once: the later ones wait and find it done."""
    if _version(engine) == to:
        return
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    with _without_foreign_keys(engine) as connection, connection.begin():
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        config.attributes["connection"] = connection
        command.upgrade(config, to)


@contextmanager
def _without_foreign_keys(engine: Engine) -> Iterator[Connection]:
    """A connection on which SQLite tables may be made anew, as Alembic does to change one; nothing that refers to them goes along."""
    with engine.connect() as connection:
        driver = connection.connection.dbapi_connection
        if connection.dialect.name != "sqlite" or driver is None:
            yield connection
            return
        driver.execute("PRAGMA foreign_keys=OFF")  # heeded only outside of a transaction
        try:
            yield connection
        finally:
            driver.execute("PRAGMA foreign_keys=ON")


def _version(engine: Engine) -> str | None:
    with engine.connect().execution_options(reading=True) as connection:
        try:
            version: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
        except DBAPIError as error:
            if "alembic_version" in str(error.orig):  # no such table: a new catalog
                return None
            raise
        return version
