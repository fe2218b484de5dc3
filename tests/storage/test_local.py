"""Files in local folders."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mixpeek_dagster.errors import AccessDenied, Changed, Invalid, ProviderDown
from mixpeek_dagster.settings import Settings
from mixpeek_dagster.storage.connect import open_source
from mixpeek_dagster.storage.local import LocalSource
from tests.storage.contract import ProviderContract, World, listing


def settings(tmp_path: Path, **values: object) -> Settings:
    return Settings(home=tmp_path, catalog_url="sqlite://", **values)  # type: ignore[arg-type]  # a test's keywords


def folder_world(folder: Path, source: LocalSource) -> World:
    def path(key: bytes) -> bytes:
        return os.path.join(os.fsencode(folder), key)

    def put(key: bytes, body: bytes) -> None:
        os.makedirs(os.path.dirname(path(key)), exist_ok=True)
        with open(path(key), "wb") as file:
            file.write(body)

    return World(source=source, put=put, delete=lambda key: os.remove(path(key)))


class TestLocal(ProviderContract):
    impossible = frozenset({"double slash", "parent", "self", "leading slash", "folder marker"})

    @pytest.fixture
    def world(self, tmp_path: Path) -> World:
        return folder_world(tmp_path, LocalSource(tmp_path))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def names(source: LocalSource) -> list[bytes]:
    return [entry.key for entry in listing(source)]


def test_links_to_files_are_followed_only_below_the_folder(folder: Path) -> None:
    outside = folder.parent / "secret.txt"
    outside.write_text("secret")
    (folder / "real.txt").write_text("real")
    (folder / "inside.txt").symlink_to("real.txt")
    (folder / "outside.txt").symlink_to(outside)
    (folder / "dangling.txt").symlink_to("nowhere")
    (folder / "loop").symlink_to(folder)
    (folder / "up").symlink_to(folder.parent)
    source = LocalSource(folder)

    assert names(source) == [b"inside.txt", b"real.txt"]
    with source.open(b"inside.txt") as stream:
        assert stream.read() == b"real"
    for key in (b"outside.txt", b"up/secret.txt", b"../secret.txt", b"dangling.txt", b"loop/real.txt", os.fsencode(outside)):
        assert source.head(key) is None
        with pytest.raises(FileNotFoundError), source.open(key):
            pass


def test_pipes_and_sockets_are_skipped_and_never_waited_for(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "socket"))
        source = LocalSource(folder)
        assert names(source) == []
        assert source.head(b"pipe") is None
        assert source.head(b"socket") is None


def test_a_missing_folder_is_down_and_not_empty(folder: Path) -> None:
    (folder / "a.txt").write_text("a")
    source = LocalSource(folder)
    shutil.rmtree(folder)
    with pytest.raises(ProviderDown, match="not mounted"):
        source.list_page()
    with pytest.raises(ProviderDown):
        source.head(b"a.txt")
    with pytest.raises(ProviderDown), source.open(b"a.txt"):
        pass
    with pytest.raises(ProviderDown):
        source.check()


def test_a_folder_that_goes_away_between_pages_is_down(folder: Path) -> None:
    for number in range(4):
        (folder / f"{number}.txt").write_text("x")
    source = LocalSource(folder)
    page = source.list_page(limit=2)
    shutil.rmtree(folder)
    with pytest.raises(ProviderDown):
        source.list_page(token=page.token, limit=2)


def test_an_unreadable_folder_is_an_error_that_names_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "closed").mkdir()
    scandir = os.scandir

    def refuse(path: bytes) -> object:
        if path.rstrip(b"/").endswith(b"closed"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr("mixpeek_dagster.storage.local.os.scandir", refuse)
    with pytest.raises(AccessDenied, match="closed"):
        LocalSource(folder).list_page()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become another user")
def test_permissions_hold_for_a_user_who_is_not_root(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = Path("/tmp") / f"mixpeek-permissions-{os.getpid()}"
    (folder / "closed").mkdir(parents=True)
    try:
        (folder / "closed" / "a.txt").write_text("a")
        (folder / "secret.txt").write_text("s")
        os.chmod(folder / "secret.txt", 0o600)
        script = f"""
import os
from pathlib import Path
from mixpeek_dagster.errors import AccessDenied
from mixpeek_dagster.storage.local import LocalSource
os.setresuid(65534, 65534, 65534)
source = LocalSource(Path({str(folder)!r}))
def denied(call):
    try:
        call()
    except AccessDenied as error:
        return str(error)
