"""Running an extractor over many objects: decompose in threads, pack by cost, infer on shared models, put results back in order.

A window of objects goes through in two steps, so that the next window can be prepared while this one is inferred:

    with lookahead(partial(read, window) for window in windows) as prepared:   # read: fetch, look up memo, `prepare`
        for units in prepared:
            commit(infer(extractor, units, threads=threads))

Errors of an object are values; only what breaks every object (a model that cannot run) is raised.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np

from mixpeek_dagster.errors import ExtractionError, MixpeekError, ModelError
from mixpeek_dagster.extractors.content import Content
from mixpeek_dagster.extractors.extractor import Extractor, Input, Packing, Unit, Vectors

T = TypeVar("T")
R = TypeVar("R")

Prepared = list[Unit] | MixpeekError
"""The units of one object, or why there are none."""


@dataclass(slots=True)
class Extracted:
    """One document to be: its fields and, per output, a float32 vector of shape (dim,)."""

    fields: dict[str, Any]
    vectors: dict[str, Vectors] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Extraction:
    """What became of one object: its units, or the error that stopped it."""

    units: Sequence[Extracted] = ()
    error: MixpeekError | None = None


class Call(NamedTuple):
    """Inputs of many objects that go through a model together."""

    output: str
    positions: list[int]
    payloads: list[Any]


def extract(extractor: Extractor, objects: Sequence[Mapping[str, Content]], *, threads: int = 1) -> list[Extraction]:
    """Prepare and infer one window of objects; results in the order of `objects`.

    Raises:
        ModelError: a model cannot be loaded or does not do what it promised.
    """
    return infer(extractor, prepare(extractor, objects, threads=threads), threads=threads)


def prepare(
    extractor: Extractor,
    objects: Sequence[Mapping[str, Content] | MixpeekError],
    *,
    threads: int = 1,
    stop: threading.Event | None = None,
) -> list[Prepared]:
    """The units of every object, in order; an error among `objects` stays where it is.

    Args:
        stop: once set, no further object is begun.

    Raises:
        CancelledError: `stop` was set.
        ModelError: a model that decomposing needs cannot be loaded.
    """

    def decompose(given: Mapping[str, Content] | MixpeekError) -> Prepared:
        if isinstance(given, MixpeekError):
            return given
        try:
            return list(extractor.decompose(given))
        except ModelError:
            raise
        except MixpeekError as error:
            return error
        except Exception as error:  # noqa: BLE001 - an extractor of somebody else's may raise anything
            return _failure(error)

    return _spread(decompose, objects, threads=threads, stop=stop or threading.Event())


def infer(
    extractor: Extractor, prepared: Sequence[Prepared], *, threads: int = 1, stop: threading.Event | None = None
) -> list[Extraction]:
    """Vectors for the units of many objects, in order.

    A failing call is halved until the guilty unit is alone, so only its object fails.

    Raises:
        CancelledError: `stop` was set.
        ModelError: a model cannot be loaded, or made something other than float vectors of its dimension.
    """
    units = [unit for one in prepared if not isinstance(one, MixpeekError) for unit in one]
    dims = {output.name: output.dim for output in extractor.outputs}
    calls = plan(extractor, units)
    results = _spread(
        lambda call: _embed(extractor, call, dim=dims[call.output]), calls, threads=threads, stop=stop or threading.Event()
    )  # fmt: skip
    found: list[dict[str, Vectors | MixpeekError]] = [{} for _ in units]
    for call, rows in zip(calls, results, strict=True):
        for position, row in zip(call.positions, rows, strict=True):
            found[position][call.output] = row
    inferred = iter(zip(units, found, strict=True))
    return [
        Extraction(error=one) if isinstance(one, MixpeekError) else _together([next(inferred) for _ in one])
        for one in prepared
    ]  # fmt: skip


def plan(extractor: Extractor, units: Sequence[Unit]) -> list[Call]:
    """All inputs of `units`, packed into calls of a model; the dearest first, so that the last ones are short."""
    inputs: dict[str, list[tuple[int, Input]]] = {}
    for position, unit in enumerate(units):
        for output, given in unit.inputs.items():
            inputs.setdefault(output, []).append((position, given))
    return [call for output, given in inputs.items() for call in _pack(output, given, extractor.packing(output))]


def _pack(output: str, inputs: list[tuple[int, Input]], packing: Packing) -> Iterator[Call]:
    waiting = sorted(inputs, key=lambda pair: -pair[1].cost)
    first = 0
    while first < len(waiting):
        dearest = waiting[first][1].cost
        last = first + 1
        while (
            last < len(waiting)
            and (last - first + 1) * dearest <= packing.budget
            and waiting[last][1].cost * packing.slack >= dearest
        ):  # fmt: skip
            last += 1
        members = waiting[first:last]
        yield Call(output, [position for position, _ in members], [given.payload for _, given in members])
        first = last


def _embed(extractor: Extractor, call: Call, *, dim: int) -> list[Vectors | MixpeekError]:
    """One vector or error per payload of a call."""
    try:
        vectors = extractor.embed(call.output, call.payloads)
    except ModelError:
        raise
    except Exception as error:  # noqa: BLE001 - so may a model
        if len(call.payloads) == 1:
            return [error if isinstance(error, MixpeekError) else _failure(error)]
        middle = len(call.payloads) // 2
        halves = (call.payloads[:middle], call.payloads[middle:])
        return [row for half in halves for row in _embed(extractor, Call(call.output, [], half), dim=dim)]
    if vectors.shape != (len(call.payloads), dim):
        raise ModelError(
            f"{extractor.name} {extractor.version} made {call.output!r} vectors of shape {list(vectors.shape)}, "
            f"not {[len(call.payloads), dim]}. Correct its outputs or its model's manifest."
        )
    vectors = np.asarray(vectors, dtype=np.float32)
    finite = np.isfinite(vectors.sum(axis=1))
    not_finite = ExtractionError(f"The {call.output} vector is not finite.")
    return [vector if fine else not_finite for vector, fine in zip(vectors, finite, strict=True)]


def _together(units: list[tuple[Unit, dict[str, Vectors | MixpeekError]]]) -> Extraction:
    made = []
    for number, (unit, found) in enumerate(units):
        vectors = {}
        for output, vector in found.items():
            if isinstance(vector, MixpeekError):
                where = f" (unit {number} of {len(units)})" if len(units) > 1 else ""
                return Extraction(error=ExtractionError(f"{vector.message}{where}", details={"unit": number, "output": output}))
            vectors[output] = vector
        made.append(Extracted(unit.fields, vectors))
    return Extraction(made)


def _failure(error: Exception) -> ExtractionError:
    failure = ExtractionError(f"The extractor failed: {type(error).__name__}: {str(error).strip() or 'no message'}")
    failure.__cause__ = error
    return failure


def _spread(function: Callable[[T], R], items: Sequence[T], *, threads: int, stop: threading.Event) -> list[R]:
    """`function` of every item, in order, by `threads` threads; the first exception, or an interrupt, stops them all."""
    results: list[R | None] = [None] * len(items)
    waiting = deque(range(len(items)))
    failed = threading.Event()

    def work() -> None:
        while waiting and not failed.is_set():
            if stop.is_set():
                raise CancelledError
            try:
                index = waiting.popleft()
            except IndexError:  # another thread took the last one
                return
            try:
                results[index] = function(items[index])
            except BaseException:
                failed.set()
                raise

    if min(threads, len(items)) <= 1:
        work()
        return cast(list[R], results)
    with ThreadPoolExecutor(min(threads, len(items)), thread_name_prefix="extract") as pool:
        workers = [pool.submit(work) for _ in range(min(threads, len(items)))]
        try:
            for worker in workers:
                worker.result()
        except BaseException:
            failed.set()
            raise
    return cast(list[R], results)


@contextmanager
def lookahead(thunks: Iterable[Callable[[threading.Event], T]]) -> Iterator[Iterator[T]]:
    """Results of `thunks` in order, the next one computed in a background thread while the caller works on the last.

    The iterable itself is advanced in the caller's thread. What a thunk raises is raised at its turn. Leaving the block, by
    whatever exception, sets the event that thunks get and does not wait for the one that runs.
    """
    stop = threading.Event()
    pool = ThreadPoolExecutor(1, thread_name_prefix="lookahead")

    def results() -> Iterator[T]:
        ahead: Future[T] | None = None
        for thunk in thunks:
            ready, ahead = ahead, pool.submit(thunk, stop)
            if ready is not None:
                yield ready.result()
        if ahead is not None:
            yield ahead.result()

    try:
        yield results()
    finally:
        stop.set()
        pool.shutdown(wait=False, cancel_futures=True)
