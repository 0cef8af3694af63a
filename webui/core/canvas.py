"""A start picture at the size the model draws at, its mask, and the way back to the picture people get."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from PIL import Image as PilImages
from PIL.Image import Image as PilImage

from webui.core import images
from webui.core.errors import RequestError
from webui.core.groups.init import MAX_BLUR_PX, MAX_PADDING_PX, Init
from webui.core.images import FILTER, MAX_SIDE_PX, MIN_SIDE_PX, Cut
from webui.core.stages import WHOLE, Pass, Shares


@dataclass(frozen=True)
class Canvas:
    """``image`` is RGB and ``mask`` (if any) "L", both ``size``, sides multiples of 8.

    ``unchanged`` is the result when nothing is drawn. ``finish`` turns what was drawn (RGB, ``size``) into the
    result: outside the blurred mask it has the very pixels of the input. ``latent_size`` differs from ``size``
    only for "latent resize". ``greys`` says that the mask has more than the greys of its soft edge.
    """

    image: PilImage
    unchanged: PilImage
    mask: PilImage | None
    latent_size: images.Size
    finish: Callable[[PilImage], PilImage]
    greys: bool = False

    @property
    def nothing_masked(self) -> bool:
        """Whether there is a mask, and it is black all over."""
        return self.mask is not None and self.mask.getbbox() is None

    @property
    def nbytes(self) -> int:
        """Memory that the pictures hold, those of ``finish`` too: Pillow takes 4 bytes for RGB and 1 for grey."""
        drawn, whole = self.image.width * self.image.height, self.unchanged.width * self.unchanged.height
        return 10 * drawn + 5 * whole

    @property
    def size(self) -> images.Size:
        """(width, height) of image and mask in px."""
        return self.image.size


def drawn_size(init: Init, width_px: int | None, height_px: int | None, native_px: int) -> images.Size:
    """The size to draw at: as asked for, else the picture's own, snapped to multiples of 8.

    Only-masked regions are drawn at the model's own size. Raises RequestError for a picture too large to keep.
    """
    if init.only_masked and init.masked:
        return width_px or native_px, height_px or native_px
    width, height = init.extended_size
    across, down = images.snapped_size((width, height))
    size = width_px or across, height_px or down
    if max(size) > MAX_SIDE_PX or min(size) < MIN_SIDE_PX:
        raise RequestError(
            f"the picture is {width} x {height} px, and sides are drawn at {MIN_SIDE_PX} to {MAX_SIDE_PX} px; "
            "give width and height, or draw only the masked part",
            field="width",
        )
    return size


def fitted(init: Init, size: images.Size) -> Init:
    """The same with no more pixels than are drawn of it, where the canvas of both is the same to the last bit.

    What waits in a queue, and what a recipe has kept, is not a photograph for a small picture.
    """
    image = init.image
    if init.masked or init.resize == "latent resize" or image.width * image.height <= size[0] * size[1]:
        return init
    fields = {name: getattr(init, name) for name in Init.model_fields}  # a copy would keep the fingerprint
    return Init(**fields | {"image": make_canvas(init, size).image})


def begun_again(picture: PilImage, first: Pass, cut: Cut | None = None) -> Init:
    """A start picture out of what the ``first`` pass made of its own: what that kept is kept again.

    ``picture`` is what was made, at another size, or the part ``cut`` of it: left out, the middle, in the new shape.
    """
    init = first.init
    if init is None or not init.masked:
        return Init(image=picture)
    mask = init.whole_mask
    assert mask
    if not init.only_masked:
        mask = images.resize(mask, first.size, _in_pixels(init.resize))
    cut = cut or images.filling_cut(mask.size, picture.size)
    scale = picture.width / (cut[2] - cut[0])
    return Init(
        image=picture,
        mask=images.mask_levels(mask.resize(picture.size, FILTER, cut)),
        mask_blur=min(round(init.mask_blur * scale), MAX_BLUR_PX),
        only_masked=init.only_masked,
        padding=min(round(init.padding * scale), MAX_PADDING_PX),
    )


def make_canvas(init: Init, size: images.Size) -> Canvas:
    """Brings picture and mask to ``size``. A picture that has it already is used as it is, without a copy."""
    image, mask = init.shown, init.whole_mask
    if mask is None:
        return _whole(image, size, init.resize)
    if init.only_masked:
        return _region(image, mask, size, init)
    return _masked(image, mask, size, init)


def drawn_part(init: Init | None, size: images.Size) -> Shares:
    """What of the picture a pass of this size draws: the part around the mask with only masked, else all of it."""
    mask = init.whole_mask if init and init.only_masked else None
    box = mask and init and images.masked_region(mask, init.padding, size)
    if not mask or not box:
        return WHOLE
    left, top, right, bottom = box
    return left / mask.width, top / mask.height, right / mask.width, bottom / mask.height


def _whole(image: PilImage, size: images.Size, mode: images.ResizeMode) -> Canvas:
    if mode == "latent resize":
        encoded = images.ensure_multiple_of_8(image)
        return Canvas(encoded, images.resize(image, size, "just resize"), None, size, lambda drawn: drawn)
    resized = images.resize(image, size, mode)
    return Canvas(resized, resized, None, size, lambda drawn: drawn)


def _masked(image: PilImage, mask: PilImage, size: images.Size, init: Init) -> Canvas:
    mode, greys = _in_pixels(init.resize), images.has_greys(mask)
    kept, mask = images.resize(image, size, mode), images.resize(mask, size, mode)
    soft, opacity = images.blur(mask, init.mask_blur), _opacity(mask, greys, init)
    shown = images.fill_masked(kept, mask) if init.mask_fill == "fill" else kept
    return Canvas(shown, kept, soft, size, lambda drawn: PilImages.composite(drawn, kept, opacity), greys)


def _region(image: PilImage, mask: PilImage, size: images.Size, init: Init) -> Canvas:
    """Cuts the masked region out, enlarged to ``size``; ``finish`` scales it back into the whole picture."""
    box = images.masked_region(mask, init.padding, size)
    if box is None:
        return replace(_masked(image, mask, images.snapped_size(image.size), init), unchanged=image)
    inner = _masked(image.crop(box), mask.crop(box), size, init.model_copy(update={"resize": "just resize"}))
    opacity = _opacity(mask, inner.greys, init)

    def finish(drawn: PilImage) -> PilImage:
        whole = image.copy()
        whole.paste(images.resize(drawn, (box[2] - box[0], box[3] - box[1]), "just resize"), box[:2])
        return PilImages.composite(whole, image, opacity)

    return Canvas(inner.image, image, inner.mask, size, finish, inner.greys)


def _in_pixels(mode: images.ResizeMode) -> images.ResizeMode:
    """How a picture is resized beside its mask, which has no latents."""
    return "just resize" if mode == "latent resize" else mode


def _opacity(mask: PilImage, greys: bool, init: Init) -> PilImage:
    """How much is shown of what was drawn: what was white before it was resized all over, greys by their level."""
    return images.blur(images.opacity(mask) if greys else images.support(mask), init.mask_blur)