print(len(source.list_page().entries))
print(denied(lambda: source.open(b"secret.txt").__enter__()))
"""
        run = [sys.executable, "-c", script]
        found = subprocess.run(run, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": os.getcwd()})
        assert found.stdout.splitlines()[0] == "2"
        assert "secret.txt may not be read" in found.stdout
        os.chmod(folder / "closed", 0o700)
        closed = subprocess.run(run, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": os.getcwd()})
        assert "AccessDenied" in closed.stderr
    finally:
        shutil.rmtree(folder)


def test_an_edit_that_restores_the_modification_time_is_seen(folder: Path) -> None:
    file = folder / "a.txt"
    file.write_text("one")
    source = LocalSource(folder)
    (before,) = listing(source)
    status = file.stat()
    time.sleep(0.02)
    file.write_text("two")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    (after,) = listing(source)
    assert after.modified_at == before.modified_at
    assert after.etag != before.etag


def test_a_file_that_changes_while_it_is_read_is_changed(folder: Path) -> None:
    file = folder / "a.txt"
    file.write_bytes(b"x" * 100)
    reading = LocalSource(folder).open(b"a.txt")
    assert reading.__enter__().read(1) == b"x"
    file.write_bytes(b"y" * 99)
    with pytest.raises(Changed, match="while it was read"):
        reading.__exit__(None, None, None)


def test_an_error_of_the_reader_is_not_hidden_by_a_change(folder: Path) -> None:
    file = folder / "a.txt"
    file.write_bytes(b"x" * 100)

    def read() -> None:
        with LocalSource(folder).open(b"a.txt"):
            file.write_bytes(b"y")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        read()


def test_a_file_removed_during_the_walk_is_left_out(folder: Path) -> None:
    for number in range(6):
        (folder / f"{number}.txt").write_text("x")
    source = LocalSource(folder)
    page = source.list_page(limit=2)
    (folder / "4.txt").unlink()
    rest = listing(LocalSource(folder), after=page.entries[-1].key)
    kept = source.list_page(token=page.token, limit=10)
    assert [entry.key for entry in kept.entries] == [entry.key for entry in rest] == [b"2.txt", b"3.txt", b"5.txt"]


@pytest.mark.parametrize("path", ["/videos", "videos", "videos/", "/videos/"])
def test_a_source_path_is_below_the_connections_root(tmp_path: Path, path: str) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").write_text("x")
    source = open_source("local", {"root": str(tmp_path)}, source_path=path, settings=settings(tmp_path))
    assert [entry.key for entry in listing(source)] == [b"a.mp4"]
    assert source.uri == f"file://{tmp_path}/videos"
    assert source.location(b"a b.mp4") == f"file://{tmp_path}/videos/a%20b.mp4"


@pytest.mark.parametrize("path", ["../x", "/../x", "videos/../../x", "nul\0"])
def test_a_source_path_cannot_leave_the_root(tmp_path: Path, path: str) -> None:
    with pytest.raises(Invalid):
        open_source("local", {"root": str(tmp_path / "data")}, source_path=path, settings=settings(tmp_path))


def test_a_source_path_without_root_is_absolute(tmp_path: Path) -> None:
    assert open_source("local", {}, source_path=str(tmp_path), settings=settings(tmp_path)).uri == f"file://{tmp_path}"
    assert open_source("local", {}, source_path=f"file://{tmp_path}", settings=settings(tmp_path)).uri == f"file://{tmp_path}"
    with pytest.raises(Invalid, match="absolute"):
        open_source("local", {}, source_path="videos", settings=settings(tmp_path))


def test_only_the_operators_folders_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "closed").mkdir()
    (tmp_path / "open" / "link").symlink_to(tmp_path / "closed")
    limited = settings(tmp_path, local_roots=(tmp_path / "open",))
    open_source("local", {}, source_path=str(tmp_path / "open"), settings=limited).check()
    for path in (tmp_path, tmp_path / "closed", tmp_path / "open" / ".." / "closed", tmp_path / "open" / "link"):
        with pytest.raises(Invalid, match="MIXPEEK_LOCAL_ROOTS"):
            open_source("local", {}, source_path=str(path), settings=limited)


def test_a_folder_that_becomes_a_link_to_another_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open" / "data").mkdir(parents=True)
    (tmp_path / "closed").mkdir()
    limited = settings(tmp_path, local_roots=(tmp_path / "open",))
    source = open_source("local", {}, source_path=str(tmp_path / "open" / "data"), settings=limited)
    (tmp_path / "open" / "data").rmdir()
    (tmp_path / "open" / "data").symlink_to(tmp_path / "closed")
    with pytest.raises(AccessDenied):
        source.list_page()


def test_a_page_after_another_does_not_scan_its_folder_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(50):
        (folder / f"{number:03}.txt").write_text("x")
    calls = counted(monkeypatch, folder, "scandir")
    assert len(names_in_pages(LocalSource(folder), limit=5)) == 50
    assert calls == {"scandir": 1}


def counted(monkeypatch: pytest.MonkeyPatch, folder: Path, *names: str) -> Counter[str]:
    """How often the functions of `os` are called from now on for something in the folder."""
    calls: Counter[str] = Counter()

    def counting(name: str) -> Callable[..., Any]:
        call = getattr(os, name)

        def count(path: Any, *arguments: Any, **options: Any) -> Any:
            if not isinstance(path, int) and os.fsencode(path).startswith(os.fsencode(folder)):  # other threads call it too
                calls[name] += 1
            return call(path, *arguments, **options)

        return count

    for name in names:
        monkeypatch.setattr(f"mixpeek_dagster.storage.local.os.{name}", counting(name))
    return calls


def names_in_pages(source: LocalSource, *, limit: int) -> list[bytes]:
    """As a sync reads: each page after the last key of the one before."""
    found: list[bytes] = []
    after = None
    while True:
        page = source.list_page(after=after, limit=limit)
        found += [entry.key for entry in page.entries]
        if page.token is None:
            return found
        after = found[-1]


def test_a_listing_scans_each_folder_once_and_looks_up_no_file_by_its_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(1000):
        place = folder / f"d{number % 50}"
        place.mkdir(exist_ok=True)
        (place / f"f{number}.jpg").touch()
    source = LocalSource(folder)
    source.list_page(limit=1)
    calls = counted(monkeypatch, folder, "scandir", "stat", "lstat", "open")
    assert len(names(source)) == 1000
    assert calls == {"scandir": 51, "stat": 2}, "is the folder still there, when the page and when the walk begins"
