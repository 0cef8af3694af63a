"""What a pass is told, and when: its steps as spans in which nothing changes."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Term:
    """A prompt as one term of the guidance, and how much it counts: 1 is as it is, 0 not at all."""

    text: str
    weight: float = 1.0


@dataclass(frozen=True)
class Span:
    """The steps before ``stop`` (1..n, of those that the pass takes), from the span before on, with their terms."""

    stop: int
    terms: tuple[Term, ...]


def spans(prompt: str, steps: int) -> tuple[Span, ...]:
    """The spans of a pass that takes so many steps. A prompt says the same in all of them: it is one."""
    return (Span(steps, (Term(prompt),)),)
