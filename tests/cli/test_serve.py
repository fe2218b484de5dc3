"""`mixpeek-dagster serve` does not start with settings that cannot work."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from mixpeek_dagster.cli import app
from mixpeek_dagster.errors import Invalid


def test_a_blob_store_that_cannot_sign_ends_the_start_before_a_key_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIXPEEK_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MIXPEEK_BLOBS", "gs://bucket/prefix")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    monkeypatch.delenv("MIXPEEK_CATALOG_URL", raising=False)
    with pytest.raises(Invalid, match="GOOGLE_APPLICATION_CREDENTIALS"):
        CliRunner().invoke(app, ["serve"], catch_exceptions=False)
    assert not (tmp_path / "home").exists()
