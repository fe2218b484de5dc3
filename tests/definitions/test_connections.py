"""Syncs that go where a project's dagster-aws and dagster-gcp resources go, against real servers."""

import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import dagster as dg
import pytest
from typer.testing import CliRunner

from mixpeek_dagster.cli import app
from mixpeek_dagster.definitions.connections import sync_of, with_resources
from mixpeek_dagster.errors import Invalid
from mixpeek_dagster.pipeline.manifest import Manifest, apply
from mixpeek_dagster.pipeline.syncs import Progress, advance
from mixpeek_dagster.pipeline.warehouse import Warehouse
from tests.pipeline.worlds import Library
from tests.servers import S3Server, s3_client


@pytest.fixture
def aws() -> Any:
    return pytest.importorskip("dagster_aws.s3", reason="pip install 'mixpeek-dagster[aws]'")


@pytest.fixture
def gcp() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Google's packages announce what they will require next year
        return pytest.importorskip("dagster_gcp", reason="pip install 'mixpeek-dagster[gcp]'")


def manifest(**syncs: Any) -> Manifest:
    schema = {"properties": {"content": {"type": "text"}}}
    return Manifest.model_validate({"namespace": "shelf", "buckets": {"files": {"schema": schema, "syncs": syncs}}})


def passed(warehouse: Warehouse) -> Progress:
    """A pass of the only sync there is."""
    with warehouse.catalog.reading() as records:
        (sync,) = records.syncs.all()
    progress = advance(warehouse, sync.sync_id, budget_s=30, force=True)
    assert progress is not None
    return progress


def server_with_a_file(server: S3Server, bucket: str) -> None:
    client = s3_client(server)
    client.create_bucket(Bucket=bucket)
    client.put_object(Bucket=bucket, Key="texts/a.txt", Body=b"one")


def test_an_s3_resource_is_a_connection_and_its_variables_stay_references(
    aws: Any, library: Library, seaweedfs: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server_with_a_file(seaweedfs, "resource")
    monkeypatch.setenv("MIXPEEK_TEST_SECRET", seaweedfs.secret_access_key)
    s3 = aws.S3Resource(
        region_name=seaweedfs.region,
        endpoint_url=seaweedfs.url,
        aws_access_key_id=seaweedfs.access_key_id,
        aws_secret_access_key=dg.EnvVar("MIXPEEK_TEST_SECRET"),
    )
    body = sync_of(s3, bucket="resource")
    assert body["connection"]["credentials"]["secret_access_key"] == {"env": "MIXPEEK_TEST_SECRET"}
    library.with_settings(allowed_hosts=frozenset({seaweedfs.host}))
    remove_syncs(library.warehouse)
    apply(library.warehouse, manifest(films={**body, "sync_config": {"source_path": "/texts/"}}))
    assert passed(library.warehouse).counters.new == 1
    monkeypatch.setenv("MIXPEEK_TEST_SECRET", "changed")
    library.warehouse._sources.clear()
    assert "403" in (passed(library.warehouse).error or "")


def remove_syncs(warehouse: Warehouse) -> None:
    with warehouse.catalog.transaction() as records:
        for sync in records.syncs.all():
            records.syncs.remove(sync.sync_id)


def test_a_resource_is_named_in_yaml(
    aws: Any, library: Library, moto: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server_with_a_file(moto, "yaml-resource")
    project = ModuleType("a_project")
    project.s3 = aws.S3Resource(  # type: ignore[attr-defined]
        region_name=moto.region,
        endpoint_url=moto.url,
        aws_access_key_id=moto.access_key_id,
        aws_secret_access_key=moto.secret_access_key,
    )
    monkeypatch.setitem(sys.modules, "a_project", project)
    monkeypatch.setenv("MIXPEEK_HOME", str(library.warehouse.settings.home))
    monkeypatch.setenv("MIXPEEK_ALLOWED_HOSTS", moto.host)
    monkeypatch.delenv("MIXPEEK_CATALOG_URL", raising=False)
    remove_syncs(library.warehouse)
    file = tmp_path / "warehouse.yaml"
    file.write_text(
        """
namespace: shelf
buckets:
  files:
    schema: {properties: {content: {type: text}}}
    syncs:
      films: {connection: {resource: "a_project:s3", bucket: yaml-resource}, sync_config: {source_path: /texts/}}
"""
    )
    result = CliRunner().invoke(app, ["apply", str(file)], catch_exceptions=False)
    assert "made sync films" in result.output
    library.with_settings(allowed_hosts=frozenset({moto.host}))
    assert passed(library.warehouse).counters.new == 1


def test_a_gcs_resource_is_a_connection(gcp: Any, library: Library, fake_gcs: str) -> None:
    import urllib.request

    for url, data in (
        (f"{fake_gcs}/storage/v1/b", b'{"name": "resource"}'),
        (f"{fake_gcs}/upload/storage/v1/b/resource/o?uploadType=media&name=a.txt", b"one"),
    ):
        request = urllib.request.Request(url, data=data, headers={"Content-Type": "application/json"})
        urllib.request.urlopen(request).close()
    library.with_settings(allowed_hosts=frozenset({fake_gcs.removeprefix("http://")}))
    remove_syncs(library.warehouse)
    body = sync_of(gcp.GCSResource(project="test"), bucket="resource", endpoint_url=fake_gcs)
    apply(library.warehouse, manifest(films={**body, "sync_config": {"source_path": "/"}}))
    assert passed(library.warehouse).counters.new == 1


def test_what_cannot_be_a_connection_says_so(aws: Any) -> None:
    with pytest.raises(Invalid, match="profile_name"):
        sync_of(aws.S3Resource(profile_name="me"))
    with pytest.raises(Invalid, match=r"NOWHERE_SET.* is not set"):
        sync_of(aws.S3Resource(aws_access_key_id=dg.EnvVar("NOWHERE_SET")))
    with pytest.raises(Invalid, match=r"dagster_aws\.S3Resource"):
        sync_of(object())
    with pytest.raises(Invalid, match=r"package\.module:attribute"):
        with_resources(manifest(films={"connection": {"resource": "nowhere.at_all:s3"}}))
    made = with_resources(manifest(films={"connection": aws.S3Resource(region_name="eu-west-1")}))
    assert made.buckets["files"].syncs["films"]["connection"]["region"] == "eu-west-1"
