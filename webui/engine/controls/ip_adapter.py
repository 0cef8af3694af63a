"""Reference pictures: what an IP-Adapter makes of them for a model's cross-attentions, kept by picture.

All that the steps need of one are keys and values, which are told with the prompt. Encoder and adapter run once a
picture, and need not stay.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from cachetools import LRUCache
from torch import nn

from webui.core.clip_vision_file import read_clip_vision, weights_of
from webui.core.control_file import unread_line
from webui.core.errors import RequestError
from webui.core.files import File
from webui.core.ip_adapter_file import IpAdapter, look
from webui.core.stages import ControlUse
from webui.core.tensor_file import BadFile
from webui.core.weight_files import hash_whole, stamp
from webui.engine.controls.image_encoder import image_encoder, shown
from webui.engine.encoding import EncodedSpan
from webui.engine.families.latent import REFERENCE
from webui.engine.families.model import Model
from webui.engine.nets.ip_adapter import IpAdapterNet
from webui.engine.run import Run
from webui.engine.weights import Files, Key, WeightLoader, build_empty

KEPT_BYTES = 128 * 2**20
NOTHING = ""
"""Stands for the pixels of no picture."""

Borrow = Callable[[Hashable, WeightLoader], nn.Module]
"""A network for a moment, by what it is kept by, on a device that has room for it."""
Pairs = Sequence[tuple[torch.Tensor, torch.Tensor]]
"""Keys and values, (1, tokens, width) each, of each cross-attention, in the order of the file."""


@dataclass(frozen=True)
class Reference:
    """What an adapter makes of a picture, and of none, which the negative prompt is told.

    ``unread`` are keys of its file that have no place in it.
    """

    pairs: Pairs
    nothing: Pairs
    unread: Sequence[str]

    @property
    def nbytes(self) -> int:
        """Memory that it holds."""
        return sum(part.nbytes for pairs in (self.pairs, self.nothing) for pair in pairs for part in pair)


class References:
    """Keeps what encoders saw in the newest pictures, and what adapters made of it."""

    def __init__(self) -> None:
        self._seen: LRUCache[Hashable, torch.Tensor] = LRUCache(KEPT_BYTES, getsizeof=lambda seen: seen.nbytes)
        self._made: LRUCache[Hashable, Reference] = LRUCache(KEPT_BYTES, getsizeof=lambda made: made.nbytes)

    @torch.inference_mode()
    def tell(
        self, words: EncodedSpan, uses: Sequence[tuple[ControlUse, float]], model: Model, borrow: Borrow, run: Run
    ) -> EncodedSpan:
        """What a span tells its model, with the pictures of IP-Adapters at their weights.

        Raises RequestError for an adapter of another network.
        """
        positive, negative = dict[str, torch.Tensor](), dict[str, torch.Tensor]()
        for number, (use, weight) in enumerate(uses):
            run.check()
            made = self._reference(use, model, borrow, run)
            order = _order(model.network, made, use)
            positive[f"{REFERENCE}{number}"] = _beside_each_other(made.pairs, order, weight)
            negative[f"{REFERENCE}{number}"] = _beside_each_other(made.nothing, order, weight)
        return replace(
            words,
            positive=[replace(branch, conditioning={**branch.conditioning, **positive}) for branch in words.positive],
            negative=None if words.negative is None else {**words.negative, **negative},
        )

    def _reference(self, use: ControlUse, model: Model, borrow: Borrow, run: Run) -> Reference:
        adapter, encoder = use.file, use.encoder
        assert encoder, "a resolved IP-Adapter has its image encoder"
        run.hashes.want("control", adapter.name, partial(hash_whole, adapter.path))
        run.hashes.want("image encoder", encoder.name, partial(hash_whole, *weights_of(encoder.path)))
        key = _identity(adapter), _identity(encoder), use.pixels, use.resize, model.dtype
        if key not in self._made:
            with _worded("IP-Adapter", adapter):
                files = Files([adapter.path])
                if (told := look(files.shapes)) is None:
                    raise BadFile("is not an IP-Adapter")
                loader = _adapter_loader(told, files)
            seen, nothing = self._see(use, encoder, told, borrow)
            with _worded("IP-Adapter", adapter):
                network = borrow(_identity(adapter), loader)
            here = next(network.parameters())
            said = [
                [
                    (keys.to(model.device, model.dtype), values.to(model.device, model.dtype))
                    for keys, values in network(one.to(here.device, here.dtype))
                ]
                for one in (seen, nothing)
            ]
            self._made[key] = Reference(said[0], said[1], loader.unread(""))
        made = self._made[key]
        if made.unread:
            run.warn(unread_line(adapter.name, made.unread))
        return made

    def _see(
        self, use: ControlUse, encoder: File, told: IpAdapter, borrow: Borrow
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What the encoder says of the picture, and of none: its summary, or zeros; its hidden states, or those of a
        picture of zeros."""
        keys = {pixels: (_identity(encoder), told.reads, pixels, use.resize) for pixels in (use.pixels, NOTHING)}
        found = {pixels: self._seen[key] for pixels, key in keys.items() if key in self._seen}
        if len(found) < len(keys):
            with _worded("image encoder", encoder):
                shape = read_clip_vision(encoder.path)
                network = borrow(_identity(encoder), image_encoder(encoder.path))
            here = next(network.parameters())
            picture = shown(use.image, shape, use.resize).to(here.device, here.dtype)
            for pixels in keys.keys() - found.keys():
                if told.reads == "summary" and not pixels:
                    found[pixels] = picture.new_zeros(1, shape.projected)
                else:
                    said = network(picture if pixels else torch.zeros_like(picture))
                    found[pixels] = getattr(said, told.reads)
        self._seen.update({keys[pixels]: one for pixels, one in found.items()})
        return found[use.pixels], found[NOTHING]


