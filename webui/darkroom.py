"""The Python way in: ``Darkroom`` draws requests without a server, a queue or a page."""

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Self

from webui.core.catalog import Catalog
from webui.core.events import Event, Image, Loading
from webui.core.order import Order
from webui.core.request import Request
from webui.core.settings import Settings
from webui.jobs.resolve import make_order
from webui.library.library import Library

if TYPE_CHECKING:
    from webui.engine.manager import PipelineManager


def _never() -> bool:
    return False


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
        """What a request becomes, by the files that are there now; raises RequestError for what cannot be drawn."""
        files = self.library.snapshot(max_age_s=0)
        return make_order(request, files)

    def generate(self, request: Request, cancelled: Callable[[], bool] = _never) -> Iterator[Event]:
        """The events of a request, the last one Done, or Cancelled soon after ``cancelled`` says so.

        Raises RequestError at once for what cannot be drawn, and while it draws what ``PipelineManager.draw`` raises.
        """
        order = self.plan(request)
        return self.manager.draw(order, cancelled)

    def draw(self, request: Request) -> list[Image]:
        """The finished pictures of a request, each with its ``image`` and its ``recipe``."""
        return [event for event in self.generate(request) if isinstance(event, Image)]

    def load(self, name: str, cancelled: Callable[[], bool] = _never) -> Iterator[Loading]:
        """Makes a model ready before it is drawn with; yields how far it is. Raises RequestError."""
        first = self.plan(Request(model=name)).passes[0]
        return self.manager.load(first.model, first.lenders, cancelled)

    def close(self) -> None:
        """Lets go of the model; the next picture would load it again."""
        if "manager" in vars(self):
            vars(self).pop("manager").close()
