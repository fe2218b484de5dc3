"""Change, add, delete and rename one file each: exactly their documents are touched. Over the embedded index and a real Weaviate."""

import shutil
from pathlib import Path

import pytest

from mixpeek_dagster.models.documents import Document
from mixpeek_dagster.pipeline.removal import space_of
from mixpeek_dagster.pipeline.search import search
from tests.end_to_end.home import ROOT, Home
from tests.weaviate_server import WeaviateServer

TEXTS = ROOT / "examples" / "library" / "texts" / "devils-dictionary"


def documents(home: Home) -> dict[str, Document]:
    """Every document by its file's path; each of these files makes one."""
    with home.warehouse.catalog.reading() as records:
        (collection,) = records.collections.all()
        found = records.documents.scan(collection.collection_id, limit=1_000)
    by_path = {document.payload["path"]: document for document in found}
    assert len(by_path) == len(found)
    return by_path


def library(folder: Path) -> Home:
    home = Home(folder)
    for file in sorted(TEXTS.glob("*.txt"))[:20]:
        shutil.copyfile(file, home.files / file.name)
    home.apply(
        {
            "namespace": "words",
            "buckets": {
                "files": {
                    "schema": {"properties": {"content": {"type": "text"}}},
                    "syncs": {"disk": {"provider": "local", "sync_config": {"source_path": str(home.files)}}},
                }
            },
            "collections": {
                "entries": {
                    "source": {"type": "bucket", "bucket_ids": ["files"]},
                    "feature_extractor": {
                        "feature_extractor_name": "text_extractor",
                        "version": "v1",
                        "parameters": {"split_by": "none"},
                        "field_passthrough": [{"source_path": "path"}],
                    },
                }
            },
        }
    )
    return home


def check_one_of_each(home: Home) -> None:
    home.command("run", "--now")
    before = documents(home)
    assert len(before) == 20
    changed, deleted, renamed, *rest = sorted(before)
    (home.files / changed).write_text("SUBMARINE, n. A vessel that a whale would be ashamed of.")
    (home.files / deleted).unlink()
    (home.files / renamed).rename(home.files / "renamed.txt")
    (home.files / "added.txt").write_text("ZEPPELIN, n. A cigar that carries passengers.")

    out = home.command("run", "--now").stdout

    after = documents(home)
    assert "2 new, 1 changed, 2 deleted" in out
    assert "2 inputs inferred, 1 reused" in out  # the renamed file is recognised by its content
    assert set(after) == {changed, "added.txt", "renamed.txt", *rest}
    for path in rest:
        assert after[path] == before[path]
    assert after[changed].content_hash != before[changed].content_hash
    assert after["renamed.txt"].memo_key == before[renamed].memo_key
    warehouse = home.warehouse
    with warehouse.catalog.reading() as records:
        (namespace,) = records.namespaces.all()
    found = search(warehouse, "a boat below the water", namespace_id=namespace.namespace_id, top_k=20)
    assert found[0].document.payload["path"] == changed
    assert {one.document.payload["path"] for one in found} == set(after)
    warehouse.close()
    home.command("verify")
    assert "nothing was inferred" in home.command("run", "--now").stdout


def test_one_file_of_each_kind_with_the_embedded_index(tmp_path: Path) -> None:
    check_one_of_each(library(tmp_path))


@pytest.mark.xdist_group("weaviate")
def test_one_file_of_each_kind_with_weaviate(tmp_path: Path, weaviate_server: WeaviateServer) -> None:
    home = library(tmp_path)
    home.env |= {
        "MIXPEEK_INDEX": "weaviate",
        "MIXPEEK_WEAVIATE_URL": weaviate_server.url,
        "MIXPEEK_WEAVIATE_GRPC_PORT": str(weaviate_server.grpc_port),
    }
    check_one_of_each(home)
    warehouse = home.warehouse
    with warehouse.catalog.reading() as records:
        (collection,) = records.collections.all()
    warehouse.index.drop(space_of(collection))
    warehouse.close()
    assert home.command("verify", check=False).returncode == 1
    assert "20 documents indexed" in home.command("reindex").stdout
    home.command("verify")
