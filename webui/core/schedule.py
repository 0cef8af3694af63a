"""What a prompt says at each step: ``[from:to:when]``, ``[one|other]``, ``a AND b:0.6``, LoRA weights over the steps.

The grammar is A1111's (``modules/prompt_parser.py`` of its version 1.10), read in linear time. Colons and bars count
for the innermost bracket around them. A bracket that is never closed, was never opened, crosses another one or holds
none of the forms is plain text, and so are all around it; what stands in it is read for itself. ``when`` with a decimal
point is a share of the steps, rounded down to a step; without one it is a step (1.6's rule). A backslash takes the
meaning from the sign behind it.

What is different from A1111, each on purpose:

- ``[a:b:5]`` is five steps of ``a``, as A1111's manual and the table of steps in its source say. Its pictures have six:
  the denoiser counts evaluations from 0 and compares with ``<=`` (``current_step <= entry.end_at_step``), so all
  changes come one step late (its issue 7279), and the first of ``[a|b]`` is drawn twice. Half the steps are half here.
- Steps are steps, and those that are taken. A1111 counts evaluations, so that ``[a:b:5]`` changes after two and a half
  steps of Heun; and from a picture it takes the shares of all steps while it counts those that are taken, so that
  ``[a:b:0.5]`` at strength 0.5 comes to its end before it changes.
- A bar outside of ``[a|b]`` is text, as in its examples; its parser takes the whole prompt for plain words then, and it
  may leave a form unread where other brackets are never closed.
- A number behind a colon is the weight of a prompt only where there are several: ``ratio 16:9`` is words.

Nothing here imports anything of ours.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate, pairwise

Points = tuple[tuple[float, float], ...]
"""(place, weight) in order of place: a share of the steps, 0..1, or, where the last one is above 1, a step."""

Weight = float | Points

MAX_PLACE = 1000
LEVELS = 8
"""In how many weights a straight line is drawn at most: each is a set of LoRAs to be merged."""

_PIECES = re.compile(r"<\w+:[^<>]*>|\\[^<]|[\[\]():|]|[^\\\[\]():|<]+|[\\<]", re.DOTALL)
_WHEN = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*")
_AND = re.compile(r"<\w+:[^<>]*>|\\[^<]|\bAND\b", re.DOTALL)
_WEIGHT = re.compile(r"\s*([+-]?(?:\d+\.?|\d*\.\d+))\s*")


@dataclass(frozen=True)
class _Choice:
    """A bracket of which one part holds at a time.

    ``bounds`` are the places of its signs among the pieces: the brackets, and what parts them. ``when`` is the number
    of an edit, as it was written; empty for words that take turns.
    """

    bounds: tuple[int, ...]
    when: str = ""

    def part(self, step: int, steps: int, done: int) -> tuple[int, int]:
        """The pieces (from, to) that hold at this step."""
        parts = [(start + 1, stop) for start, stop in pairwise(self.bounds)]
        if not self.when:
            return parts[step % len(parts)]
        before, after = ((parts[0][0],) * 2, parts[0]) if len(parts) == 2 else parts[:2]
        return after if step >= _first_step(self.when, steps, done) else before


@dataclass(frozen=True)
class ScheduledText:
    """A text that was read; ``choices`` are its brackets that change over the steps, by the place they begin at."""

    pieces: tuple[str, ...]
    choices: dict[int, _Choice]

    def at(self, step: int, steps: int, done: int = 0) -> str:
        """As ``text_at``."""
        words: list[str] = []
        ends: dict[int, int] = {}  # where a part that holds stops, and where its bracket does
        place = 0
        while place < len(self.pieces):
            if place in ends:
                place = ends[place]
            elif place in self.choices:
                choice = self.choices[place]
                place, stop = choice.part(step, steps, done)
                ends[stop] = choice.bounds[-1] + 1
            else:
                words.append(self.pieces[place])
                place += 1
        return "".join(words)


def read(text: str) -> ScheduledText:
    """The text with its brackets paired; never raises."""
    pieces = tuple(_PIECES.findall(text))
    choices: dict[int, _Choice] = {}
    open_brackets: list[tuple[int, list[int]]] = []  # where each opened, and the colons and bars in it
    for place, piece in enumerate(pieces):
        if piece in ("(", "["):
            open_brackets.append((place, []))
        elif piece in (":", "|") and open_brackets:
            open_brackets[-1][1].append(place)
        elif piece in (")", "]") and open_brackets:
            opening, signs = open_brackets.pop()
            bounds = (opening, *signs, place)
            if choice := _choice(pieces, bounds):
                choices[opening] = choice
            elif not _is_emphasis(pieces, bounds):
                open_brackets.clear()
    return ScheduledText(pieces, choices)


def text_at(text: str, step: int, steps: int, done: int = 0) -> str:
    """The words at ``step`` (0..steps - 1) of a pass, its edits and turns decided, all else as it is; never raises.

    ``done`` are the steps of the passes before it: shares from 1.0 on and steps above ``done`` are this one's then.
    """
    return read(text).at(step, steps, done)


def changes(text: str) -> bool:
    """Whether there is anything in it that is decided by the step."""
    return bool(read(text).choices)


def split_terms(text: str) -> tuple[tuple[str, float], ...]:
    """The prompts between ``AND``, each with its weight: ``a AND b:0.6``. One prompt alone is the text as it is.

    They are parted before brackets are read, as in A1111: one that holds an AND is not closed on either side.
    """
    parts = _parts(text)
    return tuple(_read_term(text[start:stop]) for start, stop in parts) if len(parts) > 1 else ((text, 1.0),)


def texts_of(text: str, steps: int) -> tuple[str, ...]:
    """All that a prompt says in so many steps, each text once."""
    terms = [read(term) for term, _ in split_terms(text)]
    return tuple(dict.fromkeys(term.at(step, steps) for term in terms for step in range(steps if term.choices else 1)))


def has_marks(text: str) -> bool:
    """Whether the text says something else than its words alone."""
    return len(_parts(text)) > 1 or changes(text)


def choice_places(text: str) -> frozenset[int]:
    """Where in the text the brackets begin that change over the steps, whichever prompt they are in."""
    return frozenset(start + place for start, stop in _parts(text) for place, _ in _signs(text[start:stop]))


def as_words(text: str) -> str:
    """The same text with a backslash before each mark, so that it says its words alone, whatever the step."""
    marks = {start - len("AND") for start, _ in _parts(text)[1:]}
    bounds = [0, *sorted(marks.union(*(signs for _, signs in _signs(text)))), len(text)]
    words = "\\".join(text[start:stop] for start, stop in pairwise(bounds))
    return words if words == text else as_words(words)  # a bar beside colons is a mark once they are none


def _parts(text: str) -> list[tuple[int, int]]:
    """The places (from, to) of the prompts between AND."""
    cuts = [found.span() for found in _AND.finditer(text) if found[0] == "AND"]
    bounds = [0, *(place for cut in cuts for place in cut), len(text)]
    return list(zip(bounds[::2], bounds[1::2], strict=True))


def _signs(text: str) -> Iterable[tuple[int, tuple[int, ...]]]:
    """Of each bracket that changes over the steps, where it begins in the text, and where its colons or bars are."""
    found = read(text)
    places = [0, *accumulate(map(len, found.pieces))]
    for choice in found.choices.values():
        opening, *signs, _ = choice.bounds
        yield places[opening], tuple(places[sign] for sign in signs)


def read_points(text: str) -> Weight:
    """A LoRA's weight, or its weights over the steps: ``1@0,0.5@0.5``; raises ValueError.

    As in sd-webui-loractl: between points stands ``,`` or ``;``, one without a place is at the end, and they are put in
    order. Two at one place are a jump.
    """
    if "@" not in text:  # 0,5 is more likely meant as a half
        return _number(text, text)
    points = []
    for entry in re.split("[,;]", text):
        weight, at, place = entry.partition("@")
        points.append((_number(place, text) if at else 1.0, _number(weight, text)))
    if any(place < 0 for place, _ in points):
        raise ValueError(f"{text[:60]!r} has a point before the first step")
    return tuple(sorted(points, key=lambda point: point[0]))


def write_points(weight: Weight) -> str:
    """The inverse, with ``;`` between points, for commas part LoRAs."""
    if isinstance(weight, tuple):
        return ";".join(f"{value:g}@{place:g}" for place, value in weight)
    return f"{weight:g}"


def weight_at(weight: Weight, step: int, steps: int) -> float:
    """The weight at ``step`` (0..steps - 1): straight lines between points, each in at most ``LEVELS`` weights.

    The place of a point is the steps taken before it: a share of them is rounded down, and the end is the last step.
    """
    if not isinstance(weight, tuple):
        return weight
    points = weight if weight[-1][0] > 1 else _in_steps(weight, steps)
    behind = next((number for number, (place, _) in enumerate(points) if place > step), len(points))
    if behind in (0, len(points)):
        return points[max(behind - 1, 0)][1]
    (left, low), (right, high) = points[behind - 1 : behind + 1]
    share = (step - left) / (right - left)
    if right - left >= LEVELS:
        share = round(share * (LEVELS - 1)) / (LEVELS - 1)
    return low if low == high else round(low + (high - low) * share, 4)


def _first_step(when: str, steps: int, done: int) -> int:
    """The step at which an edit is made, 0..steps; what is too late is never made."""
    number = min(max(float(when), -MAX_PLACE), MAX_PLACE)  # of no steps, infinity would be no place at all
    place = (number - bool(done)) * steps if "." in when else number - done
    return int(min(max(place, 0.0), steps))


def _choice(pieces: tuple[str, ...], bounds: tuple[int, ...]) -> _Choice | None:
    """What a pair of brackets chooses from; None where it is no choice. Bars beside colons are text."""
    opening, *signs, closing = bounds
    if pieces[opening] + pieces[closing] != "[]" or not signs:
        return None
    colons = [place for place in signs if pieces[place] == ":"]
    if not colons:
        return _Choice(bounds)
    number = _WHEN.fullmatch("".join(pieces[colons[-1] + 1 : closing]))
    return _Choice((opening, *colons, closing), number[1]) if number and len(colons) <= 2 else None


def _is_emphasis(pieces: tuple[str, ...], bounds: tuple[int, ...]) -> bool:
    """Whether a pair of brackets is ``(a)``, ``(a:1.2)`` or ``[a]``."""
    colons = sum(pieces[place] == ":" for place in bounds[1:-1])
    return (pieces[bounds[0]] + pieces[bounds[-1]], colons) in (("()", 0), ("()", 1), ("[]", 0))


def _read_term(text: str) -> tuple[str, float]:
    words, colon, number = text.rpartition(":")
    found = _WEIGHT.fullmatch(number) if colon else None
    return (words.strip(), float(found[1])) if found else (text.strip(), 1.0)


def _number(text: str, whole: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{whole[:60]!r} is not a weight: {text[:20]!r} is not a number")
    return number


def _in_steps(points: Points, steps: int) -> Points:
    """The same points with steps as places; of those at the end the first, which the last step comes to."""
    placed = [(float(int(place * steps)), weight) for place, weight in points]
    end = next((number for number, (place, _) in enumerate(placed) if place >= steps), None)
    if end is None:
        return tuple(placed)
    return (*placed[:end], (max(steps - 1.0, 0.0), placed[end][1]))
