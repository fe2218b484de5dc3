"""The engine: order, packing, isolation of failures, overlap, and stopping."""

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from functools import partial
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixpeek_dagster.errors import ExtractionError, ModelError, ProviderDown
from mixpeek_dagster.extractors.catalogue import create
from mixpeek_dagster.extractors.content import Content
from mixpeek_dagster.extractors.engine import extract, infer, lookahead, plan, prepare
from mixpeek_dagster.extractors.extractor import Input, Output, Packing, Unit
from mixpeek_dagster.extractors.models import ModelStore
from mixpeek_dagster.extractors.parameters import Parameters
from mixpeek_dagster.testing import StubExtractor, StubParams

from .conftest import texts


class Words:
    """A unit per word, whose vector is its length; counts calls and breaks on request."""

    name: ClassVar[str] = "words"
    version: ClassVar[str] = "v1"
    description: ClassVar[str] = "One unit per word, for tests."
    accepts: ClassVar[Mapping[str, frozenset[str]]] = {"text": frozenset({"text"})}
    Params: ClassVar[type[Parameters]] = StubParams
    fields: ClassVar[Mapping[str, str]] = {"text": "string"}
    fingerprint = ""
    outputs: Sequence[Output] = (Output(name="embedding", dim=2),)

    def __init__(self, params: Any = None, *, models: Any = None, budget: int = 16, slack: float = 2.0) -> None:
        self.calls: list[list[str]] = []
        self._packing = Packing(budget=budget, slack=slack)

    def load(self) -> None:
        pass

    def packing(self, output: str) -> Packing:
        return self._packing

    def decompose(self, inputs: Mapping[str, Content]) -> Iterator[Unit]:
        text = inputs["text"].data.decode()
        if text == "bug":
            raise RuntimeError("not foreseen")
        for word in text.split():
            yield Unit({"text": word}, {"embedding": Input(word, len(word))})

    def embed(self, output: str, payloads: Sequence[Any]) -> Any:
        self.calls.append(list(payloads))
        if "boom" in payloads:
            raise ValueError("cannot embed boom")
        return np.array([[len(word), float("nan") if word == "nan" else 1] for word in payloads], dtype=np.float32)

    def embed_query(self, query: str | bytes, *, output: str) -> Any:
        raise NotImplementedError


@pytest.mark.parametrize("threads", [1, 4])
def test_results_come_in_the_order_of_the_objects(threads: int) -> None:
    objects = [" ".join(["x" * (1 + (7 * row + word) % 9) for word in range(row % 4)]) for row in range(60)]
    extractions = extract(Words(), texts(*objects), threads=threads)
    assert [[unit.fields["text"] for unit in one.units] for one in extractions] == [text.split() for text in objects]
    assert all(unit.vectors["embedding"][0] == len(unit.fields["text"]) for one in extractions for unit in one.units)


def test_one_guilty_unit_fails_only_its_object() -> None:
    words = Words(budget=10_000, slack=100)
    objects = [*(f"word{row}" for row in range(50)), "fine boom fine", *(f"more{row}" for row in range(50))]
    extractions = extract(words, texts(*objects), threads=2)
    assert [row for row, one in enumerate(extractions) if one.error] == [50]
    assert extractions[50].error is not None
    assert extractions[50].error.message == "The extractor failed: ValueError: cannot embed boom (unit 1 of 3)"
    assert len(words.calls) <= 16


def test_a_vector_that_is_not_finite_is_an_error_of_its_object() -> None:
    first, second = extract(Words(), texts("fine", "nan"))
    assert first.error is None
    assert second.error is not None
    assert "not finite" in second.error.message


def test_errors_of_decomposing_are_values() -> None:
    given: list[Any] = [texts("fine")[0], texts("bug")[0], ProviderDown("gone for a moment")]
    fine, bug, down = infer(Words(), prepare(Words(), given))
    assert fine.error is None
    assert isinstance(bug.error, ExtractionError)
    assert "RuntimeError: not foreseen" in bug.error.message
    assert isinstance(down.error, ProviderDown)


