"""The fixed prompts of the evaluation."""

from typing import NamedTuple

from .concepts import COLOURS, CONCEPTS, PLACEMENTS, STYLES


class Prompt(NamedTuple):
    """A prompt and what the picture has to show: indices into the lists of `concepts`; None is left open."""

    text: str
    concept: int
    style: int | None = None
    colour: int | None = None
    placement: int = 0


def full_prompts() -> list[Prompt]:
    """Every concept twice, in two styles and on two colours: 144 prompts."""
    colours = list(COLOURS)
    rows = []
    for turn in range(2):
        for index, concept in enumerate(CONCEPTS):
            style = (index + turn) % len(STYLES)
            colour = (5 * index + 3 * (index // len(colours)) + 6 * turn) % len(colours)
            article = "an" if colours[colour].startswith("orange") else "a"
            text = f"{concept.phrase}, {STYLES[style].name} style, on {article} {colours[colour]} background"
            rows.append(Prompt(text, index, style, colour))
    return rows


def placed_prompts() -> list[Prompt]:
    """Every size and place four times: 24 prompts."""
    names = ("blue", "yellow", "green", "beige")
    things = ("red apple", "panda", "star", "rocket")
    words = [concept.words for concept in CONCEPTS]
    rows = []
    for placement in range(1, len(PLACEMENTS)):
        for name, thing in zip(names, things, strict=True):
            size, _, place = PLACEMENTS[placement].phrase.partition(", ")
            where = f", {place}" if place else ""
            text = f"a {size} {thing}, flat style{where}, on a {name} background"
            rows.append(Prompt(text, words.index(thing), 1, list(COLOURS).index(name), placement))
    return rows


def short_prompts() -> list[Prompt]:
    """The thing alone, every third concept: 24 prompts."""
    return [Prompt(CONCEPTS[index].words, index) for index in range(0, len(CONCEPTS), 3)]
