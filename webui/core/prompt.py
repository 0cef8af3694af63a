"""Prompt text as A1111 means it: LoRA tags, the weights of words, BREAK."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from math import copysign
from operator import itemgetter

from pydantic import ValidationError

from webui.core.errors import RequestError, explain
from webui.core.lora_ref import MAX_LORAS, LoraRef
from webui.core.schedule import choice_places, read, split_terms

WEIGHT_LIMIT = 1e6
"""What brackets multiply to is held between this and its negative, however many or large they are."""

MAX_CHUNKS = 64
"""What the text encoder reads one by one: each takes its time, and all of them in every step."""

MAX_TERMS = 32
"""Of prompts in one, each of which is a picture more in every step."""

_FACTORS = {"(": 1.1, "[": 1 / 1.1}
_OPENINGS = {")": "(", "]": "["}
_PIECES = re.compile(r"\\[()\[\]\\]?|[(\[]|(?::\s*[+-]?(?:\d+(?:\.\d*)?|\.\d+)\s*)?\)|\]|[^\\()\[\]:]+|:")
_BREAK = re.compile(r"(?:(?<!\s)\s+)?\bBREAK\b\s*")  # not \s* before it, which is quadratic in spaces
_NOT_IN_TAGS = re.compile(r"[<>:]")
_LORA_TAG = re.compile(r"<(?:lora|lyco):([^<>]*)>", re.IGNORECASE)
_MARKS = re.compile(r"\\.|[()\[\]:|]", re.DOTALL)
_WHEN = re.compile(r"\s*[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?\s*")
EDITING, ALTERNATION, SEVERAL = "prompt editing", "alternating words", "several prompts in one"
_FORMS = {
    SEVERAL: re.compile(r"\bAND\b"),
    "an extra network": re.compile(r"<\w+:[^<>]*>"),
    "a variable": re.compile(r"\$\{[\w-]{1,100} ?(?:[:=?!][^{}]*)?\}|(?<!\w)__[\w/*.-]{1,100}\([^()\n]{1,100}\)__"),
}
_SHOWN_CHARACTERS = 60


def split_loras(text: str) -> tuple[str, tuple[LoraRef, ...]]:
    """The text without its ``<lora:name:weight>`` tags, and what they ask for, in order; raises RequestError.

    ``<lyco:...>`` is the same, as in A1111.
    """
    found = tuple(_read_tag(match[0], match[1]) for match in _LORA_TAG.finditer(text))
    return (_LORA_TAG.sub("", text).strip(), found) if found else (text, found)


def split_constant_loras(text: str) -> tuple[str, tuple[LoraRef, ...], tuple[LoraRef, ...]]:
    """The text without the tags that hold at all steps, what they ask for, and what the tags that stay ask for.

    Those stay that are in a bracket which changes over the steps. What is left may be a tag once another is out of it:
    ``<<lora:a:1>lora:b:1>`` is two, so that reading the text again finds no further one. Raises RequestError.
    """
    constant: tuple[LoraRef, ...] = ()
    while True:
        text, found, moving = _split_constant_once(text)
        constant += found
        if not found or len(constant) > MAX_LORAS:  # too many already, and each round takes its time
            return text, constant, moving


def _split_constant_once(text: str) -> tuple[str, tuple[LoraRef, ...], tuple[LoraRef, ...]]:
    scheduled = read(text)
    kept: list[str] = []
    dropped: list[str] = []
    last = -1  # where the bracket ends that we are in
    for place, piece in enumerate(scheduled.pieces):
        if place in scheduled.choices:
            last = max(last, scheduled.choices[place].bounds[-1])
        is_constant = place > last and _LORA_TAG.fullmatch(piece)
        (dropped if is_constant else kept).append(piece)
    constant, moving = (split_loras("".join(pieces))[1] for pieces in (dropped, kept))
    return "".join(kept).strip() if dropped else text, constant, moving


def draw_loras(text: str, seed: int) -> str:
    """The text with numbers in the tags whose weights by block are to be drawn at random; raises RequestError."""

    def drawn(match: re.Match[str]) -> str:
        ref = _read_tag(match[0], match[1])
        return match[0] if (numbered := ref.drawn(seed)) is ref else f"<lora:{numbered}>"

    return _LORA_TAG.sub(drawn, text)


def rename_loras(text: str, rename: Callable[[str], str]) -> str:
    """The text with other names in its LoRA tags."""

    def renamed(match: re.Match[str]) -> str:
        name, colon, weights = match[1].partition(":")
        new = rename(name.strip())
        return match[0] if new == name.strip() else f"<lora:{new}{colon}{weights}>"

    return _LORA_TAG.sub(renamed, text)


def drop_loras(text: str, is_meant: Callable[[str], bool]) -> str:
    """The text without the LoRA tags whose names are meant."""
    return _LORA_TAG.sub(lambda match: "" if is_meant(match[1].partition(":")[0].strip()) else match[0], text)


def tags_in(text: str) -> list[str]:
    """The LoRA tags in it, as they are written."""
    return [match[0] for match in _LORA_TAG.finditer(text)]


def without_tags(text: str) -> str:
    """Its words."""
    return _LORA_TAG.sub("", text)


def join_loras(text: str, loras: tuple[LoraRef, ...]) -> str:
    """The inverse: the text with one tag for each LoRA behind it. What no tag can hold becomes a space in its name."""
    tags = (lora.model_copy(update={"name": _NOT_IN_TAGS.sub(" ", lora.name)}) for lora in loras)
    return " ".join([*([text] if text else []), *(f"<lora:{lora}>" for lora in tags)])


def _read_tag(tag: str, body: str) -> LoraRef:
    try:
        return LoraRef.model_validate(body)
    except ValidationError as error:
        raise RequestError(f"prompt: {tag[:80]} cannot be read: {explain(error)}", field="prompt") from None


@dataclass(frozen=True)
class Words:
    """Text of one weight; ``starts_chunk`` where BREAK stands before it."""

    text: str
    weight: float = 1.0
    starts_chunk: bool = False


def parse_weights(text: str) -> tuple[Words, ...]:
    """The words with their weights: ``(more)``, ``[less]``, ``(exactly:1.3)``, nested; ``\\(`` is a plain bracket.

    Round and square brackets nest apart from each other; one that is never closed counts to the end, one that was
    never opened is plain text, and so is a number before ``]`` or one that cannot be read. A backslash before anything
    else is dropped. Neighbours of one weight are one text; what stands between two BREAKs is at least one, if empty.
    """
    pieces = _PIECES.findall(text)
    weights = {"(": [1.0], "[": [1.0]}
    chunks: list[list[tuple[str, float]]] = [[]]
    for piece, effect in zip(pieces, _pair_brackets(pieces), strict=True):
        if isinstance(effect, float):
            stack = weights[piece]
            weight = stack[-1] * effect
            stack.append(weight if abs(weight) < WEIGHT_LIMIT else copysign(WEIGHT_LIMIT, weight))
        elif effect:
            weights[effect].pop()
        else:
            weight = round(weights["("][-1] * weights["["][-1], 12)  # the order of the brackets leaves no trace
            first, *others = _BREAK.split(piece.removeprefix("\\"))
            chunks[-1].append((first, weight))
            chunks += [[(part, weight)] for part in others]
    return tuple(words for number, chunk in enumerate(chunks) for words in _join_neighbours(chunk, number > 0))


def check_chunks(count: int, field: str = "prompt") -> None:
    """Raises RequestError for a prompt that comes to too many chunks."""
    if count > MAX_CHUNKS:
        raise RequestError(
            f"{field}: it comes to more than {MAX_CHUNKS} chunks of 75 tokens, which is the limit; BREAK begins another"
            " each time",
            field=field,
        )


def check_terms(count: int, field: str = "prompt") -> None:
    """Raises RequestError for a prompt that is too many in one."""
    if count > MAX_TERMS:
        raise RequestError(f"{field}: AND makes {count} prompts of it, and {MAX_TERMS} is the limit", field=field)


def unbalanced(text: str) -> str:
    """What is wrong with the brackets, for people; empty where nothing is."""
    pieces = _PIECES.findall(text)
    wrong = []
    for closing, opening in _OPENINGS.items():
        unclosed = unopened = 0
        for piece in pieces:
            if piece == opening:
                unclosed += 1
            elif _closes(piece) and piece[-1] == closing:
                unclosed, unopened = (unclosed - 1, unopened) if unclosed else (0, unopened + 1)
        wrong += [f"{unclosed} {opening} that is never closed"] if unclosed else []
        wrong += [f"{unopened} {closing} that is never opened"] if unopened else []
    return " and ".join(wrong)


def unclosed(text: str) -> str:
    """The same of brackets that nothing closes, each prompt between AND for itself."""
    wrong = ", ".join(part for term, _ in split_terms(without_tags(text)) if (part := unbalanced(term)))
    return " and ".join(part for part in re.split(" and |, ", wrong) if part.endswith("never closed"))


def unsupported(text: str, negative: bool = False, syntax: int = 2) -> tuple[str, ...]:
    """A line for people for each form of A1111's or its extensions' that is read as plain words here.

    They are those of a ``negative`` prompt, and of a request's ``syntax``.
    """
    text = without_tags(text)
    found: dict[str, list[str]] = {form: [] for form in (EDITING, ALTERNATION, *_FORMS)}
    done = choice_places(text) if syntax > 1 else frozenset()
    for form, place, whole in _find_square_brackets(text):
        found[form] += [whole] if place not in done else []
    for form, pattern in _FORMS.items():
        if form != SEVERAL or negative or syntax == 1:
            found[form] += pattern.findall(text)
    return tuple(_say_unsupported(form, parts) for form, parts in found.items() if parts)


def _say_unsupported(form: str, parts: list[str]) -> str:
    first = parts[0] if len(parts[0]) <= _SHOWN_CHARACTERS else f"{parts[0][:_SHOWN_CHARACTERS]}..."
    if len(parts) == 1:
        return f"{first} ({form}) is not supported here and is read as plain words."
    return f"{first} and {len(parts) - 1} more ({form}) are not supported here and are read as plain words."


def _find_square_brackets(text: str) -> Iterator[tuple[str, int, str]]:
    """The form of each ``[from:to:when]``, ``[to:when]``, ``[from::when]`` and ``[a|b]``, where it begins, and its
    text, long or not.

    As in A1111's grammar colons and bars count for the innermost bracket around them, and brackets do not cross.
    """
    open_places: list[tuple[int, list[int]]] = []  # of each open bracket, and of the colons and bars in it
    for mark in _MARKS.finditer(text):
        sign, place = mark[0], mark.start()
        if sign in _FACTORS:
            open_places.append((place, []))
        elif sign in (":", "|") and open_places:
            open_places[-1][1].append(place)
        elif sign in _OPENINGS and open_places and text[open_places[-1][0]] == _OPENINGS[sign]:
            start, inner = open_places.pop()
            whole = text[start : min(place, start + _SHOWN_CHARACTERS) + 1]
            if sign == "]" and any(text[at] == "|" for at in inner):
                yield ALTERNATION, start, whole
            elif sign == "]" and len(inner) in (1, 2) and _WHEN.fullmatch(text, inner[-1] + 1, place):
                yield EDITING, start, whole


def _closes(piece: str) -> bool:
    return piece[-1] in _OPENINGS and piece[0] != "\\"


def _pair_brackets(pieces: list[str]) -> list[float | str | None]:
    """For each piece: what an opening bracket multiplies by, which kind a closing one ends, None for plain text."""
    effects: list[float | str | None] = [None] * len(pieces)
    open_places: dict[str, list[int]] = {"(": [], "[": []}
    for place, piece in enumerate(pieces):
        if piece in _FACTORS:
            effects[place] = _FACTORS[piece]
            open_places[piece].append(place)
        elif _closes(piece) and (places := open_places[_OPENINGS[piece[-1]]]):
            opening = places.pop()
            effects[place] = pieces[opening]
            if number := piece[1:-1]:
                effects[opening] = max(-WEIGHT_LIMIT, min(float(number), WEIGHT_LIMIT))
    return effects


def _join_neighbours(chunk: list[tuple[str, float]], starts_chunk: bool) -> list[Words]:
    """One text for each run of one weight: the tokenizer reads across an escaped bracket."""
    runs = groupby((part for part in chunk if part[0]), key=itemgetter(1))
    texts = [("".join(text for text, _ in run), weight) for weight, run in runs] or [("", 1.0)]
    return [Words(text, weight, starts_chunk and k == 0) for k, (text, weight) in enumerate(texts)]