def test_vectors_of_another_shape_are_nobodys_but_the_models_fault() -> None:
    class Wide(Words):
        def embed(self, output: str, payloads: Sequence[Any]) -> Any:
            return np.zeros((len(payloads), 3), dtype=np.float32)

    with pytest.raises(ModelError, match=r"words v1 made 'embedding' vectors of shape \[1, 3\], not \[1, 2\]"):
        extract(Wide(), texts("fine"))


@given(costs=st.lists(st.integers(1, 300), max_size=80), budget=st.integers(1, 600), slack=st.floats(1, 3))
def test_packing_keeps_budget_and_slack_and_loses_nothing(costs: list[int], budget: int, slack: float) -> None:
    units = [Unit({}, {"embedding": Input(row, cost)}) for row, cost in enumerate(costs)]
    calls = plan(Words(budget=budget, slack=slack), units)
    assert sorted(row for call in calls for row in call.payloads) == list(range(len(costs)))
    for call in calls:
        packed = [costs[row] for row in call.payloads]
        assert len(packed) == 1 or len(packed) * max(packed) <= budget
        assert min(packed) * slack >= max(packed) or len(packed) == 1
    dearest = [max(costs[row] for row in call.payloads) for call in calls]
    assert dearest == sorted(dearest, reverse=True)


def test_packed_vectors_are_those_of_one_text_alone(default_models: ModelStore) -> None:
    extractor = create("text_extractor_v1", models=default_models)
    objects = texts(*("word " * (1 + 7 * row % 90) + f"number {row}" for row in range(24)))
    together = extract(extractor, objects, threads=2)
    for one, each in zip(together, objects, strict=True):
        (alone,) = extract(extractor, [each])
        assert float(one.units[0].vectors["embedding"] @ alone.units[0].vectors["embedding"]) >= 0.999999


def test_an_interrupt_stops_the_other_threads() -> None:
    class Interrupted(BaseException): ...

    done: list[bytes] = []

    class Slow(Words):
        def decompose(self, inputs: Mapping[str, Content]) -> Iterator[Unit]:
            if inputs["text"].data == b"0":
                raise Interrupted
            time.sleep(0.005)
            done.append(inputs["text"].data)
            yield Unit({})

    with pytest.raises(Interrupted):
        prepare(Slow(), texts(*map(str, range(500))), threads=2)
    assert len(done) < 20


def test_lookahead_prepares_the_next_window_while_this_one_is_used() -> None:
    began: list[int] = []

    def thunk(number: int, stop: threading.Event) -> int:
        began.append(number)
        return number

    seen = []
    with lookahead(partial(thunk, number) for number in range(4)) as results:
        for number in results:
            deadline = time.monotonic() + 60
            while number + 1 not in began and number < 3 and time.monotonic() < deadline:
                time.sleep(0.001)
            assert began == list(range(min(number + 2, 4)))
            seen.append(number)
    assert seen == [0, 1, 2, 3]


def test_lookahead_raises_at_the_turn_of_the_window_that_failed() -> None:
    def thunk(number: int, stop: threading.Event) -> int:
        if number == 2:
            raise ValueError("window 2")
        return number

    seen = []
    with pytest.raises(ValueError, match="window 2"), lookahead(partial(thunk, number) for number in range(4)) as results:
        for number in results:
            seen.append(number)
    assert seen == [0, 1]


def test_leaving_lookahead_stops_the_window_being_prepared_and_does_not_wait() -> None:
    class Interrupted(BaseException): ...

    began, left, finished = threading.Event(), threading.Event(), threading.Event()
    outcome: list[BaseException] = []

    def thunk(objects: list[Any], stop: threading.Event) -> object:
        if len(objects) == 1:
            return None
        began.set()
        left.wait(60)
        try:
            return prepare(StubExtractor(StubParams()), objects, threads=1, stop=stop)
        except BaseException as error:
            outcome.append(error)
            raise
        finally:
            finished.set()

    windows = [texts("first"), texts(*map(str, range(1000)))]
    with pytest.raises(Interrupted), lookahead(partial(thunk, window) for window in windows) as results:
        next(results)
        assert began.wait(60)
        raise Interrupted
    assert not finished.is_set(), "it was not waited for"
    left.set()
    assert finished.wait(60)
    assert [type(error) for error in outcome] == [CancelledError]
