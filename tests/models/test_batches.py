"""The state machine of batches, and how parts fold into it."""

import itertools

import pytest

from mixpeek_dagster.errors import WrongState
from mixpeek_dagster.models.batches import TRANSITIONS, BatchStatus, PartStatus, fold, partition_key, step

B, P = BatchStatus, PartStatus

ALLOWED = {
    (B.DRAFT, B.QUEUED),
    (B.DRAFT, B.CANCELED),
    (B.QUEUED, B.PROCESSING),
    (B.QUEUED, B.COMPLETED),
    (B.QUEUED, B.FAILED),
    (B.QUEUED, B.CANCELED),
    (B.PROCESSING, B.COMPLETED),
    (B.PROCESSING, B.FAILED),
    (B.PROCESSING, B.CANCELED),
}


@pytest.mark.parametrize(("current", "to"), itertools.product(B, B), ids=lambda status: status.value)
def test_a_batch_moves_along_its_lifecycle_only(current: B, to: B) -> None:
    if (current, to) in ALLOWED:
        assert step("btch_1", current, to) is to
    else:
        with pytest.raises(WrongState, match=f"btch_1 is {current}; it cannot become {to}"):
            step("btch_1", current, to)


def test_every_status_has_its_transitions_and_three_are_final() -> None:
    assert set(TRANSITIONS) == set(B)
    assert {status for status in B if status.is_terminal} == {B.COMPLETED, B.FAILED, B.CANCELED}


@pytest.mark.parametrize(
    ("parts", "status"),
    [
        ([P.QUEUED], B.QUEUED),
        ([P.CLAIMED], B.QUEUED),
        ([P.QUEUED, P.RUNNING], B.PROCESSING),
        ([P.QUEUED, P.COMPLETED], B.PROCESSING),
        ([P.CLAIMED, P.FAILED], B.PROCESSING),
        ([P.RUNNING, P.CANCELED], B.PROCESSING),
        ([P.COMPLETED], B.COMPLETED),
        ([P.COMPLETED, P.COMPLETED], B.COMPLETED),
        ([P.COMPLETED, P.FAILED], B.FAILED),
        ([P.CANCELED, P.FAILED], B.FAILED),
        ([P.COMPLETED, P.CANCELED], B.CANCELED),
    ],
    ids=str,
)
def test_parts_fold_into_one_status(parts: list[P], status: B) -> None:
    for order in itertools.permutations(parts):
        assert fold(order) is status


def test_a_batch_is_final_exactly_when_all_parts_are() -> None:
    for parts in itertools.product(P, repeat=3):
        assert fold(parts).is_terminal == all(part.is_terminal for part in parts)


def test_one_part_has_the_name_of_its_batch_and_several_are_numbered() -> None:
    assert partition_key("btch_a", 1, 1) == "btch_a"
    assert [partition_key("btch_a", n, 12) for n in (1, 12)] == ["btch_a.0001", "btch_a.0012"]
