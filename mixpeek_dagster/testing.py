"""Stand-ins for tests and benchmarks of programs that use the warehouse."""

import hashlib
import io
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, BinaryIO, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, Field

from mixpeek_dagster.errors import BadListing, Changed, ExtractionError
from mixpeek_dagster.extractors.content import Content
from mixpeek_dagster.extractors.extractor import Input, Output, Packing, Unit, Vectors, fingerprint
from mixpeek_dagster.extractors.models import ModelStore
from mixpeek_dagster.extractors.parameters import Parameters
from mixpeek_dagster.settings import Settings
from mixpeek_dagster.storage.feed import News
from mixpeek_dagster.storage.provider import Capabilities, Entry, Page
from mixpeek_dagster.vectors.index import Hit, Point, Space, VectorRows, checked


class StubParams(Parameters):
    """Parameters of `stub_extractor`."""

    extractor_type: Literal["stub_extractor"] = "stub_extractor"
    fail_on: str | None = Field(default=None, description="Objects whose bytes contain it fail.")
    sleep_s: float = Field(default=0.0, ge=0, description="Seconds every object takes.")
    trace: str | None = Field(default=None, description="File that gets a line for every call of the model: how many it took.")


class StubExtractor:
    """One vector per object from a hash of its bytes: no model, microseconds, and the same everywhere.

    Named in a collection by its dotted path, `mixpeek_dagster.testing:StubExtractor`.
    """

    DIM: ClassVar[int] = 384
    name: ClassVar[str] = "stub_extractor"
    version: ClassVar[str] = "v1"
    description: ClassVar[str] = "Makes one meaningless but repeatable vector per object, for tests."
    accepts: ClassVar[Mapping[str, frozenset[str]]] = {
        "text": frozenset({"text", "string"}),
        "image": frozenset({"image"}),
        "data": frozenset({"binary", "json", "audio", "video", "pdf"}),
    }
    Params: ClassVar[type[Parameters]] = StubParams
    fields: ClassVar[Mapping[str, str]] = {"size": "integer"}
    outputs: Sequence[Output] = (Output(name="embedding", dim=DIM),)

    def __init__(self, params: StubParams, *, models: ModelStore | None = None) -> None:
        self.params = params
        self.fingerprint = fingerprint(StubExtractor, params)

    def load(self) -> None:
        """Nothing to load."""

    def model_files(self) -> Mapping[str, Mapping[str, str]]:
        return {}

    def packing(self, output: str) -> Packing:
        return Packing(budget=256)

    def decompose(self, inputs: Mapping[str, Content]) -> Iterator[Unit]:
        data = b"".join(inputs[name].data for name in sorted(inputs))
        if self.params.sleep_s:
            time.sleep(self.params.sleep_s)
        if self.params.fail_on and self.params.fail_on.encode() in data:
            raise ExtractionError(f"The object contains {self.params.fail_on!r}, on which stub_extractor was told to fail.")
        yield Unit({"size": len(data)}, {"embedding": Input(_hash(data), 1)})

    def embed(self, output: str, payloads: Sequence[Any]) -> Vectors:
        if self.params.trace:
            with open(self.params.trace, "a") as lines:
                lines.write(f"{len(payloads)}\n")
        bits = np.unpackbits(np.frombuffer(b"".join(payloads), dtype=np.uint8)).reshape(len(payloads), self.DIM)
        signs: Vectors = (bits.astype(np.float32) * 2 - 1) / np.float32(self.DIM**0.5)
        return signs

    def embed_query(self, query: str | bytes, *, output: str) -> Vectors:
        data = query.encode() if isinstance(query, str) else query
        return np.asarray(self.embed(output, [_hash(data)])[0])


