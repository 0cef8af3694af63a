"""Labels on a sheet: text that wraps, in a font that has its letters.

Where no font here has them, a label is the number of its value, which the sheet's recipe and PNG info spell out.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from PIL import ImageDraw, ImageFont, __version__

from webui.core.axes import Axis
from webui.core.images import Size

MIN_PX, MAX_PX = 13, 44
LINE = 1.25  # of the font's size
MAX_LINES = 6
MAX_CHARACTERS = 300
FONTS = (
    *("DejaVuSans.ttf", "NotoSans-Regular.ttf", "LiberationSans-Regular.ttf", "arial.ttf", "Arial.ttf", "segoeui.ttf"),
    *("Arial Unicode.ttf", "NotoSansCJK-Regular.ttc", "NotoSansCJKsc-Regular.otf", "wqy-microhei.ttc", "PingFang.ttc"),
    *("Hiragino Sans GB.ttc", "msyh.ttc", "YuGothM.ttc", "msgothic.ttc", "malgun.ttf", "AppleSDGothicNeo.ttc"),
    *("NotoSansArabic-Regular.ttf", "NotoSansHebrew-Regular.ttf", "NotoSansDevanagari-Regular.ttf", "Nirmala.ttf"),
    *("NotoSansThai-Regular.ttf", "leelawui.ttf", "NotoSansSymbols2-Regular.ttf", "seguisym.ttf"),
)
"""Files by which systems have wide scripts, looked for after Pillow's own font, which has ASCII."""
OWN = ""
MISSING = "\U0010ffff"  # what no font has

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class Label:
    """Lines in one font of so many px, at ``at``; ``is_number`` where they stand for what could not be written."""

    lines: tuple[str, ...]
    font: str
    font_px: int
    size: Size
    is_number: bool = False
    at: Size = (0, 0)

    def centred(self, x: int, y: int) -> "Label":
        """Around this point."""
        return replace(self, at=(x - self.size[0] // 2, y - self.size[1] // 2))

    def draw(self, draw: ImageDraw.ImageDraw, ink: tuple[int, int, int]) -> None:
        """On a sheet."""
        font, (left, top) = _font(self.font, self.font_px), self.at
        assert font
        for k, line in enumerate(self.lines):
            indent = (self.size[0] - _width(line, font)) // 2
            draw.text((left + indent, top + round(k * LINE * self.font_px)), line, fill=ink, font=font)


def size_px(cell_px: int) -> int:
    """Of letters beside cells of this size."""
    return min(max(cell_px // 14, MIN_PX), MAX_PX)


def column_of(axis: Axis, width_px: int, font_px: int) -> list[Label]:
    """A label for each value, none wider than this."""
    return [make_label(axis.label(k), k, width_px, font_px) for k in range(len(axis.values))]


def make_label(text: str, k: int, width_px: int, font_px: int) -> Label:
    """The text in as many lines as it takes; what is left of very long ones is three dots."""
    text = " ".join(text[:MAX_CHARACTERS].split())
    name = font_for(text)
    if is_number := name is None:
        text, name = f"#{k + 1}", OWN
    font = _font(name or OWN, font_px)
    assert font
    lines = _wrap(text, font, width_px)
    width = max(_width(line, font) for line in lines)
    return Label(lines, name or OWN, font_px, (width, round(len(lines) * LINE * font_px)), is_number)


def fonts_here(axes: Sequence[Axis | None]) -> str:
    """What the labels of these axes are drawn with: others elsewhere may have other shapes."""
    texts = (axis.label(k) for axis in axes if axis for k in range(len(axis.values)))
    found = (font_for(" ".join(text[:MAX_CHARACTERS].split())) for text in texts)
    names = dict.fromkeys(name or "Pillow" for name in found if name is not None)
    return f"{', '.join(names)} (Pillow {__version__})"


def font_for(text: str) -> str | None:
    """The first font that has all of its letters; None where there is none."""
    return next((name for name in (OWN, *FONTS) if _has(name, text)), None)


def _has(name: str, text: str) -> bool:
    return all(_has_letter(name, letter) for letter in dict.fromkeys(text) if not letter.isspace())


@lru_cache(4096)
def _has_letter(name: str, letter: str) -> bool:
    font = _font(name, MIN_PX)
    if not isinstance(font, ImageFont.FreeTypeFont) or not letter.isprintable():
        return False
    return _shape(font, letter) != _shape(font, MISSING)


def _shape(font: ImageFont.FreeTypeFont, letter: str) -> tuple[Size, bytes]:
    mask = font.getmask(letter)
    return mask.size, bytes(mask)


@lru_cache(128)
def _font(name: str, size_px: int) -> Font | None:
    if name == OWN:
        return ImageFont.load_default(size_px)
    try:
        return ImageFont.truetype(name, size_px)
    except OSError:
        return None


def _width(text: str, font: Font) -> int:
    return round(font.getlength(text)) + 1


def _wrap(text: str, font: Font, width_px: int) -> tuple[str, ...]:
    lines: list[str] = []
    line = ""
    for word in text.split(" "):
        whole = f"{line} {word}" if line else word
        if _width(whole, font) <= width_px:
            line = whole
            continue
        if line:
            lines.append(line)
        while len(word) > 1 and _width(word, font) > width_px and len(lines) <= MAX_LINES:
            fits = next(k for k in range(len(word) - 1, 0, -1) if k == 1 or _width(word[:k], font) <= width_px)
            lines.append(word[:fits])
            word = word[fits:]
        line = word
        if len(lines) > MAX_LINES:
            break
    lines.append(line)
    if len(lines) <= MAX_LINES:
        return tuple(lines)
    last = lines[MAX_LINES - 1]
    while last and _width(f"{last} ...", font) > width_px:
        last = last[:-1]
    return (*lines[: MAX_LINES - 1], f"{last} ...".strip())
