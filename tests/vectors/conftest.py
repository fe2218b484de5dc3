"""Fixtures of the vector tests."""

from pathlib import Path

import pytest

from mixpeek_dagster.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, catalog_url=f"sqlite:///{tmp_path / 'catalog.db'}")
