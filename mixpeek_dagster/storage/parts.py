"""Parts of files: how one is asked of a server, and how a stream is cut to it where nobody else does."""

import io
from typing import BinaryIO, cast

READABLE = frozenset({200, 206, 416})
"""Statuses of an answer that `http.body_stream` can make a part of: whole, cut to it, or that the file ends before it."""


def range_header(start: int, length: int | None) -> dict[str, str]:
    """The header that asks for a part; none for a whole file."""
    if start == 0 and length is None:
        return {}
    return {"Range": f"bytes={start}-{'' if length is None else start + length - 1}"}


def cut(stream: io.RawIOBase, length: int | None) -> BinaryIO:
    """The next `length` bytes of a stream, buffered, or all that is left of it; closing it closes the stream."""
    raw = stream if length is None else _Cut(stream, length)
    return cast(BinaryIO, io.BufferedReader(raw, buffer_size=256 * 1024))


class _Cut(io.RawIOBase):
    def __init__(self, stream: io.RawIOBase, length: int) -> None:
        self._stream = stream
        self._left = length

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(cast(bytearray, buffer))[: self._left]
        read = self._stream.readinto(view) or 0
        self._left -= read
        return read

    def close(self) -> None:
        self._stream.close()
        super().close()
