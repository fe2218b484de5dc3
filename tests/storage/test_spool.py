"""Files on their way through: in memory or in a file without a name, and what happens when there is no room."""

import hashlib
import os
import tempfile
from pathlib import Path

import pytest

from mixpeek_dagster.errors import OutOfSpace
from mixpeek_dagster.extractors.content import Content
from mixpeek_dagster.storage.spool import Spool

BODY = bytes(range(256)) * 40


def spooled(in_memory: int, *, chunk: int = 1000) -> Spool:
    spool = Spool("Object obj_1: a.bin", in_memory=in_memory)
    for start in range(0, len(BODY), chunk):
        spool.write(BODY[start : start + chunk])
    return spool


@pytest.mark.parametrize("in_memory", [0, 999, 1000, len(BODY) - 1, len(BODY)])
def test_the_bytes_are_the_same_wherever_they_are(in_memory: int) -> None:
    spool = spooled(in_memory)
    held = spool.finish()
    assert isinstance(held, bytes) == (in_memory == len(BODY))
    assert (spool.size, spool.sha256) == (len(BODY), hashlib.sha256(BODY).digest())
    content = Content(held, "a.bin")
    assert (content.size, content.data) == (len(BODY), BODY)


def test_an_empty_file_is_held_in_memory() -> None:
    spool = Spool("Object obj_1: empty", in_memory=0)
    assert (spool.finish(), spool.sha256) == (b"", hashlib.sha256().digest())


def test_readers_of_one_file_have_places_of_their_own() -> None:
    content = Content(spooled(0).finish())
    with content.open() as one, content.open() as other:
        assert one.read(3) == BODY[:3]
        assert other.seek(-4, os.SEEK_END) == len(BODY) - 4
        assert other.read() == BODY[-4:]
        assert one.seek(2, os.SEEK_CUR) == 5
        assert one.read(2) == BODY[5:7]
        with pytest.raises(ValueError, match="before the start"):
            one.seek(-1)


def test_the_file_has_no_name_and_is_gone_with_its_readers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def held() -> int:
        files = [path.readlink() for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
        return sum(file.is_relative_to(tmp_path) for file in files)

    content = Content(spooled(0).finish())
    stream = content.open()
    assert list(tmp_path.iterdir()) == []
    assert held() > 0
    del content
    assert stream.read() == BODY
    del stream
    assert held() == 0


def test_a_full_folder_is_said_with_the_file_and_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: open("/dev/full", "r+b", buffering=0))  # noqa: SIM115
    with pytest.raises(OutOfSpace, match=r"Object obj_1: a\.bin: the temporary folder .* is full .* TMPDIR") as caught:
        spooled(5000)
    assert "MIXPEEK_SPILL_BYTES" in caught.value.message
