"""Files whose names, sizes or marks no database holds as they are: they become documents where they can, and fail alone where not."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mixpeek_dagster.catalog.syncs import KeyState, SourceKey
from mixpeek_dagster.errors import ProviderDown
from mixpeek_dagster.models.objects import ObjectStatus
from mixpeek_dagster.pipeline.blob_files import find_blob
from mixpeek_dagster.pipeline.browsing import look_into
from mixpeek_dagster.pipeline.creation import create_sync
from mixpeek_dagster.pipeline.verification import verify
from mixpeek_dagster.settings import Settings
from mixpeek_dagster.storage.http import Backoff
from mixpeek_dagster.storage.provider import Entry
from tests.pipeline.worlds import NOW, Clock, Library, opened_library
from tests.storage.scripted import Answer, Asked, scripted
from tests.storage.test_s3_adversarial import error_xml, page_xml

ODD = {
    b"\xff\xfe.txt": "%FF%FE.txt",
    b"caf\xe9/men\xfc.txt": "caf%E9/men%FC.txt",
    b"with\x00nul.txt": "with%00nul.txt",
    b"half a pair \xed\xa0\xbd.txt": "half a pair %ED%A0%BD.txt",
    "caf\u00e9 \U0001f600 \xff.txt".encode() + b"\x80.txt": "caf\u00e9 \U0001f600 \xff.txt%80.txt",
}
"""Keys that no database holds as text, and the paths of their objects."""


@pytest.fixture
def library(settings: Settings, clock: Clock, catalog_url: str) -> Iterator[Library]:
    """As the usual one, on SQLite and on Postgres."""
    with opened_library(replace(settings, catalog_url=catalog_url), clock) as library:
        yield library


def follow(library: Library, provider: str, connection: dict[str, Any], source_path: str) -> None:
    with library.warehouse.catalog.transaction() as records:
        body = {"provider": provider, "connection": connection, "sync_config": {"source_path": source_path}}
        library.sync = create_sync(records, body, warehouse=library.warehouse, bucket=library.bucket, now=NOW)


def follow_s3(library: Library, url: str) -> None:
    library.with_settings(allowed_hosts=frozenset({"127.0.0.1"}))
    keys = {"access_key_id": "AKIATEST", "secret_access_key": "do-not-show"}
    follow(library, "s3", {"endpoint_url": url, "bucket": "b", "credentials": keys}, "/")
    library.warehouse.source(library.sync)._http.backoff = Backoff(sleep=lambda _: None)  # type: ignore[attr-defined]


def contents(library: Library) -> dict[str, bytes]:
    """What is read of every object's file, by path."""
    found = {}
    for path, stored in library.objects().items():
        with find_blob(library.warehouse, stored.object_id, 0).open() as stream:
            found[path] = stream.read()
    return found


def dead_letters(library: Library) -> list[SourceKey]:
    with library.warehouse.catalog.reading() as records:
        return records.syncs.dead_letters(library.sync.sync_id, [KeyState.REJECTED])[0]


@pytest.mark.parametrize("order", ["bytes", "shuffled"])
def test_files_whose_names_no_database_holds_become_documents(library: Library, order: Any) -> None:
    library.world.order = order
    library.world.page_size = 3
    for number, key in enumerate([*ODD, b"ok.txt", b"%FF.txt"]):
        library.world.put(key, b"x" * (number + 1))
    assert library.cycle().error is None
    assert len(library.documents()) == len(ODD) + 2
    assert library.object_statuses() == {ObjectStatus.COMPLETED}
    wanted = {path: library.world.files[key][1] for key, path in ODD.items()}
    assert contents(library) == {**wanted, "ok.txt": b"x" * (len(ODD) + 1), "%FF.txt": b"x" * (len(ODD) + 2)}
    filenames = {stored.fields["filename"] for stored in library.objects().values()}
    assert filenames == {path.rpartition("/")[2] for path in (*ODD.values(), "ok.txt", "%FF.txt")}

    assert library.cycle().counters.unchanged == len(ODD) + 2, "they are known again"
    library.assert_exact()
    library.world.hidden = {*ODD}
    named = [name.partition(": ")[2] for check in verify(library.warehouse) for name in check.examples]
    assert sorted(named) == sorted(ODD.values()), "a terminal can print them"
    library.world.hidden = set()
    first, second, *_ = ODD
    library.world.put(first, b"edited")
    library.world.delete(second)
    counters = library.cycle().counters
    assert (counters.changed, counters.deleted, counters.new) == (1, 1, 0)
    assert contents(library)[ODD[first]] == b"edited"
    assert ODD[second] not in library.objects()


def test_a_local_file_whose_name_is_not_utf8_becomes_a_document(library: Library, tmp_path: Path) -> None:
    folder = tmp_path / "src"
    folder.mkdir()
    (folder / "ok.txt").write_bytes(b"fine")
    with open(bytes(folder) + b"/\xff\xfe.txt", "wb") as file:
        file.write(b"odd")
    follow(library, "local", {}, str(folder))
    assert library.cycle().counters.new == 2
    assert contents(library) == {"%FF%FE.txt": b"odd", "ok.txt": b"fine"}
    assert library.object_statuses() == {ObjectStatus.COMPLETED}
    assert library.cycle().counters.unchanged == 2


