"""Follow a provider's change feed: each file that it names is asked for at the source and merged as a pass would merge it (`looks`).

Feeds are accelerators. They are followed between passes only, under the sync's lock; what they miss, the next pass finds, also
what became of a file that may not be asked for. More deletes than a pass would believe are left to one, which is due at once then, and
asks. News are acknowledged after the transaction that records what they led to: a crash makes them come again, which changes nothing.
"""

import logging
import time
from typing import cast

from mixpeek_dagster.errors import MixpeekError, words_of
from mixpeek_dagster.models.ids import SyncId
from mixpeek_dagster.pipeline.looks import Looked, NotNow, is_followable, look_at
from mixpeek_dagster.pipeline.warehouse import Warehouse
from mixpeek_dagster.storage.feed import FeedSource

logger = logging.getLogger("mixpeek_dagster.feeds")


def follow(warehouse: Warehouse, sync_id: SyncId, *, budget_s: float) -> Looked:
    """Take what the sync's feed has to tell, until it has nothing more or the time is over.

    Raises:
        NotNow: see there; nothing was acknowledged. Failures of the provider, also between two pieces of news.
    """
    with warehouse.catalog.reading() as records:
        sync = records.syncs.get(sync_id)
    source = warehouse.source(sync)
    done = Looked()
    if not source.capabilities.feed or not is_followable(sync):
        return done
    feed, position = cast(FeedSource, source), sync.cursor.feed_position
    deadline = time.monotonic() + budget_s
    while True:
        news = feed.news(position)
        moved = news.position is not None and news.position != position
        if news.messages or moved:
            done += look_at(warehouse, sync_id, news)
            feed.acknowledge(news)
            position = news.position
        if not news.messages or time.monotonic() >= deadline:
            return done


def follow_all(warehouse: Warehouse, *, budget_s: float) -> dict[SyncId, Looked | MixpeekError]:
    """Follow the feed of every sync that has one; what each led to, or why it failed."""
    deadline = time.monotonic() + budget_s
    with warehouse.catalog.reading() as records:
        syncs = [sync for sync in records.syncs.all() if is_followable(sync)]
    done: dict[SyncId, Looked | MixpeekError] = {}
    for sync in syncs:
        try:
            if warehouse.source(sync).capabilities.feed:
                done[sync.sync_id] = follow(warehouse, sync.sync_id, budget_s=max(deadline - time.monotonic(), 0.0))
        except NotNow:
            continue
        except MixpeekError as error:
            done[sync.sync_id] = error
        except Exception as error:  # the other feeds are followed all the same
            logger.exception("The feed of sync %s failed.", sync.sync_id)
            done[sync.sync_id] = MixpeekError(words_of(error))
    return done
