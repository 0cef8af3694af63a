"""The one loop, over spans: three tasks, every sampler. Scale the input, ask the network, guide, step."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from cachetools import LRUCache

from webui.engine.families.base import Backbone, Conditioning
from webui.engine.guide import Branch, are_whole, guide
from webui.engine.noise import Noise
from webui.engine.speed.shortcuts import Shortcuts

Keep = Callable[[torch.Tensor, int], torch.Tensor]
"""The latents before evaluation ``index`` (1..n) as they are to go on; at n they are the result."""


KEPT_SPANS = 4
"""So many different spans may take turns before what they are told is prepared anew each time."""


def stay() -> None:
    """For a span that begins with the weights that are there."""


@dataclass(frozen=True)
class ReadySpan:
    """The evaluations before ``stop`` (1..n), from the span before on, in which the network is told the same.

    ``negative`` is None where no unconditional branch runs; the guidance is as good as 1 then, and ValueError is raised
    for branches that are not whole. ``enter`` is called as the span begins, and again where its guidance ends. It is
    the one place where weights change, for what is prepared holds only as long as they do: the same ``enter`` makes the
    same weights, each time.
    """

    stop: int
    positive: Sequence[Branch]
    negative: Conditioning | None = None
    guidance: float = 1.0
    enter: Callable[[], object] = stay

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
) -> Iterator[Denoised]:
    """Takes the noise's evaluations from ``first`` to before ``stop``, with latents at the level of the first of them.

    ``shown`` is what the network sees beside the latents (n, channels, h, w). A term of weight 0 is not asked for. Each
    span begins with a whole forward, whatever the shortcuts. Spans of the very same terms and weights are prepared
    once, if they are few. Raises Stopped, and ValueError where the spans end before ``stop``.
    """
    index, stop = first, len(noise) if stop is None else stop
    weights: Callable[[], object] = stay
    known: LRUCache[tuple[int, ...], tuple[Any, ...]] = LRUCache(KEPT_SPANS)
    for span in spans:
        end = min(span.stop, stop)
        if end <= index:
            continue
        span.enter()
        weights = weights if span.enter is stay else span.enter
        positive = [branch for branch in span.positive if branch.weight]
        told = [branch.conditioning for branch in positive]
        if span.negative is not None:
            told.insert(0, span.negative)
        key = id(weights), id(span.positive), id(span.negative)
        if key not in known:  # with what the addresses are of, so that they stay its own
            known[key] = weights, span, backbone.prepare(told, len(latents), shown)
        forwards = [(part, shortcuts and replace(shortcuts)) for part in known[key][-1]]
        while index < end:
            if cancelled():
                raise Stopped
            seen, time = noise.model_input(latents, index), noise.time(index)
            outputs = [output for part, own in forwards for output in backbone.predict(seen, time, part, own)]
            unconditional = None if span.negative is None else outputs.pop(0)
            output = guide(unconditional, outputs, positive, span.guidance)
            latents = noise.step(output, index, latents)
            index += 1
            if keep is not None:
                latents = keep(latents, index)
            yield Denoised(index, len(noise), latents, seen, output)
    if index < stop:
        raise ValueError(f"the spans end at evaluation {index} of {stop}")


def guided_until(spans: Iterable[ReadySpan], index: int) -> Iterator[ReadySpan]:
    """The same spans, at guidance 1 from evaluation ``index`` on.

    Kynkäänniemi et al. 2024, "Applying Guidance in a Limited Interval": the prompt goes on alone, which is less work.
    Only terms that are not whole need the unconditional branch there, too.
    """
    for span in spans:
        yield replace(span, stop=min(span.stop, index))
        if span.stop > index:
            alone = are_whole(span.positive)
            yield replace(span, negative=None if alone else span.negative, guidance=1.0)
