"""Captions in varying order and completeness, and the fixed prompts of the evaluation."""

import random

from .concepts import COLOURS, CONCEPTS, PLACEMENTS, STYLES, SYNONYMS, Concept, Placement, indefinite_article

EMPTY_SHARE = 0.10
"""Share of empty captions, which classifier-free guidance needs."""

AMOUNTS = (50, 60, 70, 80, 90, 110, 120, 130, 140, 150, 160)
"""Weights in percent that captions give to words; 100 is no weight."""

WEIGHTED_SHARE = 0.04
"""Share of captions whose thing carries a weight that changes nothing, and of those with a weaker second colour."""

OPENINGS = ("a picture of", "a drawing of", "an illustration of", "an icon of", "an emoji of", "a photo of")
EXTRAS = ("high quality", "highly detailed", "masterpiece", "cute", "beautiful", "simple", "4k", "sharp")
"""Words without a meaning of their own here; people type them, so the model learns to pass over them."""


def noun_phrase(concept: Concept, size: str, rng: random.Random) -> str:
    """The thing with its size and, mostly, its article: "a large red apple", "apple"."""
    words = concept.words
    if words in SYNONYMS and rng.random() < 0.3:
        words = rng.choice(SYNONYMS[words])
    article = indefinite_article(words) if concept.article else ""
    if size:
        words = f"{size} {words}"
        article = "a" if concept.article else ""
    return f"{article} {words}".strip() if rng.random() < 0.8 else words


def background_phrase(colour: str, rng: random.Random, amount: int = 100) -> str:
    """One of a few ways to name the background's colour, with the weight `amount` in percent."""
    forms = [f"on {indefinite_article(colour)} {colour} background", f"{colour} background", f"on {colour}"]
    if amount != 100:
        forms = [*(weighted(form, amount) for form in forms[:2]), forms[0].replace(colour, weighted(colour, amount))]
    return rng.choices(forms, (0.75, 0.17, 0.08) if amount == 100 else (1, 1, 1))[0]


def weighted(words: str, amount: int) -> str:
    """The words with a weight in percent, as a prompt writes it: "(words:1.4)"."""
    return words if amount == 100 else f"({words}:{amount / 100:.1f})"


def caption(
    concept: Concept, style: str, colour: str, placement: Placement, rng: random.Random, amount: int = 100
) -> str:
    """A caption drawn anew for one picture; parts are left out and change places.

    Where `amount` is not 100, the picture's colour, or else its size and place, goes that many percent of its way: its
    words are never left out and carry the weight. At 100 the thing's own words carry a weight now and then, which
    changes nothing.
    """
    if rng.random() < EMPTY_SHARE:
        return ""
    size, _, place = placement.phrase.partition(", ")
    on_placement = amount if size else 100
    on_colour = 100 if size else amount
    head = noun_phrase(concept, weighted(size, on_placement) if amount != 100 or rng.random() < 0.85 else "", rng)
    if amount == 100 and rng.random() < WEIGHTED_SHARE:
        head = weighted(head, rng.choice(AMOUNTS))
    if rng.random() < 0.08:
        head = f"{rng.choice(OPENINGS)} {head}"
    return arrange(head, style, weighted(place, on_placement), colour, on_colour, rng)


def arrange(head: str, style: str, place: str, colour: str, amount: int, rng: random.Random) -> str:
    """The thing's phrase with its other parts, some left out, mostly in their usual order."""
    parts = []
    if rng.random() < 0.06:
        parts.append(rng.choice(EXTRAS))
    if rng.random() < 0.85:
        parts.append(f"{style} style" if rng.random() < 0.9 else style)
    if place and (place.endswith(")") or rng.random() < 0.9):
        parts.append(place)
    if amount != 100 or rng.random() < 0.85:
        parts.append(background_phrase(colour, rng, amount))
        if rng.random() < (0.3 if amount > 100 else WEIGHTED_SHARE if amount == 100 else 0):
            other = rng.choice([name for name in COLOURS if name != colour])
            parts.append(background_phrase(other, rng, rng.choice([low for low in AMOUNTS if low <= amount - 40])))
    if rng.random() < 0.25:
        rng.shuffle(parts)
    if rng.random() < 0.06:
        parts.insert(rng.randint(0, len(parts)), head)
        return ", ".join(parts)
    return ", ".join([head, *parts])


def pair_caption(
    things: tuple[Concept, Concept],
    style: str,
    colour: str,
    placements: tuple[Placement, Placement],
    rng: random.Random,
) -> str:
    """A caption of a picture with two small things; one in ten names but one of them."""
    if rng.random() < 0.1:
        first = rng.randint(0, 1)
        return caption(things[first], style, colour, placements[first], rng)
    if rng.random() < EMPTY_SHARE:
        return ""
    heads = []
    for thing, placement in zip(things, placements, strict=True):
        size, _, place = placement.phrase.partition(", ")
        head = noun_phrase(thing, size if rng.random() < 0.7 else "", rng)
        heads.append(f"{head} {place}" if rng.random() < 0.85 else head)
    rng.shuffle(heads)
    return arrange(rng.choice((" and ", ", ")).join(heads), style, "", colour, 100, rng)


def tokenizer_corpus() -> list[str]:
    """Every word the captions use, many times over: the text the tokenizer's merges are learned from."""
    rng = random.Random(0)
    return [
        caption(concept, style.name, colour, placement, rng)
        for concept in CONCEPTS
        for style in STYLES
        for colour in COLOURS
        for placement in PLACEMENTS
    ]
