"""Orders drawn together: each has a loop of its own, and where loops ask the network, one forward answers them all.

A loop is a generator on the device's one thread. It yields what it asks (``Asked``) and goes on with the answer, or
asks by itself where there is none. So an order can join at any step, and end, fail or be cancelled by itself.
"""

import logging
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch

from webui.core.events import Event
from webui.engine.devices import is_out_of_memory, release_memory
from webui.engine.families.base import Backbone

log = logging.getLogger(__name__)

W = TypeVar("W")


@dataclass(eq=False)
class Alone:
    """What an order waits for that changes what is in memory: that no other is at work, or that it is cancelled."""

    cancelled: Callable[[], bool]


@dataclass(eq=False)
class Asked:
    """What a loop waits for: a forward of ``seen`` (n, channels, h, w) at ``time``, told what is ``prepared``.

    ``said`` is the answer, None where the loop is to ask by itself; so many pictures have ``met`` in it.
    """

    cancelled: Callable[[], bool]
    backbone: Backbone
    seen: torch.Tensor
    time: torch.Tensor
    prepared: Any
    said: Sequence[torch.Tensor] | None = None
    met: int = 1

    @property
    def form(self) -> Hashable:
        """The same for those that one forward can answer."""
        return id(self.backbone), self.seen.shape[1:], self.prepared.form


Said = Event | Asked | Alone
"""What an order yields on its way."""


@dataclass(eq=False)
class _Seat(Generic[W]):
    """An order at work: whose it is, and what it waits for."""

    whose: W
    events: Iterator[Said]
    waits: Asked | Alone | None = None


class Together:
    """Has orders meet. Where so many pictures did not go at once, fewer are tried from then on."""

    def __init__(self) -> None:
        self._most: dict[Hashable, int] = {}
        self._joined: tuple[Sequence[Any], Any] = (), None

    def draw(
        self, whose: W, events: Iterator[Said], more: Callable[[], tuple[W, Iterator[Said]] | None]
    ) -> Iterator[tuple[W, Event]]:
        """The events of an order and of those that join it, each with whose it is, until none is at work.

        The one that has been at work longest leads: what it asks is answered at once, and what others ask with it where
        that fits; the rest waits until it leads. ``more`` gives another one that joins, or None, before a forward.
        """
        seats = [_Seat(whose, events)]
        yield from self._advance(seats)
        try:
            while seats := [seat for seat in seats if seat.waits]:
                asking = [seat for seat in seats if isinstance(seat.waits, Asked)]
                if over := [seat for seat in seats if seat.waits and seat.waits.cancelled()]:
                    yield from self._advance(over)
                elif not asking:
                    yield from self._advance(seats[:1])
                elif asking == seats and self._has_room(seats) and (joining := more()):
                    seats.append(_Seat(*joining))
                    yield from self._advance(seats[-1:])
                else:
                    yield from self._advance(self._answer(asking))
        finally:
            self._joined = (), None

    def _advance(self, seats: Iterable[_Seat[W]]) -> Iterator[tuple[W, Event]]:
        """Each until it waits for something, or is over."""
        for seat in seats:
            seat.waits = None
            for said in seat.events:
                if isinstance(said, Asked | Alone):
                    seat.waits = said
                    break
                yield seat.whose, said

    def _has_room(self, seats: Sequence[_Seat[W]]) -> bool:
        """Whether one more picture may go with the leading order's."""
        asked = [seat.waits for seat in seats if isinstance(seat.waits, Asked)]
        most = self._most.get(asked[0].form)
        return most is None or sum(len(each.seen) for each in asked) < most

    def _answer(self, asking: Sequence[_Seat[W]]) -> list[_Seat[W]]:
        """Answers what the leading order asks, and what goes with it; gives all that can go on."""
        first = asking[0].waits
        assert isinstance(first, Asked)
        form, those, count = first.form, list[tuple[_Seat[W], Asked]](), 0
        for seat in asking:
            asked = seat.waits
            if not isinstance(asked, Asked) or asked.form != form:
                continue
            if not those or count + len(asked.seen) <= self._most.get(form, count + len(asked.seen)):
                those.append((seat, asked))
                count += len(asked.seen)
        if len(those) > 1 and not self._ask([asked for _, asked in those]):
            self._most[form] = count // 2
            del those[1:]
        return [seat for seat, _ in those]

    @torch.inference_mode()
    def _ask(self, those: Sequence[Asked]) -> bool:
        """Asks all of it at once; false where that did not work, whatever it was: each can still ask by itself."""
        counts = [len(asked.seen) for asked in those]
        try:
            self._predict(those, counts)
            return True
        except Exception as error:
            is_memory = is_out_of_memory(error)
            log.warning("%d pictures could not be drawn together: %s", sum(counts), str(error).partition("\n")[0])
        # Not before ``except`` is left: until then its traceback holds the tensors of what failed.
        self._joined = (), None
        if is_memory:
            release_memory(those[0].seen.device)
        return False

    def _predict(self, those: Sequence[Asked], counts: Sequence[int]) -> None:
        backbone, told = those[0].backbone, [asked.prepared for asked in those]
        known, joined = self._joined
        if len(known) != len(told) or any(one is not other for one, other in zip(known, told, strict=True)):
            self._joined = (), None  # the former one goes first
            joined = backbone.join(told, counts)
            self._joined = told, joined
        seen = torch.cat([asked.seen for asked in those])
        times = [asked.time.to(seen.device, torch.float32).expand(len(asked.seen)) for asked in those]
        answers = backbone.predict(seen, torch.cat(times), joined)
        for asked, *said in zip(those, *(answer.split(list(counts)) for answer in answers), strict=True):
            asked.said, asked.met = said, sum(counts)