def _identity(file: File) -> Hashable:
    """The same for the same file as long as it is not changed."""
    try:
        return str(file.path), stamp(file.path)
    except OSError as error:
        reason = f"{file.path.name} cannot be read: {error.strerror}"
        raise RequestError(f"{file.name[:80]!r}: {reason}", field="controls") from None


def _adapter_loader(told: IpAdapter, files: Files) -> WeightLoader:
    try:
        module = build_empty(lambda: IpAdapterNet(told.form, dict(told.widths), files.shapes))
    except (LookupError, ValueError, RuntimeError):
        raise BadFile("is an IP-Adapter whose layout is not known here") from None
    return WeightLoader(module, files, lambda name: iter([Key(name)]))


@contextmanager
def _worded(what: str, file: File) -> Iterator[None]:
    """Errors of a file with its name."""
    try:
        yield
    except OSError as error:
        raise RequestError(
            f"{what} {file.name[:80]!r}: {file.path.name} cannot be read: {error.strerror}", field="controls"
        ) from None
    except BadFile as error:
        raise RequestError(f"{what} {file.name[:80]!r}: {file.path.name} {error}", field="controls") from None


def _order(unet: Any, made: Reference, use: ControlUse) -> list[int]:
    """Where a file has the pair of each cross-attention, in the order of the forward: files number those on the way
    down, up, and then the middle's, as diffusers' UNet lists them."""
    ways = (unet.down_blocks, unet.up_blocks, [unet.mid_block])
    down, up, middle = (
        [
            layer.norm2.normalized_shape[0]
            for block in way
            for part in block.attentions
            for layer in part.transformer_blocks
        ]
        for way in ways
    )
    if [keys.shape[-1] for keys, _ in made.pairs] != [*down, *up, *middle]:
        raise RequestError(
            f"IP-Adapter {use.file.name[:80]!r} was made for another UNet: its layers do not fit this model's",
            field="controls",
        )
    first, second, third = (list(range(len(way))) for way in (down, up, middle))
    return [*first, *(len(down) + len(up) + number for number in third), *(len(down) + number for number in second)]


def _beside_each_other(pairs: Pairs, order: Sequence[int], weight: float) -> torch.Tensor:
    """(1, tokens, numbers), with the weight in the values: what is found in them is linear in these."""
    parts = [(pairs[number][0], pairs[number][1] * weight) for number in order]
    return torch.cat([part for pair in parts for part in pair], dim=-1)
