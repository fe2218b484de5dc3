"""Open files below a folder and never outside of it, whatever symbolic links are put in the way while we do so."""

import errno
import os
import stat
from pathlib import Path

from mixpeek_dagster.errors import AccessDenied, ProviderDown

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_BACKWARDS = frozenset({b"", b".", b".."})
GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL, errno.ENXIO})
"""Errors that mean that there is no such regular file."""


def real_path_beneath(root: bytes, path: bytes) -> bytes | None:
    """The path with its links resolved; None when it leads out of `root` (itself a real path)."""
    real = os.path.realpath(path)
    return real if real == root or real.startswith(root.rstrip(b"/") + b"/") else None


def open_beneath(root: bytes, key: bytes) -> int:
    """A read-only descriptor of the regular file `root/key`.

    No component may be a link, except a last one that stays below `root`.

    Raises:
        FileNotFoundError: there is no such regular file below `root`.
        OSError: as `os.open`.
    """
    try:
        return _open_components(root, key)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
    parent, _, name = (root.rstrip(b"/") + b"/" + key).rpartition(b"/")
    target = real_path_beneath(root, parent + b"/" + name) if os.path.realpath(parent) == parent else None
    if target is None or target == root:
        raise FileNotFoundError(errno.ENOENT, "links out of its folder", os.fsdecode(key))
    return _open_components(root, target[len(root.rstrip(b"/")) + 1 :])


def _open_components(root: bytes, key: bytes) -> int:
    *folders, name = key.split(b"/")
    if name in _BACKWARDS or not _BACKWARDS.isdisjoint(folders) or b"\0" in key:
        raise FileNotFoundError(errno.ENOENT, "not a file below the folder", os.fsdecode(key))
    at = os.open(root, _FLAGS | os.O_DIRECTORY)
    try:
        for folder in folders:
            above, at = at, os.open(folder, _FLAGS | os.O_DIRECTORY, dir_fd=at)
            os.close(above)
        # O_NONBLOCK: opening a FIFO must not wait for its writer.
        found = os.open(name, _FLAGS | os.O_NONBLOCK, dir_fd=at)
    finally:
        os.close(at)
    if not stat.S_ISREG(os.fstat(found).st_mode):
        os.close(found)
        raise FileNotFoundError(errno.ENOENT, "not a regular file", os.fsdecode(key))
    return found


def translate(error: OSError, path: bytes) -> Exception:
    """What an `OSError` on `path` means for a source: refused, or down."""
    shown = os.fsdecode(path).encode("utf-8", "backslashreplace").decode()
    if error.errno in (errno.EACCES, errno.EPERM):
        return AccessDenied(f"{shown} may not be read by this process (uid {os.geteuid()}): give it read permission.")
    return ProviderDown(f"{shown} cannot be read: {error.strerror}. Is it mounted, and is its server up?")


def is_within(path: Path, roots: tuple[Path, ...]) -> bool:
    """Whether the real path is one of `roots` or below one; no roots means anywhere."""
    return not roots or any(path == root or root in path.parents for root in roots)
