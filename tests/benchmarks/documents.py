"""How fast are lists of documents, and how do they grow? A real server over HTTP, filled through our own records.

Every document has a category (one of 20), an order (30 documents each), a price and a rating. `category`, `order` and `price` get
payload indexes; where it says "no index", none is declared yet.
"""

import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from pathlib import Path
from typing import Any

from mixpeek_dagster.models.documents import Document, DocumentState
from mixpeek_dagster.models.ids import CollectionId
from mixpeek_dagster.models.values import iso
from mixpeek_dagster.pipeline.warehouse import Warehouse
from tests.benchmarks.measure import Figure, at_most, seen
from tests.end_to_end.home import STUB, WORDS, Home
from tests.serving import Caller, serving

SIZES = SMALL, MIDDLE, LARGE = 10_000, 100_000, 1_000_000
ORDER = 30
CATEGORIES = 20
INDEXES = [("metadata.category", "keyword"), ("metadata.order", "integer"), ("metadata.price", "float")]
SENDERS = 8
SENDING_S = 6.0
_CHUNK = 10_000
_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


def measure() -> Sequence[Figure]:
    with tempfile.TemporaryDirectory(prefix="mixpeek-bench-") as folder:
        home = Home(Path(folder))
        warehouse = home.warehouse
        with serving(home) as port, Caller(port) as caller:
            shelf = Shelf(warehouse, caller)
            figures = [_objects(shelf)]
            shelf.fill(SMALL)
            shelf.index(True)
            small = shelf.times()
            shelf.index(False)
            shelf.fill(MIDDLE)
            figures += _lists(shelf, "no index", rounds=2, pages=20)
            shelf.index(True)
            figures += _lists(shelf, "index", rounds=5, pages=100, goal=0.6)
            middle = shelf.times()
            shelf.fill(LARGE)
            large = shelf.times()
    for name in small:
        figures += [seen(f"{name}, p50, {size:,}", at[name], "ms") for size, at in zip(SIZES, (small, middle, large))]
        grown = large[name] / small[name]
        goal = 1.5 if name in FLAT else LARGE / SMALL
        figures.append(at_most(f"{name}, {LARGE:,} ÷ {SMALL:,}", grown, "", goal))
    return figures


class Shelf:
    """One collection, and what is asked of it."""

    def __init__(self, warehouse: Warehouse, caller: Caller) -> None:
        self.warehouse, self.caller, self.size = warehouse, caller, 0
        caller.namespace = caller.post("/v1/namespaces", {"namespace_name": "bench"})["namespace_id"]
        schema = {"properties": {"content": {"type": "text"}, "sku": {"type": "string"}}}
        self.bucket_id = caller.post("/v1/buckets", {"bucket_name": "bench", "bucket_schema": schema})["bucket_id"]
        body = {
            "collection_name": "bench",
            "source": {"type": "bucket", "bucket_ids": [self.bucket_id]},
            "feature_extractor": {"feature_extractor_name": STUB, "version": "v1"},
        }
        self.collection_id = caller.post("/v1/collections", body)["collection_id"]

    def fill(self, size: int) -> None:
        """Grow to so many documents."""
        for start in range(self.size, size, _CHUNK):
            made = [self._document(number) for number in range(start, min(start + _CHUNK, size))]
            with self.warehouse.catalog.transaction() as records:
                records.documents.put(CollectionId(self.collection_id), made)
        self.size = size

    def _document(self, number: int) -> Document:
        rng = random.Random(number)
        digest = blake2b(str(number).encode(), digest_size=16).hexdigest()
        at = iso(_EPOCH + timedelta(seconds=number))
        metadata = {
            "title": " ".join(rng.choices(WORDS, k=6)),
            "category": f"Category {rng.randrange(CATEGORIES)}",
            "order": number // ORDER,
            "price": round(rng.uniform(1, 1000), 2),
            "rating": rng.randint(1, 5),
            "in_stock": rng.random() < 0.8,
            "tags": rng.sample(WORDS, 3),
        }
        return Document.model_validate(
            {
                "document_id": f"doc_{digest[:28]}",
                "namespace_id": self.caller.namespace,
                "collection_id": self.collection_id,
                "root_bucket_id": self.bucket_id,
                "root_object_id": f"obj_{number // ORDER:028x}",
                "identity": digest,
                "position": 0,
                "revision": 1,
                "memo_key": digest,
                "content_hash": digest,
                "state": DocumentState.INDEXED,
                "payload": {"metadata": metadata, "text": " ".join(rng.choices(WORDS, k=40))},
                "created_at": at,
                "updated_at": at,
            }
        )

    def index(self, wanted: bool) -> None:
        """Declare the payload indexes, or none."""
        indexes = [{"field_name": name, "type": kind} for name, kind in INDEXES] if wanted else []
        status, answer = self.caller.send("PUT", f"/v1/namespaces/{self.caller.namespace}", {"payload_indexes": indexes})
        assert status == 200, answer

    def times(self) -> dict[str, float]:
        """Milliseconds of each question, p50."""
        found = {}
        for name, ask in {**FLAT, **GROWING}.items():
            tries = 100 if name in FLAT else 5
            bodies = [ask(self, random.Random(seed)) for seed in range(tries)]
            found[name] = statistics.median(timed(self.caller, "/v1/documents/list", body) for body in bodies)
        return found


