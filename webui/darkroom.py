"""The Python way in: ``Darkroom`` draws requests without a server, a queue or a page."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Self

from webui.core.catalog import Catalog
from webui.core.events import Cancelled, Done, Event, Image, Loading
from webui.core.grid import Grid, turns_of
from webui.core.ledger import balance
from webui.core.order import Order
from webui.core.request import Request
from webui.core.settings import Settings
from webui.core.sheet import make_sheet
from webui.core.work import Work
from webui.jobs.resolve import make_order, plan_work
from webui.library.library import Library

if TYPE_CHECKING:
    from webui.engine.manager import PipelineManager


def _never() -> bool:
    return False


def _both(one: Done, other: Done) -> Done:
    warnings = tuple(dict.fromkeys((*one.warnings, *other.warnings)))
    seconds = one.seconds + other.seconds
    return Done(seconds, balance(seconds, one.parts_s, other.parts_s), warnings, one.loras or other.loras)


class Darkroom:
    """The files that settings name, and one engine that draws with them. Not thread-safe: one thread owns it.

    torch is imported when something is drawn or loaded first. Nothing is written but what the cache folder keeps.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.library = Library(self.settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    @cached_property
    def manager(self) -> "PipelineManager":
        """The engine; raises RequestError for a device that is not there."""
        from webui.engine.manager import PipelineManager

        return PipelineManager(self.settings.engine_options)

    def catalog(self) -> Catalog:
        """The models, LoRAs, autoencoders and embeddings by name, and the samplers with their schedules."""
        return Catalog.of(self.library.snapshot(max_age_s=0))

    def plan(self, request: Request) -> Order:
        """What a request becomes that leaves no words to chance, by the files that are there now.

        Raises RequestError for what cannot be drawn.
        """
        files = self.library.snapshot(max_age_s=0)
        return make_order(request, files)

    def generate(self, work: Work, cancelled: Callable[[], bool] = _never) -> Iterator[Event]:
        """The events of a request, or of other work, the last one Done, or Cancelled soon after ``cancelled`` says so.

        A grid's pictures are numbered by their places, and come in the order with the fewest changes; its sheet is the
        last. Raises RequestError at once for what cannot be drawn, and while it draws what ``PipelineManager.draw``
        raises.
        """
        return self._draw(*plan_work(work, self.library.snapshot(max_age_s=0)), cancelled)

    def _draw(self, orders: Sequence[Order], grid: Grid | None, cancelled: Callable[[], bool]) -> Iterator[Event]:
        """Several orders as one: their pictures are numbered through, and the end tells of all of them."""
        before, drawn = None, list[Image]()
        turns = turns_of(orders, grid)
        for order, first in turns:
            for event in self.manager.draw(order, cancelled):
                if isinstance(event, Image):
                    event = replace(event, index=first + event.index)
                    drawn += [event] if grid else []
                elif isinstance(event, Done):
                    event = before = _both(before, event) if before else event
                    if order is not turns[-1][0]:
                        continue
                if grid and drawn and isinstance(event, Done | Cancelled):
                    yield make_sheet(grid, drawn, grid.image_count)[0]
                yield event
                if isinstance(event, Cancelled):
                    return

    def draw(self, work: Work) -> list[Image]:
        """The finished pictures of a request, or of other work, each with its ``image`` and its ``recipe``."""
        return [event for event in self.generate(work) if isinstance(event, Image)]

    def load(self, name: str, cancelled: Callable[[], bool] = _never) -> Iterator[Loading]:
        """Makes a model ready before it is drawn with; yields how far it is. Raises RequestError."""
        first = self.plan(Request(model=name)).passes[0]
        return self.manager.load(first.model, first.lenders, cancelled)

    def close(self) -> None:
        """Lets go of the model; the next picture would load it again."""
        if "manager" in vars(self):
            vars(self).pop("manager").close()
