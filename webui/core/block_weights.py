"""How strongly a LoRA acts in each block of the network, in sd-webui-lora-block-weight's terms: ``lbw=OUTALL``.

Each value counts for all modules of one block, a factor on the LoRA's weight. BASE are the text encoders, IN00 to IN11,
MID and OUT00 to OUT11 are the UNet's blocks as Stable Diffusion's original program counts them. diffusers' names are
counted as A1111 does it (``extensions-builtin/Lora/networks.py``): three places a level, whatever it has.
"""

import random
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

FAMILIES = ("SD 1.x", "SD 2.x", "SDXL")
"""The families whose blocks these are."""
BLOCKS = ("BASE", *(f"IN{n:02}" for n in range(12)), "MID", *(f"OUT{n:02}" for n in range(12)))
LISTS: Mapping[int, tuple[str, ...]] = {
    12: ("BASE", "IN04", "IN05", "IN07", "IN08", "MID", *BLOCKS[14:20]),
    17: ("BASE", "IN01", "IN02", "IN04", "IN05", "IN07", "IN08", "MID", *BLOCKS[17:]),
    20: (*BLOCKS[:10], "MID", *BLOCKS[14:23]),
    26: BLOCKS,
}
"""Which blocks a list names, by its length: those that a plain LoRA of SDXL changes, one of SD 1.x and 2.x, and all
blocks of either. The others count 0."""
PRESETS: Mapping[str, str] = {
    "NONE": "0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0",
    "ALL": "1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1",
    "INS": "1,1,1,1,0,0,0,0,0,0,0,0,0,0,0,0,0",
    "IND": "1,0,0,0,1,1,1,0,0,0,0,0,0,0,0,0,0",
    "INALL": "1,1,1,1,1,1,1,0,0,0,0,0,0,0,0,0,0",
    "MIDD": "1,0,0,0,1,1,1,1,1,1,1,1,0,0,0,0,0",
    "OUTD": "1,0,0,0,0,0,0,0,1,1,1,1,0,0,0,0,0",
    "OUTS": "1,0,0,0,0,0,0,0,0,0,0,0,1,1,1,1,1",
    "OUTALL": "1,0,0,0,0,0,0,0,1,1,1,1,1,1,1,1,1",
    "ALL0.5": ",".join(["0.5"] * 17),
}
"""The extension's own, as it ships them."""
ELEMENTS: Mapping[str, tuple[str, str, str, float]] = {
    "ATTNDEEPON": ("IN05", "OUT05", "attn", 1.0),
    "ATTNDEEPOFF": ("IN05", "OUT05", "attn", 0.0),
    "PROJDEEPOFF": ("IN05", "OUT05", "proj", 0.0),
}
"""Its presets for ``lbwe=``: from which block to which, what the name of a module holds, and the factor there."""
RANDOM = {"R": (0.0, 1.0), "U": (-0.5, 1.5)}
"""What is drawn for these letters, from where to where; the bounds of U are those of its code, not of its manual."""
MAX_VALUE = 10.0

_LEVEL = re.compile(r"(down|up)_blocks_(\d+)_(resnets|attentions|downsamplers|upsamplers)_(\d+)(?:_|$)")
_COUNTED = re.compile(r"(input|output)_blocks_(\d+)(?:_|$)")
_FIRST = re.compile(r"(?:^|_)conv_in(?:_|$)")
_OUTSIDE = re.compile(
    r"time_embed|label_emb|add_embedding|class_embedding|conv_norm_out|conv_out|(?:^|_)out_[02](?:_|$)"
)
_TEXT = re.compile(r"text_model|text_encoder|text_projection|clip_[lgh]_|(?:^|_)te[12]?_|transformer_resblocks")
_X = re.compile(r"X([+-]\d*\.?\d+)?")


@dataclass(frozen=True)
class BlockWeights:
    """A factor for each of ``BLOCKS``, and a preset of ``ELEMENTS`` or "". ``text`` is how it was written."""

    values: tuple[float, ...]
    elements: str = ""
    text: str = field(default="", compare=False)

    def __str__(self) -> str:
        return "".join(f":{key}={text}" for key, text in (("lbw", self.text), ("lbwe", self.elements)) if text)

    @property
    def listed(self) -> tuple[str, ...]:
        """The blocks that its list names."""
        return LISTS[len(_values_of(self.text))] if self.text else BLOCKS

    @property
    def acts(self) -> bool:
        """Whether anything is left of a LoRA."""
        return any(self.values) or any(ELEMENTS[self.elements][3:] if self.elements else ())

    def factor(self, block: str, name: str) -> float:
        """Of a module in this block. Elements count more than blocks, as there."""
        place = BLOCKS.index(block)
        if self.elements:
            first, last, part, weight = ELEMENTS[self.elements]
            own = name.replace("time_emb_proj", "emb_layers")  # as the original program calls it
            if BLOCKS.index(first) <= place <= BLOCKS.index(last) and part in own:
                return weight
        return self.values[place]


