"""The fixed prompts of the evaluation: combinations that the training never shows."""

from typing import NamedTuple

from .concepts import COLOURS, CONCEPTS, HELD_OUT_FROM, PLACEMENTS, STYLES, held_out, pair_held_out

FULL_PROMPTS = 300
SEEDS = 8
"""Pictures of one prompt, to see how much they differ."""


class Prompt(NamedTuple):
    """A prompt and what the picture has to show: indices into the lists of `concepts`; None is left open."""

    text: str
    concept: int
    style: int | None = None
    colour: int | None = None
    placement: int = 0


def complete_prompt(concept: int, style: int, colour: int) -> Prompt:
    """The prompt that names thing, style and background."""
    name = list(COLOURS)[colour]
    article = "an" if name.startswith("orange") else "a"
    text = f"{CONCEPTS[concept].phrase}, {STYLES[style].name} style, on {article} {name} background"
    return Prompt(text, concept, style, colour)


def full_prompts() -> list[Prompt]:
    """Every thing, and then new ones in a second style, on a colour it was never trained on: 300 prompts."""
    things = [*range(len(CONCEPTS)), *range(HELD_OUT_FROM, len(CONCEPTS))][:FULL_PROMPTS]
    rows = []
    for place, concept in enumerate(things):
        turn = place // len(CONCEPTS)
        styles = [style for style in range(len(STYLES)) if not pair_held_out(concept, style)]
        style = styles[(concept + turn) % len(styles)]
        colours = [colour for colour in range(len(COLOURS)) if held_out(concept, style, colour)]
        rows.append(complete_prompt(concept, style, colours[(concept // len(COLOURS) + turn) % len(colours)]))
    return rows


def unseen_pair_prompts() -> list[Prompt]:
    """Every held-out pair of thing and style on three colours: 72 prompts."""
    rows = []
    for concept in range(len(CONCEPTS)):
        for style in range(len(STYLES)):
            if pair_held_out(concept, style):
                rows += [complete_prompt(concept, style, (concept + 5 * turn) % len(COLOURS)) for turn in range(3)]
    return rows


def placed_prompts() -> list[Prompt]:
    """Every size and place eight times: 48 prompts."""
    names = ("blue", "yellow", "green", "beige", "white", "pink", "teal", "black")
    things = ("red apple", "panda", "star", "rocket", "pear", "teddy bear", "tulip", "taxi")
    words = [concept.words for concept in CONCEPTS]
    rows = []
    for placement in range(1, len(PLACEMENTS)):
        for name, thing in zip(names, things, strict=True):
            size, _, place = PLACEMENTS[placement].phrase.partition(", ")
            where = f", {place}" if place else ""
            text = f"a {size} {thing}, flat style{where}, on a {name} background"
            rows.append(Prompt(text, words.index(thing), 1, list(COLOURS).index(name), placement))
    return rows


def repeated_prompts() -> list[Prompt]:
    """Twelve complete prompts, each eight times in a row: 96 prompts."""
    rows = full_prompts()
    return [row for row in rows[:: len(rows) // 12][:12] for _ in range(SEEDS)]
