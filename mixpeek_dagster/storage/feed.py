"""The port to a provider's change feed: news about files, sooner than a listing tells, and never taken at their word.

A feed only marks what to look at. Whoever follows it asks the source itself for each file and acknowledges the news after what it
found was committed; so news may come twice, late, out of order, or be about nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable


@dataclass(frozen=True, kw_only=True)
class News:
    """What a feed has to tell.

    Attributes:
        keys: files to look at; those outside of the source's place are left out already.
        prefixes: registered keys that begin like this have to be looked at too.
        everything: the feed lost track, or tells of more than single files: only a whole pass can say.
        position: where to go on, for feeds that are read from a place.
        receipts: what to acknowledge, for feeds that forget what was acknowledged.
        messages: how many there were, those that were about nothing included; none means that the feed has nothing more now.
    """

    keys: Sequence[bytes] = ()
    prefixes: Sequence[bytes] = ()
    everything: bool = False
    position: str | None = None
    receipts: Sequence[Any] = field(default=(), repr=False)
    messages: int = 0


@runtime_checkable
class FeedSource(Protocol):
    """What a source with `capabilities.feed` has besides. Failures are those of `ObjectSource`."""

    def news(self, position: str | None) -> News:
        """The next news, without waiting for any; `position` is that of the news before, None at the very first."""
        ...

    def acknowledge(self, news: News) -> None:
        """What the news led to was committed: they need not come again."""
        ...
