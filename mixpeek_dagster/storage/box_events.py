"""News from Box's event stream of what a user sees: at least once, in no order, kept for two weeks."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Told(NamedTuple):
    """Ids of files to look at; `everything` when a folder moved, went or came back, which no event of its files tells."""

    file_ids: Sequence[str]
    everything: bool


_ABOUT_FILES = frozenset(
    {
        "ITEM_CREATE",
        "ITEM_UPLOAD",
        "ITEM_COPY",
        "ITEM_MOVE",
        "ITEM_RENAME",
        "ITEM_MODIFY",
        "ITEM_TRASH",
        "ITEM_UNDELETE_VIA_TRASH",
    }
)


def told_by(events: Sequence[Any]) -> Told:
    """What a piece of the stream is about. Events of other kinds, and malformed ones, are about nothing."""
    file_ids: dict[str, None] = {}
    everything = False
    for event in events:
        source = event.get("source") if isinstance(event, Mapping) else None
        if not isinstance(source, Mapping) or event.get("event_type") not in _ABOUT_FILES:
            continue
        if source.get("type") == "file" and str(source.get("id", "")).isdecimal():
            file_ids[str(source["id"])] = None
        elif source.get("type") == "folder" and event["event_type"] != "ITEM_CREATE":
            everything = True
    return Told(list(file_ids), everything)
