"""The one loop, over spans: three tasks, every sampler. Scale the input, ask the network, guide, step."""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from cachetools import LRUCache

from webui.core.groups.pag import Pag
from webui.engine.families.base import Backbone, Conditioning, Steering
from webui.engine.guide import Branch, are_whole, guide, perturb, rescale
from webui.engine.lead import Lead
from webui.engine.noise import Noise
from webui.engine.speed.shortcuts import Shortcuts
from webui.engine.together import Asked

if TYPE_CHECKING:
    from webui.engine.controls.base import Control

Keep = Callable[[torch.Tensor, int], torch.Tensor]
"""The latents before evaluation ``index`` (1..n) as they are to go on; at n they are the result."""
Enter = Callable[[], object]


KEPT_BYTES = 256 * 2**20
KEPT_SPANS = 4, 64
KEPT_CONTROLS = 16
"""What different spans are told is kept as far as it has room, but for so many at least, and at most; what controls are
told, of so many spans and controls."""


def stay() -> None:
    """For a span that begins with the weights that are there."""


@dataclass(frozen=True)
class ReadySpan:
    """The evaluations before ``stop`` (1..n), from the span before on, in which the network is told the same.

    ``negative`` is None where no unconditional branch runs; the guidance is as good as 1 then, and ValueError is raised
    for branches that are not whole. ``rescale`` (0..1) is for guided answers alone, ``steering`` for UNets; ``pag`` is
    there where it perturbs. ``enter`` is called as the span begins, again where its guidance ends, and where it
    is prepared ahead. It is the one place where weights change, for what is prepared holds only as long as they do: the
    same ``enter`` makes the same weights, each time. ``controls`` are those that act, each with its weight.
    """

    stop: int
    positive: Sequence[Branch]
    negative: Conditioning | None = None
    guidance: float = 1.0
    enter: Enter = stay
    rescale: float = 0.0
    pag: Pag | None = None
    steering: Steering | None = None
    controls: Sequence[tuple["Control", float]] = ()

    def __post_init__(self) -> None:
        if self.negative is None and not are_whole(self.positive):
            raise ValueError("the weights must sum to 1 all over where no unconditional branch runs")


@dataclass(frozen=True)
class Denoised:
    """After evaluation ``index`` (1..total): what the network saw, said, and what the scheduler made of it.

    ``latents``, ``seen`` and ``output`` are (n, channels, h, w), float32, on the device; ``output`` is guided.
    """

    index: int
    total: int
    latents: torch.Tensor
    seen: torch.Tensor
    output: torch.Tensor


class Stopped(Exception):
    """The job was cancelled between two evaluations."""


@torch.inference_mode()
def denoise(
    backbone: Backbone,
    noise: Noise,
    latents: torch.Tensor,
    spans: Iterable[ReadySpan],
    cancelled: Callable[[], bool],
    first: int = 0,
    stop: int | None = None,
    shown: torch.Tensor | None = None,
    keep: Keep | None = None,
    shortcuts: Shortcuts | None = None,
    ahead: bool = False,
    meets: bool = False,
) -> Iterator[Denoised | Asked]:
    """Takes the noise's evaluations from ``first`` to before ``stop``, with latents at the level of the first of them.

    ``shown`` is what the network sees beside the latents (n, channels, h, w). A term of weight 0 is not asked for. Each
    span begins with a whole forward, whatever the shortcuts. Spans of the very same terms and weights are prepared
    once, if they are few. ``ahead`` prepares all before the first evaluation, where they have room; all spans enter
    weights then, or none does. One that ``meets`` others yields what it is about to ask, which somebody may answer.
    Raises Stopped, and ValueError where the spans end before ``stop``.
    """
    index, stop = first, len(noise) if stop is None else stop
    due = list(_due(spans, first, stop))
    told, lead = _Told(backbone, len(latents), shown), Lead(latents.device)
    if ahead:
        told.prepare_all(due, cancelled)
    for span, weights in due:
        span.enter()
        positive = [branch for branch in span.positive if branch.weight]
        forwards = [(part, shortcuts and replace(shortcuts)) for part in told.prepare(span, weights)]
        controls = _Controls(span, told, [part for part, _ in forwards]) if span.controls else None
        while index < min(span.stop, stop):
            if cancelled():
                raise Stopped
            seen, time = noise.model_input(latents, index), noise.time(index)
            asked = forwards if controls is None else controls.ask(forwards, seen, time)
            outputs, perturbed = yield from _ask(backbone, seen, time, asked, cancelled if meets else None)
            output = _guided(span, positive, outputs, perturbed, time)
            latents = noise.step(output, index, latents)
            index += 1
            if keep is not None:
                latents = keep(latents, index)
            lead.follow(index == stop)
            yield Denoised(index, len(noise), latents, seen, output)
    if index < stop:
        raise ValueError(f"the spans end at evaluation {index} of {stop}")


def _ask(
    backbone: Backbone,
    seen: torch.Tensor,
    time: torch.Tensor,
    forwards: Iterable[tuple[Any, Shortcuts | None]],
    cancelled: Callable[[], bool] | None,
) -> Generator[Asked, None, tuple[list[torch.Tensor], list[torch.Tensor]]]:
    """The answers to all that is told, and those that are perturbed; with ``cancelled`` others may be asked with it."""
    outputs: list[torch.Tensor] = []
    perturbed: list[torch.Tensor] = []
    for part, own in forwards:
        said: Sequence[torch.Tensor] | None = None
        if cancelled is not None and own is None and getattr(part, "form", None) is not None:
            asked = Asked(cancelled, backbone, seen, time, part)
            yield asked
            if cancelled():
                raise Stopped
            said = asked.said
        said = backbone.predict(seen, time, part, own) if said is None else said
        plain = len(said) - getattr(part, "perturbed", 0)
        outputs += said[:plain]
        perturbed += said[plain:]
    return outputs, perturbed


