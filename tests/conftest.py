"""Fixtures, named by how much of a world they bring: a `clock`, `settings`, a `catalog`, a `warehouse`, a whole `library`."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

pytest.register_assert_rewrite("tests.storage.contract", "tests.vectors.contract")  # before anything imports them

from mixpeek_dagster.catalog import Catalog
from mixpeek_dagster.errors import AccessDenied
from mixpeek_dagster.models.namespaces import Namespace
from mixpeek_dagster.pipeline.warehouse import Warehouse
from mixpeek_dagster.settings import Settings
from mixpeek_dagster.storage.provider import Entry
from mixpeek_dagster.testing import FakeIndex, FakeSource
from tests.pipeline.worlds import Clock, Library, emptied, make_namespace

hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")
pytest_plugins = ["tests.servers", "tests.postgres", "tests.weaviate_server", "tests.sdk"]


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still until it is moved."""
    return Clock()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings of an empty warehouse with everything in one SQLite file."""
    return Settings(home=tmp_path / "home", catalog_url=f"sqlite:///{tmp_path / 'home' / 'catalog.db'}", threads=1)


@pytest.fixture(params=["sqlite", "postgres"])
def catalog_url(request: pytest.FixtureRequest, settings: Settings) -> str:
    """A catalog's URL on each database; the one on Postgres is emptied before every test."""
    if request.param == "sqlite":
        return settings.catalog_url
    return emptied(request.getfixturevalue("postgres_url"))


@pytest.fixture
def catalog(catalog_url: str) -> Iterator[Catalog]:
    """An empty catalog, on SQLite and on Postgres."""
    opened = Catalog(catalog_url)
    yield opened
    opened.close()


@pytest.fixture
def namespace(catalog: Catalog) -> Namespace:
    """A namespace in `catalog`."""
    with catalog.transaction() as records:
        return make_namespace(records)


@pytest.fixture(scope="session")
def empty_catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a catalog with nothing in it: copying it is quicker than making one."""
    file = tmp_path_factory.mktemp("empty") / "catalog.db"
    Catalog(f"sqlite:///{file}").close()
    return file


@pytest.fixture
def warehouse(settings: Settings, clock: Clock, empty_catalog: Path) -> Iterator[Warehouse]:
    """An empty warehouse on SQLite."""
    settings.home.mkdir()
    shutil.copy(empty_catalog, settings.home / "catalog.db")
    opened = Warehouse(settings=settings, clock=clock)
    yield opened
    opened.close()


@pytest.fixture
def library(warehouse: Warehouse, clock: Clock) -> Iterator[Library]:
    """A namespace with a bucket that follows a source in memory, and a collection over it."""
    FakeSource.worlds.clear()
    FakeIndex.reset()
    yield Library(warehouse, clock)
    FakeSource.worlds.clear()
    FakeIndex.reset()


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Refuse to be asked for the files whose names begin so; of none, once more for an empty name."""
    original, closed = FakeSource.head, [""]

    def head(self: FakeSource, key: bytes) -> Entry | None:
        if closed[0] and key.startswith(closed[0].encode()):
            raise AccessDenied(f"403 on {key.decode()}")
        return original(self, key)

    monkeypatch.setattr(FakeSource, "head", head)
    return lambda name: closed.__setitem__(0, name)