def _hash(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=StubExtractor.DIM // 8).digest()


class FakeConfig(BaseModel):
    """Which of `FakeSource.worlds` a connection means; `credentials` may be anything."""

    world: str = "default"
    credentials: dict[str, Any] = Field(default_factory=dict, repr=False)


@dataclass
class FakeWorld:
    """Files in memory, and how a provider may misbehave about them.

    Attributes:
        order: `bytes` lists in byte order; `shuffled` promises none and keeps none; `broken` promises byte order and shuffles.
        page_size: the most entries of one page, whatever is asked for.
        repeats: every page but the first begins with so many entries of the one before.
        hidden: files that are there but are not listed: an eventual or a truncated listing.
        refuses_tokens: a token is answered with `BadListing`, as by a provider that forgot it.
        endless: a listing never ends: it repeats the `same` empty page, or goes in a `cycle` over all pages, with `fresh` tokens even.
        before: called with the method's name ahead of every call; what it raises is the provider's failure.
        shows_restored: as in `Capabilities`.
        told: what a change feed has to tell, until it is acknowledged; None is a source without a feed.
        calls: how often each method was called.
    """

    files: dict[bytes, tuple[Entry, bytes]] = field(default_factory=dict)
    order: Literal["bytes", "shuffled", "broken"] = "bytes"
    page_size: int = 1000
    repeats: int = 0
    hidden: set[bytes] = field(default_factory=set)
    refuses_tokens: bool = False
    endless: Literal["same", "cycle", "fresh"] | None = None
    shows_restored: bool = False
    told: list[News] | None = None
    before: Callable[[str], None] = lambda _: None
    calls: Counter[str] = field(default_factory=Counter)
    writes: int = 0

    def put(self, key: str | bytes, data: bytes, *, modified_at: float = 1.7e9, storage_class: str = "") -> None:
        """Write a file; its etag is new even when its bytes are not."""
        name = key.encode() if isinstance(key, str) else key
        self.writes += 1
        etag = f"{self.writes}-{hashlib.blake2b(data, digest_size=6).hexdigest()}"
        entry = Entry(name, len(data), etag, "", modified_at, "", storage_class)
        self.files[name] = (entry, data)

    def delete(self, key: str | bytes) -> None:
        del self.files[key.encode() if isinstance(key, str) else key]


class FakeSource:
    """An `ObjectSource` over a `FakeWorld`. As a provider it is named `mixpeek_dagster.testing:FakeSource`."""

    Config = FakeConfig
    worlds: ClassVar[dict[str, FakeWorld]] = {}

    def __init__(self, world: FakeWorld, *, uri: str = "fake://world", prefix: str = "") -> None:
        self.world = world
        self.uri = uri
        self.prefix = prefix.encode()

    @classmethod
    def connect(cls, config: FakeConfig, *, source_path: str, settings: Settings) -> "FakeSource":
        world = cls.worlds.setdefault(config.world, FakeWorld())
        path = source_path.strip("/")
        return cls(world, uri=f"fake://{config.world}/{path}", prefix=f"{path}/" if path else "")

    @property
    def capabilities(self) -> Capabilities:
        promised: Literal["bytes", "unordered"] = "unordered" if self.world.order == "shuffled" else "bytes"
        return Capabilities(
            order=promised,
            start_after=promised == "bytes",
            digests=True,
            feed=self.world.told is not None,
            shows_restored=self.world.shows_restored,
        )

    def news(self, position: str | None) -> News:
        told = self._called("news").told
        return told[0] if told else News(position=position)

    def acknowledge(self, news: News) -> None:
        told = self._called("acknowledge").told
        if told and news in told:
            told.remove(news)

    def list_page(self, *, after: bytes | None = None, token: str | None = None, limit: int = 1000, known: bytes = b"") -> Page:
        page = self._page(after, token, limit)
        digest = hashlib.sha256(repr((page.entries, page.token is None)).encode()).digest() if page.entries else b""
        is_known = bool(digest) and digest == known
        self.world.calls["passed over"] += is_known
        return Page(() if is_known else page.entries, page.token, digest)

    def _page(self, after: bytes | None, token: str | None, limit: int) -> Page:
        world = self._called("list")
        if token is not None and world.refuses_tokens:
            raise BadListing(f"{self.uri} does not know the token of its own page.")
        in_order = world.order == "bytes"
        sort: Callable[[bytes], bytes] = (lambda key: key) if in_order else (lambda key: hashlib.md5(key).digest())  # noqa: S324
        start = bytes.fromhex(token.partition("#")[0]) if token is not None else (after or b"") if in_order else b""
        files = {key: entry for key, (entry, _) in world.files.items() if key.startswith(self.prefix) and key not in world.hidden}
        known = sorted((sort(key), entry) for key, entry in files.items())
        left = [(place, entry) for place, entry in known if place > start or (not start and not place)]
        size = min(limit, world.page_size)
        page = left[:size]
        entries = [entry for _, entry in page]
        if start and world.repeats:
            entries = [entry for place, entry in known if place <= start][-world.repeats :] + entries
        if world.endless == "same":
            return Page(entries, page[-1][0].hex() if page else token or "")
        nonce = f"#{world.calls['list']}" if world.endless == "fresh" else ""
        if len(left) > size:
            return Page(entries, page[-1][0].hex() + nonce)
        return Page(entries, nonce if world.endless else None)

    def head(self, key: bytes) -> Entry | None:
        found = self._called("head").files.get(key)
        return found[0] if found and key.startswith(self.prefix) else None

    @contextmanager
    def open(self, key: bytes, *, if_match: Entry | None = None, start: int = 0, length: int | None = None) -> Iterator[BinaryIO]:
        found = self._called("open").files.get(key)
        if found is None:
            raise FileNotFoundError(f"{self.location(key)} does not exist.")
        if if_match is not None and found[0].etag != if_match.etag:
            raise Changed(f"{self.location(key)} changed since it was listed.")
        yield io.BytesIO(found[1][start:][:length])

    def relative(self, key: bytes) -> str:
        return key.decode("utf-8", "surrogateescape")

    def location(self, key: bytes) -> str:
        return f"{self.uri.removesuffix(self.prefix.decode().strip('/'))}/{key!r}"

    def check(self) -> bool:
        return any(key.startswith(self.prefix) for key in self._called("check").files)

    def _called(self, name: str) -> FakeWorld:
        self.world.calls[name] += 1
        self.world.before(name)
        return self.world


class FakeIndex:
    """A vector index in memory that is a projection of the catalog; shared by all that open it, as a server would be.

    `before` is called with the method's name ahead of every call; what it raises is the index's failure.
    """

    points: ClassVar[dict[str, dict[str, Point]]] = {}
    before: ClassVar[Callable[[str], None]] = staticmethod(lambda _: None)

    is_projection = True

    @classmethod
    def open(cls, settings: Settings, *, rows: VectorRows) -> "FakeIndex":
        return cls()

    @classmethod
    def reset(cls) -> None:
        cls.points.clear()
        cls.before = staticmethod(lambda _: None)

    def ensure(self, space: Space) -> None:
        self._of(space, "ensure")

    def upsert(self, space: Space, points: Sequence[Point]) -> None:
        self._of(space, "upsert").update({point.document_id: point for point in points})

    def delete(self, space: Space, document_ids: Collection[str]) -> None:
        held = self._of(space, "delete")
        for document_id in document_ids:
            held.pop(document_id, None)

    def search(
        self, space: Space, output: str, vector: Vectors, *, top_k: int, among: Collection[str] | None = None
    ) -> list[Hit]:
        wanted = checked(space, output, vector)
        hits = [
            Hit(one.document_id, float(one.vectors[output] @ wanted))
            for one in self._of(space, "search").values()
            if output in one.vectors and (among is None or one.document_id in among)
        ]
        return sorted(hits, key=lambda hit: (-hit.score, hit.document_id))[:top_k]

    def count(self, space: Space) -> int:
        return len(self._of(space, "count"))

    def ids(self, space: Space) -> Iterator[str]:
        yield from list(self._of(space, "ids"))

    def drop(self, space: Space) -> None:
        self._of(space, "drop").clear()

    def close(self) -> None:
        """Nothing to let go of."""

    def _of(self, space: Space, method: str) -> dict[str, Point]:
        type(self).before(method)
        return self.points.setdefault(space.collection_id, {})
