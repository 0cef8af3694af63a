"""Parts of a picture found, and each drawn again, enlarged, and put back before the next is drawn."""

import io
import math
from collections import defaultdict
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from functools import partial

from PIL import Image as PilImages
from PIL.Image import Image as PilImage

from webui.core import images
from webui.core.canvas import begun_again
from webui.core.events import Step
from webui.core.files import FinderFile
from webui.core.found import Part, Spot, in_order
from webui.core.groups.init import Init
from webui.core.names import PAINTED, PREVIOUS
from webui.core.stages import Detail, Pass
from webui.core.weight_files import hash_whole
from webui.engine.finders.network import Finders
from webui.engine.finders.subject import find_subject
from webui.engine.run import Place, Run
from webui.engine.together import Said

PREVIEW_PX = 256
PREVIEW_QUALITY = 85

Redraw = Callable[[Pass, int, Place], Generator[Said, None, PilImage]]
"""A picture, by its number in the job, as a pass makes it from its ``init`` alone."""


class Detailer:
    """Draws the details of one try at an order, and keeps what was found in each picture until its recipe says it."""

    def __init__(self, finders: Finders, redraw: Redraw, run: Run) -> None:
        self._finders, self._redraw, self._run = finders, redraw, run
        self._found: dict[int, list[Sequence[Part]]] = defaultdict(list)

    def begin(self) -> None:
        """Another batch: nothing is found yet."""
        self._found.clear()

    def take(self, number: int) -> tuple[tuple[Spot, ...], ...]:
        """What each detail found in picture ``number`` of the job."""
        return tuple(tuple(part.spot for part in parts) for parts in self._found.pop(number, ()))

    def draw(
        self, stage: Detail, pictures: Sequence[PilImage], index: int, first: int, place: Place
    ) -> Generator[Said, None, PilImage]:
        """The picture of this index in a batch, whose first is number ``first`` of the job, with its parts drawn again;
        the very picture where none is found."""
        run, picture, number = self._run, pictures[index], first + index
        run.check()
        with run.part("find"):
            parts = self._find(stage, picture, self._found[number][-1] if self._found[number] else ())
        self._found[number].append(parts)
        masks = [mask for part in parts if (mask := part.mask_of(picture.size, stage.dilate_px)).getbbox()]
        if not masks:
            name = stage.finder if isinstance(stage.finder, str) else stage.finder.name
            which = f"picture {number + 1}" if run.order.request.image_count > 1 else "the picture"
            what = f"dilate {stage.dilate_px} leaves nothing of what {name} found" if parts else f"{name} found nothing"
            run.warn(f"Detail: {what} in {which}, which stays as it is.")
        for k, mask in enumerate(masks):
            init = Init(
                image=picture,
                mask=mask,
                only_masked=True,
                padding=stage.padding_px,
                strength=stage.each.strength,
            )
            shown = _Shown([*pictures[:index], picture, *pictures[index + 1 :]], index, init, stage.each)
            drawing = self._redraw(
                replace(stage.each, begin="picture", init=init),
                number,
                Place(place.behind, place.number * len(masks) + k, place.of * len(masks)),
            )
            while True:
                try:
                    event = next(drawing)
                except StopIteration as stop:
                    picture = stop.value
                    break
                yield shown.whole(event) if isinstance(event, Step) and event.preview else event
        return picture

    def _find(self, stage: Detail, picture: PilImage, before: Sequence[Part]) -> Sequence[Part]:
        """The parts to draw, in their order."""
        if isinstance(stage.finder, FinderFile):
            file = stage.finder
            self._run.hashes.want("finder", file.name, partial(hash_whole, file.path))
            found = self._finders.load(file).find(picture, stage.threshold)
        elif stage.finder == PREVIOUS:
            return before[: stage.at_most]
        elif stage.finder == PAINTED:
            found = _painted(picture, self._run.order.passes[0])
        else:
            found = find_subject(picture)
        return in_order(found, stage.threshold, stage.at_most)


def _painted(picture: PilImage, first: Pass) -> list[Part]:
    """What was painted over the start picture, as one part; none where nothing was."""
    mask = begun_again(picture, first).mask
    box = mask.getbbox() if mask else None
    return [Part(box, 1.0, mask)] if box else []


class _Shown:
    """All pictures of a batch, small, as previews lay them out, in which those of a part have their place."""

    def __init__(self, pictures: Sequence[PilImage], index: int, init: Init, each: Pass) -> None:
        assert init.mask
        picture, columns = pictures[index], math.ceil(math.sqrt(len(pictures)))
        scale = min(1.0, PREVIEW_PX / max(picture.size))
        width, height = (max(1, round(side * scale)) for side in picture.size)
        self._sheet = PilImages.new("RGB", (columns * width, -(-len(pictures) // columns) * height), (255, 255, 255))
        corners = [(k % columns * width, k // columns * height) for k in range(len(pictures))]
        for corner, own in zip(corners, pictures, strict=True):
            self._sheet.paste(own.convert("RGB").resize((width, height)), corner)
        left, top, right, bottom = images.masked_region(init.mask, init.padding, each.size) or (0, 0, *picture.size)
        self._size = max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale))
        self._corner = corners[index][0] + round(left * scale), corners[index][1] + round(top * scale)

    def whole(self, step: Step) -> Step:
        """The step with a preview of all of them."""
        assert step.preview
        sheet = self._sheet.copy()
        with PilImages.open(io.BytesIO(step.preview)) as part:
            sheet.paste(part.convert("RGB").resize(self._size), self._corner)
        buffer = io.BytesIO()
        sheet.save(buffer, "JPEG", quality=PREVIEW_QUALITY)
        return replace(step, preview=buffer.getvalue())
