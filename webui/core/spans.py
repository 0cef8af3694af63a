"""What a pass is told, and when: its steps as spans in which nothing changes."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import groupby

from webui.core.prompt import tags_in, without_tags
from webui.core.schedule import ScheduledText, read, split_terms
from webui.core.stages import ControlUse, LoraUse, Pass


@dataclass(frozen=True)
class Term:
    """A prompt as one term of the guidance, and how much it counts: 1 is as it is, 0 not at all.

    ``region`` is the number of the pass's region that it is of, from 1, and 0 for the picture's prompt.
    """

    text: str
    weight: float = 1.0
    region: int = 0


@dataclass(frozen=True)
class Span:
    """The steps before ``stop`` (1..n, of those that the pass takes), from the span before on, and what is told in
    them: the terms of the prompt, the negative prompt, and the LoRAs at the weights that they have there.

    ``controls`` and ``references`` are those of the pass that act there, by their places in it, each with its weight.
    """

    stop: int
    terms: tuple[Term, ...]
    negative: str = ""
    loras: tuple[LoraUse, ...] = ()
    controls: tuple[tuple[int, float], ...] = ()
    references: tuple[tuple[int, float], ...] = ()


def spans(stage: Pass) -> tuple[Span, ...]:
    """The steps that a pass takes, counted from the first of them, as few spans as they can be.

    From a picture a pass takes only its last steps, and half of them is half of those. Terms that count nothing are
    left out, unless there is no other.
    """
    steps = stage.steps_taken
    prompts = (stage.prompt, *(region.prompt for region in stage.regions))
    parts = [
        (read(text), weight, region) for region, prompt in enumerate(prompts) for text, weight in split_terms(prompt)
    ]
    negative = read(stage.negative)

    def told(step: int) -> Span:
        said = [text.at(step, steps, stage.done) for text, _, _ in parts]
        terms = tuple(Term(_words(part[0], own), *part[1:]) for part, own in zip(parts, said, strict=True))
        counting = tuple(term for term in terms if term.weight)
        unwanted = _words(negative, negative.at(step, steps, stage.done))
        tagged = [own for own, (_, _, region) in zip(said, parts, strict=True) if not region]
        acting = (_acting(uses, step, steps) for uses in (stage.controls, stage.references))
        return Span(steps, counting or terms[:1], unwanted, _loras(stage, step, steps, tagged), *acting)

    changes = stage.lora_schedules or any(text.choices for text in (negative, *(part[0] for part in parts)))
    if not changes and all((use.start, use.end) == (0, 1) for use in (*stage.controls, *stage.references)):
        return (told(0),)
    found = []
    for span, group in groupby(range(steps), told):
        found.append(replace(span, stop=1 + max(group)))
    return tuple(found) or (told(0),)


def _acting(uses: Iterable[ControlUse], step: int, steps: int) -> tuple[tuple[int, float], ...]:
    weights = (use.at(step, max(steps, 1)) for use in uses)
    return tuple((place, weight) for place, weight in enumerate(weights) if weight)


def _words(text: ScheduledText, said: str) -> str:
    """Without tags; a bracket that says nothing at an end leaves no space there, which would be a token to some."""
    return without_tags(said).strip() if text.choices else said


def _loras(stage: Pass, step: int, steps: int, texts: Iterable[str]) -> tuple[LoraUse, ...]:
    tags = [tag for text in texts for tag in tags_in(text)] if stage.lora_schedules else []
    moving = []
    for schedule in stage.lora_schedules:
        times = tags.count(schedule.tag) if schedule.tag else 1
        use = schedule.at(step, steps)
        if times and (use.unet or use.text):
            moving.append(replace(use, unet=use.unet * times, text=use.text * times))
    return (*stage.loras, *moving)
