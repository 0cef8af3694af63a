"""Captions in varying order and completeness, and the fixed prompts of the evaluation."""

import random

from .concepts import COLOURS, CONCEPTS, PLACEMENTS, STYLES, SYNONYMS, Concept, Placement

EMPTY_SHARE = 0.10
"""Share of empty captions, which classifier-free guidance needs."""

OPENINGS = ("a picture of", "a drawing of", "an illustration of", "an icon of", "an emoji of", "a photo of")
EXTRAS = ("high quality", "highly detailed", "masterpiece", "cute", "beautiful", "simple", "4k", "sharp")
"""Words without a meaning of their own here; people type them, so the model learns to pass over them."""


def noun_phrase(concept: Concept, size: str, rng: random.Random) -> str:
    """The thing with its size and, mostly, its article: "a large red apple", "apple"."""
    words = concept.words
    if words in SYNONYMS and rng.random() < 0.3:
        words = rng.choice(SYNONYMS[words])
    article = ("an" if words[0] in "aeio" else "a") if concept.article else ""
    if size:
        words = f"{size} {words}"
        article = "a" if concept.article else ""
    return f"{article} {words}".strip() if rng.random() < 0.8 else words


def background_phrase(colour: str, rng: random.Random) -> str:
    """One of a few ways to name the background's colour."""
    article = "an" if colour[0] in "aeiou" else "a"
    forms = (f"on {article} {colour} background", f"{colour} background", f"on {colour}")
    return rng.choices(forms, (0.75, 0.17, 0.08))[0]


def caption(concept: Concept, style: str, colour: str, placement: Placement, rng: random.Random) -> str:
    """A caption drawn anew for one picture; parts are left out and change places."""
    if rng.random() < EMPTY_SHARE:
        return ""
    size, _, place = placement.phrase.partition(", ")
    head = noun_phrase(concept, size if rng.random() < 0.85 else "", rng)
    if rng.random() < 0.08:
        head = f"{rng.choice(OPENINGS)} {head}"
    parts = []
    if rng.random() < 0.06:
        parts.append(rng.choice(EXTRAS))
    if rng.random() < 0.85:
        parts.append(f"{style} style" if rng.random() < 0.9 else style)
    if place and rng.random() < 0.9:
        parts.append(place)
    if rng.random() < 0.85:
        parts.append(background_phrase(colour, rng))
    if rng.random() < 0.25:
        rng.shuffle(parts)
    if rng.random() < 0.06:
        parts.insert(rng.randint(0, len(parts)), head)
        return ", ".join(parts)
    return ", ".join([head, *parts])


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
