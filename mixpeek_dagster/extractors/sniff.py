"""Recognising a file by its first bytes, for messages that say what a wrong file is."""

_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"BM", "a BMP image"),
    (b"II*\0", "a TIFF image"),
    (b"MM\0*", "a TIFF image"),
    (b"%PDF-", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive or an Office document"),
    (b"\x1f\x8b", "gzip data"),
    (b"\x7fELF", "a program"),
    (b"OggS", "Ogg audio"),
    (b"ID3", "MP3 audio"),
    (b"\x1aE\xdf\xa3", "a Matroska or WebM video"),
    (b"<?xml", "XML"),
    (b"<svg", "an SVG drawing"),
    (b"<!DOCTYPE html", "a web page"),
)
LONGEST_MAGIC = 16
"""So many bytes tell as much as the whole file."""

_PLAIN = frozenset({"XML", "an SVG drawing", "a web page"})


def kind_of(data: bytes, *, plain: bool = False) -> str | None:
    """What the data looks like, as in "it looks like …", or None.

    Args:
        plain: also recognise formats that are readable text.
    """
    if data[:4] == b"RIFF":
        return {b"WEBP": "a WebP image", b"WAVE": "WAV audio", b"AVI ": "an AVI video"}.get(data[8:12])
    if data[4:8] == b"ftyp":
        return "an MP4 video or HEIF image"
    for magic, kind in _MAGIC:
        if data.startswith(magic) and (plain or kind not in _PLAIN):
            # Two letters are not enough to call a text that starts with "BM" an image; a bitmap has zeros in its header.
            return None if kind == "a BMP image" and b"\0" not in data[:16] else kind
    return None