def _guided(
    span: ReadySpan,
    positive: Sequence[Branch],
    outputs: list[torch.Tensor],
    perturbed: Sequence[torch.Tensor],
    time: torch.Tensor,
) -> torch.Tensor:
    """The answers as one; the first is the unconditional one where such a branch runs."""
    unconditional = None if span.negative is None else outputs[0]
    told = outputs if span.negative is None else outputs[1:]
    output = guide(unconditional, told, positive, span.guidance)
    if span.pag and perturbed:
        output = perturb(output, told, perturbed, positive, span.pag.at(time))
    if span.rescale and unconditional is not None and positive:
        output = rescale(output, guide(unconditional, told, positive, 1.0), span.rescale)
    return output


def _due(spans: Iterable[ReadySpan], index: int, stop: int) -> Iterator[tuple[ReadySpan, Enter]]:
    """The spans that have evaluations from ``index`` to before ``stop``, each with what makes its weights."""
    weights: Enter = stay
    for span in spans:
        if min(span.stop, stop) > index:
            index, weights = span.stop, weights if span.enter is stay else span.enter
            yield span, weights


class _Controls:
    """A span's controls, and what they added last."""

    def __init__(self, span: ReadySpan, told: "_Told", forwards: Sequence[Any]) -> None:
        terms = tuple(part.terms for part in forwards)
        self._controls = [
            (control, weight, told.prepare_control(control, span, terms)) for control, weight in span.controls
        ]
        self._last: dict[int, Any] = {}

    def ask(
        self, forwards: Sequence[tuple[Any, Shortcuts | None]], seen: torch.Tensor, time: torch.Tensor
    ) -> Iterator[tuple[Any, Shortcuts | None]]:
        """The same forwards with what is added to each. Where one takes the features of the one before, that holds."""
        for number, (part, own) in enumerate(forwards):
            if own is None or not own.goes_on:
                self._last[number] = self._add_up(number, seen, time)
            yield replace(part, added=self._last[number]), own

    def _add_up(self, number: int, seen: torch.Tensor, time: torch.Tensor) -> Any:
        parts = (control.added(seen, time, told[number], weight) for control, weight, told in self._controls)
        there = [part for part in parts if part is not None]
        return reduce(lambda one, other: one.plus(other), there) if there else None


class _Told:
    """What the network is told, by terms and weights of spans that live as long as this does."""

    def __init__(self, backbone: Backbone, count: int, shown: torch.Tensor | None) -> None:
        self._backbone, self._count, self._shown = backbone, count, shown
        self._known: LRUCache[tuple[int, ...], Sequence[Any]] = LRUCache(KEPT_BYTES, getsizeof=_size)
        self._controls: LRUCache[tuple[int, ...], Sequence[Any]] = LRUCache(KEPT_CONTROLS)

    def prepare(self, span: ReadySpan, weights: Enter) -> Sequence[Any]:
        """As in ``Backbone``, where it is not known; the weights must be there."""
        key = _key(span, weights)
        if key not in self._known:
            told = self._conditionings(span)
            if span.steering is None:
                self._known[key] = self._backbone.prepare(told, self._count, self._shown)
            else:
                self._known[key] = self._backbone.steer(told, self._count, self._shown, span.steering)
        return self._known[key]

    def prepare_control(self, control: "Control", span: ReadySpan, terms: tuple[int, ...]) -> Sequence[Any]:
        """As in ``Control``, where it is not known, for forwards of so many terms each."""
        key = id(control), id(span.positive), id(span.negative), *terms
        if key not in self._controls:
            told = iter(self._conditionings(span))
            groups = [list(islice(told, number)) for number in terms]
            self._controls[key] = control.prepare(groups, self._count, span.negative is not None)
        return self._controls[key]

    @staticmethod
    def _conditionings(span: ReadySpan) -> list[Conditioning]:
        told = [branch.conditioning for branch in span.positive if branch.weight]
        return told if span.negative is None else [span.negative, *told]

    def prepare_all(self, due: Iterable[tuple[ReadySpan, Enter]], cancelled: Callable[[], bool]) -> None:
        """The last first, which ends with the first one's weights; it stops once it shows that not all have room."""
        different = {_key(span, weights): (span, weights) for span, weights in due}
        for span, weights in reversed(different.values()):
            if cancelled():
                raise Stopped
            weights()
            if _size(self.prepare(span, weights)) * len(different) > KEPT_BYTES:
                return


def _key(span: ReadySpan, weights: Enter) -> tuple[int, ...]:
    return id(weights), id(span.positive), id(span.negative), id(span.steering)


def _size(prepared: Sequence[Any]) -> int:
    """Its bytes, within what lets as few and as many be kept as ``KEPT_SPANS`` says."""
    nbytes = sum(getattr(forward, "nbytes", 0) for forward in prepared)
    return min(max(nbytes, KEPT_BYTES // KEPT_SPANS[1]), KEPT_BYTES // KEPT_SPANS[0])


def guided_until(spans: Iterable[ReadySpan], index: int) -> Iterator[ReadySpan]:
    """The same spans, at guidance 1 from evaluation ``index`` on, and nothing else that guides.

    Kynkäänniemi et al. 2024, "Applying Guidance in a Limited Interval": the prompt goes on alone, which is less work.
    Only terms that are not whole need the unconditional branch there, too.
    """
    for span in spans:
        yield replace(span, stop=min(span.stop, index))
        if span.stop > index:
            alone = are_whole(span.positive)
            negative = None if alone else span.negative
            yield replace(span, negative=negative, guidance=1.0, rescale=0.0, pag=None, steering=None)