def read_block_weights(text: str, elements: str = "") -> BlockWeights | None:
    """A preset's name or values between commas; None where all count 1. Raises ValueError.

    No letters are left in it: ``draw`` has made numbers of them.
    """
    values = [float(value) for value in _values_of(text)] if text else [1.0] * len(BLOCKS)
    named = dict(zip(LISTS[len(values)], values, strict=True))
    found = BlockWeights(tuple(named.get(block, 0.0) for block in BLOCKS), elements, text)
    return None if not elements and set(found.values) == {1.0} else found


def check_text(value: Any) -> str:
    """The text of a preset's name or of values, which may be a list; R and U may be among them. Raises ValueError."""
    if isinstance(value, list | tuple):
        value = ",".join("?" if isinstance(part, bool) else str(part) for part in value)
    if not isinstance(value, str):
        raise ValueError("(lbw) must be the name of a preset, or a list of values")
    text = ",".join(part.strip() for part in value.split(","))
    if "," not in text:
        if text and text not in PRESETS:
            raise ValueError(f"(lbw) must be values, one a block, or a preset: {', '.join(PRESETS)}")
        return text
    parts = text.split(",")
    if len(parts) not in LISTS:
        raise ValueError(
            f"(lbw) must be 17 or 26 values for SD 1.x and SD 2.x, or 12 or 20 for SDXL (it has {len(parts)})"
        )
    for part in parts:
        if part not in RANDOM and not _is_value(part):
            raise ValueError(
                f"(lbw) must have numbers from {-MAX_VALUE:g} to {MAX_VALUE:g}, R or U (one is {part[:20]!r})"
            )
    return text


def check_elements(name: Any) -> str:
    """Raises ValueError for what is no preset of ``lbwe=``."""
    if name not in ("", *ELEMENTS):
        raise ValueError(f"(lbwe) must be one of {', '.join(ELEMENTS)}")
    return str(name)


def is_block_weights(text: str) -> bool:
    """Whether it is meant so where a weight may stand too, as in the extension's first form, ``<lora:x:1:OUTALL>``."""
    return text.strip() in PRESETS or ("@" not in text and text.count(",") + 1 in LISTS)


def fill_in(text: str, number: str | None) -> str:
    """Each X replaced by the number that a tag gives as ``x=``, or by 1; also ``X+0.1`` and ``X-0.1``.

    Raises ValueError.
    """
    parts = [part.strip() for part in text.split(",")]
    offsets = {part: found for part in parts if (found := _X.fullmatch(part))}
    if number is not None and not offsets:
        raise ValueError("x is the number for an X in lbw, and there is none")
    if number is not None and not _is_value(number):
        raise ValueError(f"x must be a number, not {number[:20]!r}")
    filled = {part: f"{float(number or 1) + float(found[1] or 0):g}" for part, found in offsets.items()}
    return ",".join(filled.get(part, part) for part in parts)


def draw(text: str, seed: int, name: str) -> str:
    """The same text with numbers for R and U, which are the same for the same picture's seed and LoRA."""
    dice = random.Random(f"{seed} {name}")
    parts = (RANDOM.get(part) or part for part in text.split(","))
    return ",".join(part if isinstance(part, str) else f"{dice.uniform(*part):.3f}" for part in parts)


def has_letters(text: str) -> bool:
    """Whether there is something to draw."""
    return not RANDOM.keys().isdisjoint(text.split(","))


def block_of(name: str) -> str:
    """The block of a module, by its path in a UNet or by the key of a LoRA's file; "" where it is in none."""
    flat = name.replace(".", "_")
    if found := _LEVEL.search(flat):
        side, level, kind, place = found[1], int(found[2]), found[3], int(found[4])
        if side == "down":
            number = 3 * level + (3 if kind == "downsamplers" else 1 + place)
        else:
            number = 3 * level + (2 if kind == "upsamplers" else place)
    elif found := _COUNTED.search(flat):
        side, number = {"input": "down", "output": "up"}[found[1]], int(found[2])
    elif "mid_block" in flat or "middle_block" in flat:
        return "MID"
    elif _FIRST.search(flat):
        return "IN00"
    else:
        return "BASE" if _TEXT.search(flat) else ""
    block = f"{'IN' if side == 'down' else 'OUT'}{number:02}"
    return block if block in BLOCKS else ""


def outside(keys: Iterable[str]) -> str:
    """The first of a LoRA's keys whose module is known to be in no block; "" where there is none."""
    return next((key for key in keys if not block_of(key) and _OUTSIDE.search(key.replace(".", "_"))), "")


def left_out(weights: BlockWeights, keys: Iterable[str]) -> tuple[str, ...]:
    """The blocks that a LoRA's keys are in and that the list of weights does not name."""
    found = {block_of(key) for key in keys} - {"", *weights.listed}
    return tuple(block for block in BLOCKS if block in found)


@lru_cache(maxsize=256)
def _values_of(text: str) -> tuple[str, ...]:
    return tuple(PRESETS.get(text, text).split(","))


def _is_value(text: str) -> bool:
    try:
        return abs(float(text)) <= MAX_VALUE  # which is false of not-a-number, too
    except ValueError:
        return False
