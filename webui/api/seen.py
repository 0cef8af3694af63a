"""Which guests are here, for the host to see."""

import time
from collections.abc import Callable, Mapping

from cachetools import TTLCache

from webui.core.visitor import Visitor

SEEN_S = 24 * 3600
MOST_SEEN = 2000


class Seen:
    """Guests who came in the last day: their names, where the host gave them accounts, and when they last asked."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._guests: TTLCache[str, tuple[str, float]] = TTLCache(MOST_SEEN, SEEN_S, timer=clock)

    def note(self, visitor: Visitor, name: str = "") -> None:
        """The visitor asks for something."""
        if not (visitor.is_owner or visitor.is_new):
            self._guests[visitor.id] = (name, self._clock())

    def all(self) -> Mapping[str, tuple[str, float]]:
        """Names and seconds since, by ids."""
        now_s = self._clock()
        return {guest: (name, now_s - at_s) for guest, (name, at_s) in self._guests.items()}
