"""What is made through the API appears in Dagster, asked-for work begins, canceled work ends. `make bench Q=promptness` says how soon."""

import time
from collections.abc import Iterator

import pytest

from tests.end_to_end.home import Home
from tests.end_to_end.prompt import Desk, running_desk, seconds_until

pytestmark = [pytest.mark.xdist_group("dev"), pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with running_desk(Home(tmp_path_factory.mktemp("prompt"))) as desk:
        yield desk


def test_what_is_made_changed_and_deleted_shows_in_the_running_ui(desk: Desk) -> None:
    desk.made_until_shown("appears")
    desk.changed_until_shown("appears", "in other words")
    desk.bucket("vanishes")
    seconds_until(lambda: "buckets/vanishes" in desk.assets())
    desk.deleted_until_gone("vanishes")


def test_many_changes_are_few_reloads_and_no_tick_fails(desk: Desk) -> None:
    before, started = desk.version_of_definitions(), time.monotonic()
    for number in range(12):
        desk.bucket(f"many-{number}")
        time.sleep(0.2)
    servers = [desk.version_of_definitions()]

    def is_shown() -> bool:
        servers.append(desk.version_of_definitions())
        return "buckets/many-11" in desk.assets()

    seconds_until(is_shown)
    most = 3 + (time.monotonic() - started) / 5
    assert len({before, *servers}) <= most, "a code server is replaced once in five seconds at most"
    for name in ("definitions", "batches", "batches_too", "webhooks", "urgent_syncs"):
        assert not [one for one in desk.ticks(name) if one["status"] == "FAILURE"], name


def test_a_triggered_sync_begins_whatever_its_interval(desk: Desk) -> None:
    """One that was made a moment ago too, before it has a sensor of its own."""
    bucket_id = desk.bucket("follows")
    sync_id = desk.sync(bucket_id)
    desk.triggered_until_begun(bucket_id, sync_id)
    seconds_until(lambda: desk.ticks(f"sync_prompt_follows_{sync_id[-6:]}"))
    desk.triggered_until_begun(bucket_id, sync_id)


def test_a_submitted_batch_leaves_the_queue(desk: Desk) -> None:
    bucket_id = desk.bucket("queue")
    desk.collection(bucket_id, "queued")
    seconds_until(lambda: "collections/queued" in desk.assets())
    desk.submitted_until_taken(bucket_id, "one")
    desk.submitted_until_taken(bucket_id, "another right after it")


def test_a_canceled_batch_ends_its_run(desk: Desk) -> None:
    bucket_id = desk.bucket("cancel")
    desk.collection(bucket_id, "slow", sleep_s=3.0)
    seconds_until(lambda: "collections/slow" in desk.assets())
    desk.canceled_until_ended(bucket_id, *map(str, range(200)))
