"""What extractors read: a file's bytes, in memory or, when there are many, in a temporary file."""

import io
import os
from dataclasses import dataclass
from typing import BinaryIO, cast


@dataclass(frozen=True, slots=True)
class Content:
    """The bytes (or the inline text) behind one extractor input.

    A large file is in no memory until it is asked for: `data` reads it whole, `open` piece by piece.

    Attributes:
        held: the bytes, or an open file of the same lifetime that holds nothing else.
    """

    held: bytes | BinaryIO
    filename: str = ""
    mime_type: str = ""

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.held) if isinstance(self.held, bytes) else os.fstat(self.held.fileno()).st_size

    @property
    def data(self) -> bytes:
        """All bytes; of a large file a new copy each time."""
        if isinstance(self.held, bytes):
            return self.held
        with self.open() as stream:
            return stream.read(self.size)  # in one piece; without a size it would grow in small ones

    def open(self) -> BinaryIO:
        """A seekable stream with a place of its own."""
        if isinstance(self.held, bytes):
            return io.BytesIO(self.held)
        return cast(BinaryIO, io.BufferedReader(_Reader(self.held), buffer_size=256 * 1024))


class _Reader(io.RawIOBase):
    """Reads a file from a place of its own, whoever else reads it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file  # open for as long as somebody reads it
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        read = os.preadv(self._file.fileno(), [cast(bytearray, buffer)], self._place)
        self._place += read
        return read

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._place}.get(whence, os.fstat(self._file.fileno()).st_size)
        if start + offset < 0:
            raise ValueError("There is nothing before the start of a file.")
        self._place = start + offset
        return self._place

    def tell(self) -> int:
        return self._place
