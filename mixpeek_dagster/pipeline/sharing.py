"""Files that more than one sync of a bucket follows: each is one object.

Two syncs may overlap, and one that was deleted may be made again. A file is known by the place where it is and its key there: what
another sync of the same place has an object of already is noted, not registered anew. Whoever sees a file change first records the
change and reads the object from then on; whoever lets a file go leaves its object to a sync that follows it still.
"""

import json
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from mixpeek_dagster.catalog import Records
from mixpeek_dagster.catalog.shared_keys import KnownFile
from mixpeek_dagster.errors import MixpeekError
from mixpeek_dagster.models.ids import SyncId
from mixpeek_dagster.models.objects import StoredObject
from mixpeek_dagster.models.syncs import Sync, SyncStatus
from mixpeek_dagster.pipeline.removal import remove_objects
from mixpeek_dagster.pipeline.warehouse import Warehouse
from mixpeek_dagster.storage.connect import FSSPEC, canonical

_NO_PLACE = {"credentials", "options", "tokens", "events", "order", "region", "use_ssl", "verify_ssl", "path_style"}
_IN_LOCATION = {"bucket", "bucket_name", "container", "prefix", "folder_id", "root"}


@dataclass(frozen=True)
class SharedFile:
    """A file that another sync has an object of; `is_left` when that sync was deleted."""

    known: KnownFile
    stored: StoredObject
    is_left: bool


@dataclass(frozen=True)
class Others:
    """The other syncs of a sync's bucket: all of them, those that follow the same place, and deleted ones that followed it."""

    live: Mapping[SyncId, SyncStatus] = field(default_factory=dict)
    near: frozenset[SyncId] = frozenset()
    left: frozenset[SyncId] = frozenset()


def place_of(records: Records, warehouse: Warehouse, sync: Sync) -> str | None:
    """What two syncs have in common whose keys name the same files; None when the sync's connection does not fit any more."""
    try:
        location = warehouse.source(sync).location(b"")
    except MixpeekError:
        return None
    connection, _ = records.syncs.connection(sync.connection_id)
    provider = canonical(connection.provider)
    config = {key: value for key, value in connection.config.items() if key not in _NO_PLACE | _IN_LOCATION and value is not None}
    if provider.startswith(FSSPEC):  # its host may be in the options, which are secret
        config["connection_id"] = connection.connection_id
    return f"{provider} {location} {json.dumps(config, sort_keys=True)}"


def others_of(records: Records, warehouse: Warehouse, sync: Sync) -> Others:
    """Read which other syncs the bucket has; costs next to nothing where there is none."""
    live = [one for one in records.syncs.all(sync.bucket_id) if one.sync_id != sync.sync_id]
    left = records.shared_keys.left(sync.bucket_id)
    mine = place_of(records, warehouse, sync) if live or left else None
    return Others(
        live={one.sync_id: one.status for one in live},
        near=frozenset(one.sync_id for one in live if mine is not None and place_of(records, warehouse, one) == mine),
        left=frozenset(sync_id for sync_id, place in left.items() if place == mine),
    )


def files_elsewhere(records: Records, warehouse: Warehouse, sync: Sync, keys: Sequence[bytes]) -> Mapping[bytes, SharedFile]:
    """Those of the keys that another sync of the same place has an object of, or a deleted one left."""
    if not keys:
        return {}
    others = others_of(records, warehouse, sync)
    known = records.shared_keys.known(others.near | others.left, keys)
    stored = records.objects.named({one.object_id for one in known}) if known else {}
    there = [one for one in known if one.object_id in stored]
    there.sort(key=lambda one: one.sync_id not in others.left)  # a living sync's word is the last
    return {one.key: SharedFile(one, stored[one.object_id], is_left=one.sync_id in others.left) for one in there}


def let_go(
    records: Records, warehouse: Warehouse, sync: Sync, lost: Mapping[bytes, str], *, gone: AbstractSet[bytes], now: str
) -> None:
    """Take away the objects of files that a sync follows no more; those that another sync has too are left to it.

    `finish_removals` has to follow the commit.

    Args:
        lost: the object of each key.
        gone: keys of which the provider says so; a sync that makes no more passes over the same place keeps none of them.
    """
    if not lost:
        return
    records.objects.hold_all(lost.values())
    others = others_of(records, warehouse, sync)
    ended = {one for one in others.near if others.live[one] is SyncStatus.COMPLETED}
    kept = {
        one.object_id: one.sync_id
        for one in records.shared_keys.known(set(others.live), list(lost))
        if lost[one.key] == one.object_id and not (one.key in gone and one.sync_id in ended)
    }
    for sync_id in set(kept.values()):
        records.shared_keys.give([object_id for object_id, to in kept.items() if to == sync_id], sync_id)
    remove_objects(records, warehouse, [object_id for object_id in lost.values() if object_id not in kept], now=now)


def leave_files(records: Records, warehouse: Warehouse, sync: Sync, *, now: str) -> bool:
    """Settle who reads the objects of a sync that is being deleted; whether its keys are kept.

    What another sync follows too is that one's. The rest stays, for a sync that is made again for the same place.
    """
    for other in others_of(records, warehouse, sync).live:
        records.shared_keys.give_shared(sync.sync_id, other)
    place = place_of(records, warehouse, sync)
    if place is None:
        return False
    records.shared_keys.leave(sync.sync_id, bucket_id=sync.bucket_id, place=place, now=now)
    return True
