"""How often passwords may be guessed: each name from one address, each name in all, and all names together.

A browser that has logged in before has tries of its own, which others' guesses do not use up, so nobody is locked out
by them; nor is whoever holds the owner's key, who is not asked for a password.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cachetools import LRUCache

MOST_KNOWN = 20_000


@dataclass(frozen=True)
class Pace:
    """``burst`` wrong tries at once, then one every ``every_s`` seconds."""

    burst: int
    every_s: float


FROM_ONE = Pace(5, 20.0)
FOR_A_NAME = Pace(20, 5.0)
FOR_ALL = Pace(60, 1.0)


class Attempts:
    """Wrong tries, counted by whom they came from; ``clock`` gives seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._spent: LRUCache[tuple[str, ...], tuple[float, float]] = LRUCache(MOST_KNOWN)

    def wait_s(self, name: str, address: str, known: str) -> float:
        """How long until this name may be tried from there; 0.0 for now. ``known`` is what tells a browser that has
        logged in under the name before, "" for all others."""
        waits = (self._count(key, pace) + 1 - pace.burst for key, pace in _counted(name, address, known))
        paces = (pace.every_s for _, pace in _counted(name, address, known))
        return max(0.0, *(over * every_s for over, every_s in zip(waits, paces, strict=True)))

    def failed(self, name: str, address: str, known: str) -> None:
        """Notes a wrong try."""
        for key, pace in _counted(name, address, known):
            self._spent[key] = (self._count(key, pace) + 1, self._clock())

    def _count(self, key: tuple[str, ...], pace: Pace) -> float:
        count, at_s = self._spent.get(key, (0.0, 0.0))
        return max(0.0, count - (self._clock() - at_s) / pace.every_s)


def _counted(name: str, address: str, known: str) -> Iterator[tuple[tuple[str, ...], Pace]]:
    if known:
        yield ("known", known), FROM_ONE
        return
    yield ("from", name, address), FROM_ONE
    yield ("name", name), FOR_A_NAME
    yield ("all",), FOR_ALL
