"""Where model packs come from: built here under a short name, or fetched by URI; kept in one folder, shared by all processes.

A pack appears in the folder complete and checked, or not at all. Two processes may ask for it at once; one of them makes it.
"""

import contextlib
import hashlib
import os
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mixpeek_dagster.errors import ModelError
from mixpeek_dagster.extractors import packs
from mixpeek_dagster.extractors.manifest import Manifest, Pack, read_manifest

if TYPE_CHECKING:
    from mixpeek_dagster.extractors import onnx

PIECE_BYTES = 8 * 1024 * 1024


class ModelStore:
    """Model packs in one folder.

    A pack is named by `minilm-v1` or `efficientnet-lite0-v1`, or by the URI of its folder in any fsspec protocol. A URI may pin
    the manifest, which pins every file: `s3://models/clip#sha256=<sha256 of manifest.json>`. A pinned pack that is here is used
    without asking its source again.

    Attributes:
        device: where extractors of this store run their models: `auto` takes a GPU when there is one.
    """

    def __init__(self, folder: Path, *, device: "onnx.Device" = "auto") -> None:
        self.folder = folder.expanduser()
        self.device = device
        self._manifests: dict[str, bytes] = {}
        self._lock = threading.RLock()

    def manifest(self, uri: str) -> Manifest:
        """What the pack says about itself, without fetching or loading a model: one small read for a URI, nothing for a name.

        Raises:
            ModelError: nobody knows the name, or the URI has no readable manifest.
        """
        if uri in packs.RECIPES:
            return packs.RECIPES[uri].manifest
        return read_manifest(self._read(uri), pack=uri)

    def pack(self, uri: str) -> Pack:
        """The pack's files on this machine, made or fetched first if need be. Built packs need the package registry once.

        Raises:
            ModelError: it cannot be had, a file does not match its sha256, or the model does not do what the manifest says.
        """
        with self._lock:
            if uri in packs.RECIPES:
                return self._install(self._name(uri), lambda folder: packs.build(uri, folder))
            manifest = self._read(uri)
            return self._install(self._name(uri), lambda folder: _fetch(_location(uri)[0], manifest, folder))

    def has(self, uri: str) -> bool:
        """Whether the pack is on this machine; raises ModelError as `manifest` does."""
        return (self.folder / self._name(uri)).exists()

    def _name(self, uri: str) -> str:
        """The folder of a pack, named after what it holds."""
        if uri in packs.RECIPES:
            return f"{uri}-{packs.RECIPES[uri].manifest.identity[:12]}"
        return f"sha256-{hashlib.sha256(self._read(uri)).hexdigest()}"

    def _read(self, uri: str) -> bytes:
        """The `manifest.json` behind a URI, read at most once per store."""
        with self._lock:
            if uri not in self._manifests:
                location, pinned = _location(uri)
                here = self.folder / f"sha256-{pinned}" / "manifest.json"
                data = here.read_bytes() if pinned and here.exists() else b"".join(_download(location, "manifest.json"))
                sha256 = hashlib.sha256(data).hexdigest()
                if pinned and sha256 != pinned:
                    raise ModelError(
                        f"Model pack {uri}: manifest.json has sha256 {sha256}, not the pinned one. Correct one of the two."
                    )
                self._manifests[uri] = data
            return self._manifests[uri]

    def _install(self, name: str, fill: Callable[[Path], None]) -> Pack:
        destination = self.folder / name
        if not destination.exists():
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                with _only_one(self.folder / f".{name}.lock"):
                    if not destination.exists():
                        self._make(destination, fill)
            except OSError as error:
                message = f"Model packs cannot be kept in {self.folder}: {error}. Make room there, or name another folder."
                raise ModelError(message) from error
        return Pack(destination, read_manifest((destination / "manifest.json").read_bytes(), pack=name))

    def _make(self, destination: Path, fill: Callable[[Path], None]) -> None:
        for abandoned in self.folder.glob(f".{destination.name}.part-*"):
            shutil.rmtree(abandoned, ignore_errors=True)
        part = self.folder / f".{destination.name}.part-{uuid.uuid4().hex}"
        part.mkdir()
        try:
            fill(part)
            from mixpeek_dagster.extractors import onnx

            onnx.check(Pack(part, read_manifest((part / "manifest.json").read_bytes(), pack=destination.name)))
            try:
                os.rename(part, destination)
            except OSError:
                if not destination.exists():  # else a process that does not see our lock was faster
                    raise
        finally:
            shutil.rmtree(part, ignore_errors=True)


def _location(uri: str) -> tuple[str, str]:
    location, _, pinned = uri.partition("#sha256=")
    if "/" not in location:
        known = ", ".join(packs.RECIPES)
        raise ModelError(f"Unknown model pack {uri!r}. Known: {known}; or give the URI of a pack's folder.")
    return location.rstrip("/"), pinned.lower()


def _download(location: str, file: str) -> Iterator[bytes]:
    """The pieces of one file of a pack."""
    import fsspec

    try:
        with fsspec.open(f"{location}/{file}", "rb") as stream:
            while piece := stream.read(PIECE_BYTES):
                yield piece
    except Exception as error:  # every fsspec protocol raises its own
        reason = str(error) or type(error).__name__
        raise ModelError(
            f"Model pack {location}: {file} cannot be read ({reason}). Check the URI and this machine's access."
        ) from error


def _fetch(location: str, manifest: bytes, folder: Path) -> None:
    for file, expected in read_manifest(manifest, pack=location).files.items():
        sha256 = hashlib.sha256()
        with (folder / file).open("wb") as copy:
            for piece in _download(location, file):
                sha256.update(piece)
                copy.write(piece)
        if sha256.hexdigest() != expected:
            raise ModelError(
                f"Model pack {location}: {file} has sha256 {sha256.hexdigest()[:12]}…, the manifest says {expected[:12]}…. "
                "Upload the file again or correct the manifest."
            )
    (folder / "manifest.json").write_bytes(manifest)


@contextlib.contextmanager
def _only_one(path: Path) -> Iterator[None]:
    """One process at a time, where the system has file locks; elsewhere the rename alone keeps packs whole."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
