"""Files on their way through: hashed as they come, small ones in memory, large ones in a temporary file without a name.

Such a file is gone with its last reader, or with the process, whatever ends it.
"""

import errno
import hashlib
import tempfile
from typing import BinaryIO, cast

from mixpeek_dagster.errors import Invalid, OutOfSpace

CHUNK = 1024 * 1024
IN_MEMORY = 8 * CHUNK
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class Spool:
    """Takes the bytes of one file. `size` and `sha256` are those of what came so far."""

    def __init__(self, what: str, *, in_memory: int) -> None:
        """`what` is named in errors; up to `in_memory` bytes stay in memory."""
        self.size = 0
        self._what = what
        self._in_memory = in_memory
        self._parts: list[bytes] = []
        self._file: BinaryIO | None = None
        self._sha256 = hashlib.sha256()

    @property
    def sha256(self) -> bytes:
        return self._sha256.digest()

    def write(self, chunk: bytes) -> None:
        """Raises OutOfSpace when the temporary folder is full."""
        self.size += len(chunk)
        self._sha256.update(chunk)
        if self.size <= self._in_memory:
            self._parts.append(chunk)
            return
        try:
            if self._file is None:
                self._file = cast(BinaryIO, tempfile.TemporaryFile(buffering=0, prefix="mixpeek-"))  # noqa: SIM115 - it is kept
                for part in self._parts:
                    _write(self._file, part)
                self._parts = []
            _write(self._file, chunk)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            raise OutOfSpace(
                f"{self._what}: the temporary folder {tempfile.gettempdir()} is full after {self.size} bytes of the file. Make room "
                "there, set TMPDIR to a folder with more, or raise MIXPEEK_SPILL_BYTES to keep larger files in memory."
            ) from error

    def finish(self) -> bytes | BinaryIO:
        """What came, in memory or as a file; nothing may be written any more."""
        return b"".join(self._parts) if self._file is None else self._file

    def reopen(self) -> bytes | BinaryIO:
        """As `finish`, to be read from the start: each time that it is sent."""
        kept = self.finish()
        if not isinstance(kept, bytes):
            kept.seek(0)
        return kept


def spool(source: BinaryIO, what: str, *, limit: int) -> Spool:
    """All of a stream, so that it can be sent with its length, and again. Raises Invalid: it has more than `limit` bytes."""
    spooled = Spool(what, in_memory=IN_MEMORY)
    for chunk in iter(lambda: source.read(CHUNK), b""):
        if spooled.size + len(chunk) > limit:
            raise Invalid(f"The file has more than the {limit} bytes allowed.")
        spooled.write(chunk)
    return spooled


def _write(file: BinaryIO, chunk: bytes) -> None:
    left = memoryview(chunk)
    while left:
        left = left[file.write(left) :]