def test_an_s3_key_is_asked_for_with_the_bytes_that_were_listed(library: Library) -> None:
    listed = ["f%00.txt", "f%FF.txt", "ok.txt"]
    there = set(listed)

    def answer(asked: Asked) -> Answer:
        if "list-type" in asked.query:
            return Answer(200, page_xml([name for name in listed if name in there]))
        name = asked.path.rpartition("/")[2]
        return Answer(200, b"odd", {"ETag": '"e1"'}) if name in there else Answer(404, error_xml("NoSuchKey"))

    with scripted(answer) as server:
        follow_s3(library, server.url)
        assert library.cycle().counters.new == 3
        assert contents(library) == dict.fromkeys(listed, b"odd")
        assert library.object_statuses() == {ObjectStatus.COMPLETED}
        there.discard("f%FF.txt")
        assert library.cycle().counters.deleted == 1
        assert sorted(library.objects()) == ["f%00.txt", "ok.txt"]


def test_what_is_said_of_a_key_with_a_nul_is_recorded(library: Library) -> None:
    def answer(asked: Asked) -> Answer:
        if "list-type" in asked.query:
            return Answer(200, page_xml(["f%00.txt"]))
        return Answer(403, error_xml("AccessDenied"))

    with scripted(answer) as server:
        follow_s3(library, server.url)
        library.cycle()
    (stored,) = library.objects().values()
    assert stored.status is ObjectStatus.FAILED
    assert "grant s3:ListBucket and s3:GetObject" in str(stored.error)


def test_an_error_is_recorded_whatever_it_quotes(library: Library) -> None:
    def refuse(_: str) -> None:
        raise ProviderDown("The provider said \x00 and \udcff.")

    library.world.before = refuse
    assert library.poll().error is not None
    assert library.now().last_error == "The provider said %00 and %FF."


@pytest.mark.parametrize("size", ["99999999999999999999999", str(2**63), "-5"])
def test_a_size_that_cannot_be_true_fails_alone(library: Library, size: str) -> None:
    page = re.sub(rb"<Size>\d+</Size>", f"<Size>{size}</Size>".encode(), page_xml(["f0.txt", "f1.txt"]), count=1)
    with scripted(lambda _: Answer(200, page)) as server:
        follow_s3(library, server.url)
        counters = library.poll().counters
        assert (counters.new, counters.failed, counters.bytes) == (1, 1, 3)
        (letter,) = dead_letters(library)
        assert (letter.key, letter.object_id) == (b"f0.txt", None)
        assert "f0.txt" in str(letter.error) and "size" in str(letter.error)
        counters = library.poll().counters
        assert (counters.unchanged, counters.failed, counters.bytes) == (2, 0, 3), "it is not tried again as long as it stays so"


@pytest.mark.parametrize("mark", [{"etag": "a\x00b"}, {"etag": "\ud83d"}, {"version": "1\x00"}], ids=ascii)
def test_a_revision_mark_that_no_database_holds_fails_alone(library: Library, mark: dict[str, str]) -> None:
    library.world.put("a.txt", b"a")
    library.world.put("b.txt", b"b")
    entry, data = library.world.files[b"a.txt"]
    library.world.files[b"a.txt"] = entry._replace(**mark), data  # type: ignore[arg-type]
    counters = library.poll().counters
    assert (counters.new, counters.failed) == (1, 1)
    assert "'a.txt'" in str(dead_letters(library)[0].error)
    assert library.poll().counters.unchanged == 2
    of_source, *_ = verify(library.warehouse)
    assert (of_source.failed, of_source.stale) == (1, 0)
    library.world.files[b"a.txt"] = entry, data
    assert library.poll().counters.new == 1
    library.assert_follows_source()


def test_what_only_describes_a_file_does_not_keep_it_out(library: Library) -> None:
    library.world.put("a.txt", b"a", modified_at=float("nan"))
    library.world.put("b.txt", b"b")
    entry, data = library.world.files[b"b.txt"]
    library.world.files[b"b.txt"] = entry._replace(content_type="text/\x00plain"), data
    library.world.files[b"notes"] = Entry(b"notes", 1, "e", content_type="text/plain; x=\ud83d"), b"n"
    assert library.poll().error is None
    assert set(library.objects()) == {"a.txt", "b.txt", "notes"}
    assert library.poll().counters.unchanged == 3


@pytest.mark.parametrize("value", ['"\\u0000"', '"\\ud83d"', "NaN", "1e999", "[" * 500 + "]" * 500], ids=ascii)
def test_a_mapped_value_that_no_database_holds_fails_alone(library: Library, value: str) -> None:
    said = {"target_type": "field", "source": {"type": "filename_regex", "pattern": r"^=(.*)\.txt$"}, "transform": "json_parse"}
    library.configure(schema_mapping={"mappings": {"said": {**said, "source": {"type": "folder_path", "segment": 0}}}})
    library.world.put(f"{value}/a.txt", b"a")
    library.world.put(f"{json.dumps('fine')}/b.txt", b"b")
    counters = library.poll().counters
    assert (counters.new, counters.failed) == (1, 1)
    assert "said" in str(dead_letters(library)[0].error)
    assert [one.fields["said"] for one in library.objects().values()] == ["fine"]
    assert library.poll().counters.unchanged == 2


def test_a_connection_is_looked_into_whatever_its_files_are_called(library: Library) -> None:
    for key in (*ODD, b"ok.txt"):
        library.world.put(key, b"x")
    found = look_into(library.warehouse, library.sync.connection_id, "/")
    assert [one.name for one in found.files] == sorted(path for path in (*ODD.values(), "ok.txt") if "/" not in path)
    assert found.folders == ["caf%E9"]
