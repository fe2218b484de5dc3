"""Model packs by URI: read from where the operator and the rules of egress let this server read."""

from dataclasses import replace
from pathlib import Path

import pytest

from mixpeek_dagster.errors import ModelError, UrlRefused
from mixpeek_dagster.extractors.models import ModelStore
from mixpeek_dagster.pipeline.warehouse import Warehouse
from mixpeek_dagster.settings import Settings
from mixpeek_dagster.storage.model_files import read_model_file
from tests.storage.scripted import Answer, scripted


@pytest.mark.parametrize(
    "uri",
    [
        "http://127.0.0.1/pack/manifest.json",
        "http://169.254.169.254/latest/meta-data/manifest.json",
        "https://[::ffff:10.0.0.1]/pack/manifest.json",
        "https://example.com:9200/pack/manifest.json",
        "https://user:word@example.com/pack/manifest.json",
        "file:///etc/passwd",
        "/etc/passwd",
        "etc/passwd",
        "../../etc/passwd",
        "s3://bucket/pack/manifest.json",
        "local:///etc/passwd",
        "simplecache::file:///etc/passwd",
        "zip://manifest.json::http://127.0.0.1/pack.zip",
        "http://[",
    ],
)
def test_what_nobody_opened_is_refused(settings: Settings, uri: str) -> None:
    with pytest.raises(UrlRefused) as caught:
        next(read_model_file(uri, settings=settings))
    assert "word" not in caught.value.message.replace("password", "")


def test_an_allowed_host_is_read(settings: Settings) -> None:
    with scripted(lambda _asked: Answer(body=b"{}")) as server:
        opened = replace(settings, allowed_hosts=frozenset({server.host}))
        assert b"".join(read_model_file(f"{server.url}/pack/manifest.json", settings=opened)) == b"{}"
        with pytest.raises(UrlRefused):
            next(read_model_file(f"{server.url}/pack/manifest.json", settings=settings))
        assert len(server.asked) == 1


def test_a_folder_of_the_operator_is_read_and_none_beside_it(settings: Settings, tmp_path: Path) -> None:
    inside, outside = tmp_path / "models of mine", tmp_path / "secret"
    inside.mkdir()
    for folder in (tmp_path, inside):
        (folder / "secret").write_text("{}")
    (inside / "link").symlink_to(outside)
    opened = replace(settings, local_roots=(inside.resolve(),))
    for uri in (str(inside / "secret"), (inside / "secret").as_uri()):
        assert b"".join(read_model_file(uri, settings=opened)) == b"{}"
    for path in (outside, inside / ".." / "secret", inside / "link"):
        with pytest.raises((UrlRefused, FileNotFoundError)):
            next(read_model_file(str(path), settings=opened))


def test_another_protocol_is_read_when_the_operator_names_it(settings: Settings) -> None:
    import fsspec

    with fsspec.open("memory://pack/manifest.json", "wb") as stream:
        stream.write(b"{}")
    opened = replace(settings, fsspec_protocols=frozenset({"memory"}))
    assert b"".join(read_model_file("memory://pack/manifest.json", settings=opened)) == b"{}"


def test_a_warehouse_reads_packs_by_these_rules(warehouse: Warehouse) -> None:
    with pytest.raises(UrlRefused):
        warehouse.models.manifest("/etc/pack")


def test_a_manifest_without_end_is_not_held_in_memory(tmp_path: Path) -> None:
    pieces = (b"x" * 1024 for _ in iter(int, 1))
    with pytest.raises(ModelError, match="larger than"):
        ModelStore(tmp_path, download=lambda _: pieces).manifest("https://example.com/pack")


@pytest.mark.parametrize("pinned", ["zz", "../../etc", "0" * 63])
def test_a_pin_is_a_sha256(tmp_path: Path, pinned: str) -> None:
    with pytest.raises(ModelError, match="no sha256"):
        ModelStore(tmp_path).manifest(f"https://example.com/pack#sha256={pinned}")
