"""Content types by file extension, the same on every machine (the system's own tables are not read)."""

import mimetypes

_TABLE = mimetypes.MimeTypes()
for _extension, _type in {
    ".aac": "audio/aac",
    ".avif": "image/avif",
    ".flac": "audio/flac",
    ".heic": "image/heic",
    ".heif": "image/heif",
    ".jsonl": "application/jsonl",
    ".m4a": "audio/mp4",
    ".m4v": "video/mp4",
    ".md": "text/markdown",
    ".mkv": "video/x-matroska",
    ".ndjson": "application/jsonl",
    ".ogg": "audio/ogg",
    ".opus": "audio/ogg",
    ".parquet": "application/vnd.apache.parquet",
    ".wav": "audio/wav",
    ".webm": "video/webm",
    ".webp": "image/webp",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
}.items():
    _TABLE.add_type(_type, _extension)

_BY_EXTENSION = {extension[1:].encode(): kind for extension, kind in _TABLE.types_map[True].items()}


def guess_content_type(key: bytes) -> str:
    """The content type that the key's extension stands for; empty when there is none or it is unknown."""
    _, dot, extension = key[-16:].rpartition(b".")
    return _BY_EXTENSION.get(extension.lower(), "") if dot else ""
