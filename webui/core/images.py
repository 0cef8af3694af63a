"""Pictures that come in: opened within bounds, made RGB, sized, masked. Values in, values out; no torch.

Sizes are (width, height) in px. Masks are "L" images: 255 is repainted, 0 is kept, grey is in between.
"""

import base64
import hashlib
import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image as PilImages
from PIL import ImageColor, ImageFilter, ImageOps, UnidentifiedImageError
from PIL.Image import Image as PilImage
from PIL.Image import Resampling

from webui.core.picture_parts import TooManyParts, check_exif, check_parts

SIDE_STEP_PX = 8  # the autoencoder halves the picture three times
MIN_SIDE_PX, MAX_SIDE_PX = 64, 2048
"""Of pictures that are drawn."""
MAX_UPSCALED_SIDE_PX = 8192
MAX_RESULT_PIXELS = MAX_UPSCALED_SIDE_PX**2
"""Of pictures that were made here, which are larger than any that comes in may be."""

PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".avif", ".gif", ".bmp", ".tif", ".tiff")
FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "GIF", "BMP", "TIFF")
JPEG_END = b"\xff\xd9"
MAX_PIXELS = 24_000_000
MAX_FILE_BYTES = 64 * 2**20
MIN_READ_PX = 8  # of pictures that are read
LATENT_STEP_PX = 8
MAX_RECTANGLES, STRIP_PX = 200, 64
PIECE_CHARACTERS = 2**18  # a multiple of four
PIECE_BYTES = 3 * PIECE_CHARACTERS // 4
FILL_SOFTNESS_PX = 6.0
ENDS_EARLY = "ends early"
"""In a picture's ``info`` where its file lacks its end."""
BLACK_LEVEL = 16  # of 255, and where video has its black: what of a mask is no lighter is black
FILTER = Resampling.LANCZOS
ORIENTATION = 0x0112  # the EXIF tag
PNG_MODES = ("1", "L", "LA", "I;16", "P", "RGB", "RGBA")
MODES = (*PNG_MODES, "I", "I;16B", "F", "PA", "La", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV")

Size = tuple[int, int]
Box = tuple[int, int, int, int]
Cut = tuple[float, float, float, float]
ResizeMode = Literal["just resize", "crop and resize", "resize and fill", "latent resize"]

PilImages.MAX_IMAGE_PIXELS = MAX_RESULT_PIXELS  # Pillow refuses from twice that on
warnings.filterwarnings("ignore", module=r"PIL\.")  # what it warns of is refused here, in our own words


class ImageError(ValueError):
    """A picture that cannot be used; the message says what is wrong with it."""


def open_image(source: Path | bytes, max_pixels: int = MAX_PIXELS) -> PilImage:
    """The first frame of a picture file, decoded; raises ImageError. The size is checked before decoding.

    A JPEG that lacks its last bytes is taken all the same, as browsers do, and has ``ENDS_EARLY`` in its ``info``.
    """
    with _worded_errors():
        image = _open(source, max_pixels)
        try:
            image.load()
        except OSError:
            if image.format not in ("JPEG", "MPO"):
                raise
            image = _open((source if isinstance(source, bytes) else source.read_bytes()) + JPEG_END, max_pixels)
            if not _is_nearly_whole(image):
                raise
            image.info[ENDS_EARLY] = True
    if image.mode not in MODES:
        raise ImageError(f"has {image.mode} colours, which cannot be read")
    return image


def _is_nearly_whole(image: PilImage) -> bool:
    """Whether a JPEG's last tenth, two blocks at least, is more than the mid-grey that missing blocks come out as."""
    levels = np.asarray(image)[-max(image.height // 10, 16) :]
    return bool((levels < 127).any() or (levels > 128).any())


@contextmanager
def opened(source: Path | bytes, max_pixels: int = MAX_RESULT_PIXELS) -> Iterator[PilImage]:
    """A picture file whose head was read, not yet decoded; raises ImageError, also for what is done with it inside."""
    with _worded_errors(), _open(source, max_pixels) as image:
        yield image


def _open(source: Path | bytes, max_pixels: int) -> PilImage:
    if isinstance(source, bytes):
        if len(source) > MAX_FILE_BYTES:
            raise ImageError(f"is {len(source) / 2**20:.0f} MB; the limit is {MAX_FILE_BYTES // 2**20} MB")
        check_parts(io.BytesIO(source))
        image = PilImages.open(io.BytesIO(source), formats=FORMATS)
    else:
        with source.open("rb") as file:
            check_parts(file)
        image = PilImages.open(source, formats=FORMATS)
    check_size(image.size, max_pixels)
    check_exif(image.info.get("exif", b""))
    return image


@contextmanager
def _worded_errors() -> Iterator[None]:
    """Whatever Pillow raises for a file, as an ImageError."""
    try:
        yield
    except FileNotFoundError:
        raise ImageError("does not exist") from None
    except IsADirectoryError:
        raise ImageError("is a folder") from None
    except PilImages.DecompressionBombError:
        raise ImageError(f"is far too large; the limit is {MAX_PIXELS // 10**6} megapixels") from None
    except UnidentifiedImageError:
        raise ImageError(f"is not a picture that can be read (one of {', '.join(FORMATS)})") from None
    except ImageError:
        raise
    except TooManyParts as error:
        raise ImageError(str(error)) from None
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, RuntimeError) as error:
        raise ImageError(f"is damaged: {error}") from None


def decode_text(text: str) -> PilImage:
    """A picture from base64, with or without ``data:image/...;base64,`` before it; raises ImageError."""
    return open_image(decode_bytes(text))


def decode_bytes(text: str) -> bytes:
    """The file that such a text holds; raises ImageError where it is no base64."""
    if text[:5].casefold() == "data:":
        text = text.partition(",")[2]
    try:
        if "=" in text[:-2]:
            raise ValueError
        # in pieces: Python decodes each without letting any other thread work
        pieces = (text[start : start + PIECE_CHARACTERS] for start in range(0, len(text), PIECE_CHARACTERS))
        return b"".join(base64.b64decode(piece, validate=True) for piece in pieces)
    except ValueError:  # binascii.Error is one
        raise ImageError("is not base64 text of a picture") from None


def encode_text(image: PilImage) -> str:
    """The picture as base64 PNG; in pieces, as it is read."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    view = buffer.getbuffer()
    pieces = (base64.b64encode(view[at : at + PIECE_BYTES]).decode("ascii") for at in range(0, len(view), PIECE_BYTES))
    return "".join(pieces)


def check_size(size: Size, max_pixels: int = MAX_PIXELS) -> None:
    """Raises ImageError for a picture too small, too thin or too large to work on."""
    width, height = size
    if width * height > max_pixels:
        megapixels = width * height / 1e6
        raise ImageError(f"is {width} x {height} px, {megapixels:.0f} megapixels; the limit is {max_pixels // 10**6}")
    if min(size) < MIN_READ_PX:
        raise ImageError(f"is {width} x {height} px; each side must be at least {MIN_READ_PX} px")


def plain(image: PilImage) -> PilImage:
    """The picture upright by its EXIF orientation, in a mode that a PNG holds exactly; the same object if it is so."""
    if image.getexif().get(ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode in PNG_MODES:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return _to_8_bits(image)
    return image.convert("RGBA" if image.mode in ("PA", "La", "RGBa") else "RGB")


def to_rgb(image: PilImage, background: str = "#ffffff") -> PilImage:
    """RGB, 8 bits, upright by its EXIF orientation, transparency over ``background``.

    An image that is all of this already is returned as it is: the same object.
    """
    image = plain(image)
    if image.mode == "I;16":
        image = _to_8_bits(image)
    if is_see_through(image):
        return _over(image.convert("RGBA"), background)
    return image if image.mode == "RGB" else image.convert("RGB")


def is_see_through(image: PilImage) -> bool:
    """Whether it may have transparent parts."""
    return image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info


def _over(image: PilImage, background: str) -> PilImage:
    """The picture over one colour, in strips: Pillow composes without letting any other thread of Python work."""
    flat = PilImages.new("RGB", image.size)
    canvas = PilImages.new("RGBA", (image.width, STRIP_PX), (*ImageColor.getrgb(background)[:3], 255))
    for number, strip in enumerate(strips(image)):
        under = canvas.crop((0, 0, *strip.size))
        flat.paste(PilImages.alpha_composite(under, strip).convert("RGB"), (0, number * STRIP_PX))
    return flat


def to_mask(image: PilImage) -> PilImage:
    """Grey levels of a mask picture: transparent counts as black. An "L" image is returned as it is."""
    if image.mode == "L" and image.getexif().get(ORIENTATION, 1) == 1:
        return image
    return to_rgb(image, background="#000000").convert("L")


def mask_levels(image: PilImage, invert: bool = False) -> PilImage:
    """Grey levels of a mask picture, or of its negative, with all that is nearly black as black.

    An "L" image that is so already is returned as it is.
    """
    mask = to_mask(image)
    if invert:
        mask = mask.point(lambda level: 255 - level)
    if not any(mask.histogram()[1 : BLACK_LEVEL + 1]):
        return mask
    return mask.point(lambda level: level if level > BLACK_LEVEL else 0)


def has_greys(mask: PilImage) -> bool:
    """Whether a mask is more than black and white."""
    return any(mask.histogram()[1:255])


def ensure_multiple_of_8(image: PilImage) -> PilImage:
    """The picture with both sides multiples of 8: the same object when they are, else resized once to the nearest."""
    size = snapped_size(image.size)
    return image if size == image.size else image.resize(size, FILTER)


def snapped_size(size: Size) -> Size:
    """The nearest size whose sides are multiples of 8."""
    width, height = (max(LATENT_STEP_PX, round(side / LATENT_STEP_PX) * LATENT_STEP_PX) for side in size)
    return width, height


def resize(image: PilImage, size: Size, mode: ResizeMode) -> PilImage:
    """The picture at ``size``; the same object when it has that size already.

    "crop and resize" keeps the middle, "resize and fill" shows all of it over stretched edges.
    """
    if image.size == size:
        return image
    if mode == "crop and resize":
        return ImageOps.fit(image, size, FILTER)
    if mode == "resize and fill":
        whole = contain(image, size)
        across, down = size[0] - whole.width, size[1] - whole.height
        return extend(whole, (across // 2, down // 2, across - across // 2, down - down // 2))
    return image.resize(size, FILTER)


def filling_cut(own: Size, wanted: Size) -> Cut:
    """What of a picture fills the wanted size, (left, top, right, bottom): all, or the middle of another shape."""
    factor = max(side / px for side, px in zip(wanted, own, strict=True))
    kept = [side / factor for side in wanted]
    kept = [px if px - part < 1 else part for px, part in zip(own, kept, strict=True)]  # less is but rounding
    left, top = ((px - part) / 2 for px, part in zip(own, kept, strict=True))
    return left, top, left + kept[0], top + kept[1]


def shrink(image: PilImage, longest_px: int) -> PilImage:
    """A copy with the same shape, its long side ``longest_px`` at most."""
    return image.copy() if max(image.size) <= longest_px else contain(image, (longest_px, longest_px))


def contain(image: PilImage, size: Size) -> PilImage:
    """The largest copy of the same shape that has room in ``size``; a px wide at least, however thin it is."""
    (width, height), (across, down) = image.size, size
    inner = min(across, max(1, round(width / height * down))), min(down, max(1, round(height / width * across)))
    return image.resize(inner, FILTER)


def extend(image: PilImage, sides_px: Box) -> PilImage:
    """The picture on a larger canvas, ``sides_px`` (left, top, right, bottom) wider; its edges are stretched out."""
    left, top, right, bottom = sides_px
    pad = ((top, bottom), (left, right)) + (((0, 0),) if len(image.getbands()) > 1 else ())
    return PilImages.fromarray(np.pad(np.asarray(image), pad, mode="edge"))


def extension_mask(mask: PilImage | None, size: Size, sides_px: Box, overlap_px: int) -> PilImage:
    """The mask of an extended picture of original ``size``: white where it is new, and ``overlap_px`` into the old."""
    left, top, right, bottom = sides_px
    width, height = size
    canvas = PilImages.new("L", (width + left + right, height + top + bottom), 255)
    kept = (
        left + (overlap_px if left else 0),
        top + (overlap_px if top else 0),
        left + width - (overlap_px if right else 0),
        top + height - (overlap_px if bottom else 0),
    )
    inside = mask or PilImages.new("L", size, 0)
    canvas.paste(inside.crop((kept[0] - left, kept[1] - top, kept[2] - left, kept[3] - top)), kept[:2])
    return canvas


def blur(mask: PilImage, radius_px: float) -> PilImage:
    """The mask with soft edges; the same object for radius 0."""
    return mask.filter(ImageFilter.GaussianBlur(radius_px)) if radius_px > 0 else mask


def support(mask: PilImage) -> PilImage:
    """White wherever the mask is not black: how far it reaches at all."""
    return mask.point(lambda level: 255 if level else 0)


def opacity(mask: PilImage) -> PilImage:
    """How much is shown of what was drawn: all of it from mid-grey on, twice the grey below."""
    return mask.point(lambda level: min(2 * level, 255))


def masked_region(mask: PilImage, padding_px: int, size: Size) -> Box | None:
    """The box around all that is not black, padded, widened to the shape of ``size`` where the picture allows it.

    None for a mask that is black all over.
    """
    box = mask.getbbox()
    if box is None:
        return None
    left, top = max(0, box[0] - padding_px), max(0, box[1] - padding_px)
    right, bottom = min(mask.width, box[2] + padding_px), min(mask.height, box[3] + padding_px)
    wanted = size[0] / size[1]
    if (right - left) / (bottom - top) < wanted:
        left, right = _widen(left, right, round((bottom - top) * wanted), mask.width)
    else:
        top, bottom = _widen(top, bottom, round((right - left) / wanted), mask.height)
    return left, top, right, bottom


def fill_masked(image: PilImage, mask: PilImage) -> PilImage:
    """The picture with its masked part replaced by the nearest kept colours, softened."""
    from scipy.ndimage import distance_transform_edt, gaussian_filter

    inside = np.asarray(mask) > 127
    if inside.all() or not inside.any():
        return image
    rows, columns = distance_transform_edt(inside, return_distances=False, return_indices=True)
    nearest = np.asarray(image)[rows, columns].astype(np.float32)
    softened = gaussian_filter(nearest, (FILL_SOFTNESS_PX, FILL_SOFTNESS_PX, 0), mode="nearest")
    filled = PilImages.fromarray(softened.round().clip(0, 255).astype(np.uint8))
    return PilImages.composite(filled, image, mask)


def pixels_sha256(image: PilImage) -> str:
    """SHA-256 of mode, size and bytes."""
    digest = hashlib.sha256(f"{image.mode} {image.width}x{image.height} ".encode())
    for strip in strips(image):
        digest.update(strip.tobytes())
    return digest.hexdigest()


def strips(image: PilImage) -> Iterator[PilImage]:
    """The picture from top to bottom: Pillow converts and copies without letting any other thread of Python work."""
    for top in range(0, image.height, STRIP_PX):
        yield image.crop((0, top, image.width, min(top + STRIP_PX, image.height)))


def parse_rectangles(text: str, size: Size) -> PilImage:
    """A mask from lines of ``left, top, width, height`` in px, for people who draw without a mouse.

    Raises ImageError naming the line.
    """
    mask = PilImages.new("L", size, 0)
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) > MAX_RECTANGLES:
        raise ImageError(f"{len(lines)} rectangles are too many; the limit is {MAX_RECTANGLES}")
    for number, line in enumerate(lines, start=1):
        values = re.fullmatch(r"\s*(\d{1,5})[\s,;]+(\d{1,5})[\s,;]+(\d{1,5})[\s,;]+(\d{1,5})\s*", line)
        if values is None:
            raise ImageError(f"rectangle {number} must be four whole numbers: left, top, width, height")
        left, top, width, height = map(int, values.groups())
        if not (width and height and left < size[0] and top < size[1]):
            raise ImageError(f"rectangle {number} lies outside the picture of {size[0]} x {size[1]} px")
        mask.paste(255, (left, top, min(left + width, size[0]), min(top + height, size[1])))
    return mask


def _to_8_bits(image: PilImage) -> PilImage:
    """Greys of 16 bits by their range, and of 32 bits and floats by the least usual range that holds them all."""
    levels = np.asarray(image).astype(np.float32)
    ranges = {"F": (1.0, 255.0), "I": (255.0,)}.get(image.mode, ())
    top = next((white for white in ranges if levels.max(initial=0.0) <= white), 65535.0)
    return PilImages.fromarray((levels / top * 255.0).round().clip(0, 255).astype(np.uint8))


def _widen(low: int, high: int, wanted: int, limit: int) -> tuple[int, int]:
    """An interval of length ``wanted`` around [low, high), moved and cut to lie within [0, limit)."""
    wanted = min(max(wanted, high - low), limit)
    low = min(max(0, low - (wanted - (high - low)) // 2), limit - wanted)
    return low, low + wanted
