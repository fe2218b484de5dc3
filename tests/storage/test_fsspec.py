"""The general source, over fsspec's in-memory filesystem and local files."""

import os
import sys
import uuid
from pathlib import Path
from typing import Any

import fsspec
import pytest

from mixpeek_dagster.errors import AccessDenied, BadListing, Invalid, ProviderDown
from mixpeek_dagster.storage.connect import open_source
from tests.storage.contract import ProviderContract, World, listing
from tests.storage.worlds import allow


class TestMemory(ProviderContract):
    impossible = frozenset({"double slash", "parent", "self", "leading slash", "folder marker", "not utf-8"})

    @pytest.fixture
    def world(self) -> World:
        filesystem = fsspec.filesystem("memory")
        top = f"/{uuid.uuid4().hex}"
        filesystem.makedirs(top)
        source = open_source(
            "fsspec+memory", {}, source_path=f"memory:/{top}", settings=allow(fsspec_protocols=frozenset({"memory"}))
        )
        return World(
            source=source,
            put=lambda key, body: filesystem.pipe_file(f"{top}/{key.decode()}", body),
            delete=lambda key: filesystem.rm_file(f"{top}/{key.decode()}"),
        )


class TestFilesThroughFsspec(ProviderContract):
    impossible = frozenset({"double slash", "parent", "self", "leading slash", "folder marker", "not utf-8"})

    @pytest.fixture
    def world(self, tmp_path: Path) -> World:
        def put(key: bytes, body: bytes) -> None:
            path = tmp_path / os.fsdecode(key)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(body)

        source = open_source(
            "fsspec", {"protocol": "file"}, source_path=str(tmp_path), settings=allow(fsspec_protocols=frozenset({"file"}))
        )
        return World(source=source, put=put, delete=lambda key: (tmp_path / os.fsdecode(key)).unlink())


def test_protocols_are_closed_until_the_operator_opens_them() -> None:
    with pytest.raises(Invalid, match="MIXPEEK_FSSPEC_PROTOCOLS"):
        open_source("fsspec+memory", {}, source_path="memory://x", settings=allow())
    settings = allow(fsspec_protocols=frozenset({"simplecache"}))
    with pytest.raises(Invalid, match="chains"):
        open_source("fsspec+simplecache", {}, source_path="simplecache::file:///etc", settings=settings)


def test_a_filesystem_that_is_not_there_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = allow(fsspec_protocols=frozenset({"sftp", "nosuch"}))
    with pytest.raises(Invalid, match="not known: nosuch"):
        open_source("fsspec+nosuch", {}, source_path="nosuch://x", settings=settings)
    monkeypatch.setitem(sys.modules, "paramiko", None)
    monkeypatch.delitem(sys.modules, "fsspec.implementations.sftp", raising=False)
    with pytest.raises(Invalid, match="paramiko"):
        open_source("fsspec+sftp", {"credentials": {"password": "x"}}, source_path="sftp://x", settings=settings)


def test_what_a_filesystem_refuses_does_not_show_its_options() -> None:
    settings = allow(fsspec_protocols=frozenset({"memory", "dir"}))
    with pytest.raises(Invalid) as raised:
        open_source("fsspec+dir", {"options": {"target_protocol": "PRIVATE"}}, source_path="x", settings=settings)
    assert "PRIVATE" not in str(raised.value)


def test_a_missing_folder_is_down_and_not_empty() -> None:
    source = open_source(
        "fsspec+memory", {}, source_path="memory://nowhere-at-all", settings=allow(fsspec_protocols=frozenset({"memory"}))
    )
    with pytest.raises(ProviderDown):
        listing(source)
    with pytest.raises(ProviderDown):
        source.head(b"a.txt")


def test_failures_of_the_filesystem_are_translated(monkeypatch: pytest.MonkeyPatch) -> None:
    filesystem = fsspec.filesystem("memory")
    filesystem.pipe_file("/translated/a.txt", b"x")
    settings = allow(fsspec_protocols=frozenset({"memory"}))
    source = open_source("fsspec+memory", {}, source_path="memory://translated", settings=settings)

    def fail_with(error: Exception) -> None:
        def fail(*_arguments: object, **_options: object) -> None:
            raise error

        monkeypatch.setattr(type(filesystem), "ls", fail)

    fail_with(PermissionError("secret"))
    with pytest.raises(AccessDenied):
        listing(source)
    fail_with(RuntimeError("secret"))
    with pytest.raises(ProviderDown) as raised:
        listing(source)
    assert "secret" not in str(raised.value)


A_FILE = {"name": "/odd/a.txt", "type": "file", "size": 1}
ODD: list[Any] = [
    [{"type": "file", "size": 1}],
    [{**A_FILE, "name": None}],
    [{**A_FILE, "name": "/"}],
    [{**A_FILE, "type": "directory", "name": ""}],
    [{**A_FILE, "size": "large"}],
    [{**A_FILE, "size": float("inf")}],
    ["/odd/a.txt"],
    None,
]


@pytest.mark.parametrize("infos", ODD, ids=str)
def test_a_filesystem_that_describes_its_files_oddly_is_a_bad_listing(infos: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = allow(fsspec_protocols=frozenset({"memory"}))
    source = open_source("fsspec+memory", {}, source_path="memory://odd", settings=settings)
    monkeypatch.setattr(type(fsspec.filesystem("memory")), "ls", lambda *_arguments, **_options: infos)
    with pytest.raises(BadListing, match=r"fsspec\+memory://odd"):
        listing(source)


@pytest.mark.parametrize("info", [{**A_FILE, "size": "large"}, "/odd/a.txt", None], ids=str)
def test_a_filesystem_that_describes_one_file_oddly_is_down(info: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = allow(fsspec_protocols=frozenset({"memory"}))
    source = open_source("fsspec+memory", {}, source_path="memory://odd", settings=settings)
    monkeypatch.setattr(type(fsspec.filesystem("memory")), "info", lambda *_arguments, **_options: info)
    with pytest.raises(ProviderDown, match=r"fsspec\+memory://odd/a.txt"):
        source.head(b"a.txt")
