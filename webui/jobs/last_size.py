"""The size that a warm-up draws: that of the last picture, where a step of it was quick."""

import json
import logging
from pathlib import Path

from webui.core.disk import replace_file
from webui.core.images import MAX_SIDE_PX, MIN_SIDE_PX, SIDE_STEP_PX, Size
from webui.core.names import choose_file
from webui.core.order import Order
from webui.core.request import Request
from webui.jobs.resolve import make_order
from webui.library.library import Snapshot

QUICK_STEP_S = 1.0

log = logging.getLogger(__name__)


class LastSize:
    """One model's last size, kept in ``file``; a file that cannot be read or written costs the warm-up its aim."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def of(self, model: str) -> Size | None:
        """In px; None where nothing is known of the model, or a step took long."""
        try:
            kept = json.loads(self._file.read_text("utf-8"))
            size = kept["width"], kept["height"]
            return size if kept["model"] == model and all(map(_is_side, size)) else None
        except (OSError, ValueError, LookupError, TypeError):
            return None

    def keep(self, model: str, size: Size, step_s: float) -> None:
        """Notes what was drawn, and how long a step of it took."""
        width, height = size
        known = {"model": model, "width": width, "height": height} if step_s < QUICK_STEP_S else {}
        data = json.dumps(known).encode("utf-8")
        try:
            if not self._file.exists() or self._file.read_bytes() != data:
                replace_file(self._file, data)
        except OSError as error:
            log.info("the size for the next warm-up is not kept: %s", error)

    def note(self, request: Request, step_s: float) -> None:
        """A picture of this request was drawn, with steps of so many seconds."""
        if step_s and request.width and request.height:
            self.keep(request.model, (request.width, request.height), step_s)

    def plan_warm_up(self, model: str, library: Snapshot) -> Order:
        """One step of the model. With reuse it is one of the plain UNet: no code is compiled for its size."""
        name = choose_file("model", model, library.models)
        width, height = self.of(name) or (MIN_SIDE_PX, MIN_SIDE_PX)
        return make_order(Request(model=name, steps=1, width=width, height=height, seed=0, reuse=2), library)


def _is_side(number: object) -> bool:
    return type(number) is int and MIN_SIDE_PX <= number <= MAX_SIDE_PX and number % SIDE_STEP_PX == 0
