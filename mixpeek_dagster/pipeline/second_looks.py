"""Files that were not what had been listed when they were read: each is asked for at its source again, at once, as a feed's news are.

What is found is recorded as by a pass, and a batch with it follows. Files that change faster than they are read end after a few such
batches as failures.
"""

from collections.abc import Iterable

from mixpeek_dagster.errors import CatalogError, Changed, MixpeekError
from mixpeek_dagster.models.batches import Batch
from mixpeek_dagster.models.ids import SyncId
from mixpeek_dagster.pipeline.intake import AGAIN
from mixpeek_dagster.pipeline.looks import Doubt, NotNow, look_at
from mixpeek_dagster.pipeline.reading import Item
from mixpeek_dagster.pipeline.warehouse import Warehouse
from mixpeek_dagster.storage.feed import News

_TRIED_AGAIN = "Passes try it again."
MOST = 2
"""So many batches in a row are made for a file that changes before it is read."""


class SecondLooks:
    """Those of one step."""

    def __init__(self, warehouse: Warehouse, batch: Batch) -> None:
        self._warehouse, self._batch = warehouse, batch
        self._again = int((batch.metadata or {}).get(AGAIN, 0)) + 1

    def take(self, items: Iterable[Item]) -> None:
        """Look at the outdated files of a window, all of a sync at once; every such item has `skip` or `error` then.

        To be called before the window is recorded: a crash between the two reads it again, and then finds what is there now.
        """
        outdated: dict[SyncId, list[Item]] = {}
        for item in items:
            if item.outdated is not None and item.stored is not None and item.stored.sync_id is not None:
                outdated.setdefault(item.stored.sync_id, []).append(item)
        for sync_id, found in outdated.items():
            settled = self._look(sync_id, {item.outdated for item in found if item.outdated is not None})
            for item in found:
                if isinstance(settled, MixpeekError):
                    item.error = settled
                elif item.outdated in settled:
                    item.skip = "the file changed or went since it was listed, and was looked at again"
                else:
                    item.error = Changed(
                        f"The file was not there when it was read, and is not believed to be gone. {_TRIED_AGAIN}"
                    )

    def _look(self, sync_id: SyncId, keys: set[bytes]) -> frozenset[bytes] | MixpeekError:
        """The keys that something was done about; or why nothing was."""
        if self._again > MOST:
            return Changed(
                f"The file changed, or was not there, {self._again} times in a row between being looked at and being read. {_TRIED_AGAIN}"
            )
        doubt = Doubt(again=self._again, batch=self._batch)
        try:
            return look_at(self._warehouse, sync_id, News(keys=sorted(keys)), doubt=doubt).settled
        except NotNow:
            return Changed(f"The file changed or went since it was listed, while a pass was under way. {_TRIED_AGAIN}")
        except CatalogError:
            raise
        except MixpeekError as error:
            return error
