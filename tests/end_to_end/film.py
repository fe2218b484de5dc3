"""A video without an encoder: a WebM file whose frames are VP8 key frames, which is what Pillow writes into a WebP file.

The elements are those of RFC 9559 (Matroska) as far as WebM has them. Between its frames lie `Void` elements, so that a film of one colour
a second is as large as a real one, and a player cannot have all of it when somebody seeks.
"""

import io
import struct
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

Colour = tuple[int, int, int]
SIZE = (320, 180)


def write_film(path: Path, colours: Sequence[Colour], *, second_bytes: int) -> None:
    """A film that shows one colour a second and has so many bytes in each."""
    clusters = [_cluster(second, colour, second_bytes) for second, colour in enumerate(colours)]
    info = _element("1549A966", _number("2AD7B1", 1_000_000), _element("4489", struct.pack(">d", 1000.0 * len(colours))))
    video = _element("E0", _number("B0", SIZE[0]), _number("BA", SIZE[1]))
    track = _element("AE", _number("D7", 1), _number("73C5", 1), _number("83", 1), _element("86", b"V_VP8"), video)
    tracks = _element("1654AE6B", track)
    start = len(info) + len(tracks) + len(_cues(0, clusters))
    types = _number("4286", 1), _number("42F7", 1), _number("42F2", 4), _number("42F3", 8), _number("4287", 2), _number("4285", 2)
    head = _element("1A45DFA3", *types, _element("4282", b"webm"))
    path.write_bytes(head + _element("18538067", info, tracks, _cues(start, clusters), *clusters))


def _cluster(second: int, colour: Colour, size: int) -> bytes:
    block = _element("A3", b"\x81" + struct.pack(">h", 0) + b"\x80", _key_frame(colour))
    return _element("1F43B675", _number("E7", 1000 * second), block, _element("EC", bytes(size - len(block))))


def _cues(start: int, clusters: Sequence[bytes]) -> bytes:
    """Where each second begins, counted from the first byte of the segment's data."""
    points = []
    for second, cluster in enumerate(clusters):
        place = _element("B7", _number("F7", 1), _number("F1", start))
        points.append(_element("BB", _number("B3", 1000 * second), place))
        start += len(cluster)
    return _element("1C53BB6B", *points)


def _key_frame(colour: Colour) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", SIZE, colour).save(file, "WEBP", quality=80)
    data = file.getvalue()
    assert data[12:16] == b"VP8 ", "a lossy WebP without alpha has one VP8 frame"
    (size,) = struct.unpack("<I", data[16:20])
    return data[20 : 20 + size]


def _number(name: str, value: int) -> bytes:
    return _element(name, value.to_bytes(8))


def _element(name: str, *parts: bytes) -> bytes:
    data = b"".join(parts)
    return bytes.fromhex(name) + b"\x01" + len(data).to_bytes(7) + data
