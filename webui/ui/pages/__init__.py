"""The tabs, in order. To add one: a module with ``build`` here, and its line in ``PAGES``."""

from collections.abc import Callable
from dataclasses import dataclass

from webui.core.executor import Executor
from webui.ui.pages import coming, txt2img


@dataclass(frozen=True)
class Page:
    """A tab: ``name`` prefixes its element ids, ``build`` makes its components inside the open tab."""

    name: str
    build: Callable[[Executor], None]


PAGES = (
    Page("txt2img", txt2img.build),
    Page("img2img", coming.build("img2img", "Rework a picture of yours with a prompt.")),
    Page("inpaint", coming.build("inpaint", "Paint over a part of a picture and have it drawn anew.")),
)