Ask = Callable[[Shelf, random.Random], dict[str, Any]]


def _of_order(shelf: Shelf, rng: random.Random) -> dict[str, Any]:
    chosen = {"field": "metadata.order", "operator": "eq", "value": rng.randrange(shelf.size // ORDER)}
    return {"filters": {"AND": [chosen]}, "sort": {"field": "metadata.price", "direction": "desc"}, "limit": 20}


def _of_category(shelf: Shelf, rng: random.Random) -> dict[str, Any]:
    """A twentieth of all, and half of that: answered with its exact total."""
    chosen = {"field": "metadata.category", "operator": "eq", "value": f"category {rng.randrange(CATEGORIES)}"}
    dear = {"field": "metadata.price", "operator": "gte", "value": round(rng.uniform(400, 600))}
    field = rng.choice(["created_at", "metadata.price"])
    return {"filters": {"AND": [chosen, dear]}, "sort": {"field": field, "direction": "desc"}, "limit": 20}


FLAT: dict[str, Ask] = {
    "newest page": lambda shelf, rng: {"limit": 20, "sort": {"field": "created_at", "direction": "desc"}},
    "filtered page, 30 match": _of_order,
}
GROWING: dict[str, Ask] = {
    "filtered page, 2.5 % match": _of_category,
    "count without index": lambda shelf, rng: {
        "filters": {"field": "metadata.rating", "operator": "eq", "value": rng.randint(1, 5)},
        "limit": 1,
    },
    "group_by": lambda shelf, rng: {"group_by": "metadata.category", "limit": 20},
}


def timed(caller: Caller, path: str, body: dict[str, Any]) -> float:
    """Milliseconds of one POST, which has to succeed."""
    sent = json.dumps(body).encode()
    started = time.perf_counter()
    status, answer = caller.exchange("POST", path, sent)
    took = (time.perf_counter() - started) * 1000
    assert status == 200, answer[:1000]
    return took


def _lists(shelf: Shelf, how: str, *, rounds: int, pages: int, goal: float | None = None) -> list[Figure]:
    """Ten queries at once ÷ one after another over one connection, alternating; and single pages."""
    rng = random.Random(7)
    ratios, together, alone = [], [], []
    broad: list[float] = []
    for _ in range(rounds):
        queries = [_of_category(shelf, rng) for _ in range(10)]
        keyed = {"queries": [{"key": str(place), "request": one} for place, one in enumerate(queries)]}
        batch = timed(shelf.caller, "/v1/documents/list/batch", keyed)
        each = [timed(shelf.caller, "/v1/documents/list", one) for one in queries]
        ratios.append(batch / sum(each))
        together.append(batch)
        alone.append(sum(each))
        broad += each
    narrow = [timed(shelf.caller, "/v1/documents/list", _of_order(shelf, rng)) for _ in range(pages)]
    ratio = statistics.median(ratios)
    name = f"list/batch of 10 ÷ one after another, {how}"
    return [
        at_most(name, ratio, "", goal) if goal is not None else seen(name, ratio, ""),
        seen(f"  together, {how}", statistics.median(together), "ms"),
        seen(f"  one after another, {how}", statistics.median(alone), "ms"),
        *_percentiles(f"filtered page, 2.5 % match, {how}", broad),
        *_percentiles(f"filtered page, 30 match, {how}", narrow),
    ]


def _percentiles(name: str, times: Sequence[float]) -> list[Figure]:
    cuts = statistics.quantiles(times, n=100, method="inclusive")
    return [seen(f"{name}, p50", cuts[49], "ms"), seen(f"{name}, p99", cuts[98], "ms")]


def _objects(shelf: Shelf) -> Figure:
    """Registering objects one at a time, from several clients."""
    end = time.perf_counter() + SENDING_S
    sent = [0] * SENDERS

    def send(sender: int) -> None:
        with Caller(shelf.caller.port, shelf.caller.namespace) as caller:
            while time.perf_counter() < end:
                blobs = [{"property": "content", "type": "text", "content": f"text {sender} {sent[sender]}"}]
                caller.post(f"/v1/buckets/{shelf.bucket_id}/objects", {"blobs": blobs, "sku": f"{sender}-{sent[sender]}"})
                sent[sender] += 1

    started = time.perf_counter()
    with ThreadPoolExecutor(SENDERS) as pool:
        list(pool.map(send, range(SENDERS)))
    return seen(f"POST objects, {SENDERS} clients", sum(sent) / (time.perf_counter() - started), "/s")
