"""What families have in common whose backbone is one of diffusers' transformers."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from webui.core.checkpoint import Checkpoint
from webui.engine.families.base import Backbone, Conditioning
from webui.engine.families.family import Config, Part, Shapes, Spelling, without_float16
from webui.engine.families.latent import group_alike
from webui.engine.speed.shortcuts import Shortcuts
from webui.engine.text import qwen
from webui.engine.weights import Key

PATCH = 2
"""Latents a side of one of a transformer's tokens."""
Keys = Callable[[str, nn.Module, str, str], Iterator[Key]]


@dataclass(frozen=True)
class Forward:
    """One forward of a transformer: what is told in each of its rows, as tensors or as lists of one for each row."""

    told: Mapping[str, Any]

    @property
    def nbytes(self) -> int:
        """Memory it holds."""
        parts = (part for told in self.told.values() for part in (told if isinstance(told, list) else [told]))
        return sum(part.nbytes for part in parts)


class TransformerBackbone(Backbone):
    """A transformer as a backbone. What an odd side lacks of its last patch is its last row once more."""

    def __init__(self, transformer: Any) -> None:
        self._transformer = transformer
        self.run: Callable[..., Any] = transformer

    def prepare(
        self, conditionings: Sequence[Conditioning], count: int, shown: torch.Tensor | None = None
    ) -> list[Forward]:
        """As in ``Backbone``: what is told in each forward."""
        rows = [{name: part.repeat_interleave(count, dim=0) for name, part in told.items()} for told in conditionings]
        groups = group_alike(rows, count)
        return [Forward({name: torch.cat([told[name] for told in group]) for name in group[0]}) for group in groups]

    def predict(
        self, latents: torch.Tensor, time: torch.Tensor, prepared: Forward, shortcuts: Shortcuts | None = None
    ) -> Sequence[torch.Tensor]:
        """As in ``Backbone``."""
        times = len(prepared.told["context"]) // len(latents)
        height, width = latents.shape[-2:]
        seen = latents.to(self._transformer.dtype).repeat(times, 1, 1, 1)
        seen = functional.pad(seen, (0, width % PATCH, 0, height % PATCH), mode="replicate")
        now = self.moment(time).to(latents.device, torch.float32).expand(len(seen))
        flow = self.flow(seen, now, prepared.told)
        return flow[..., :height, :width].float().chunk(times)

    def moment(self, time: torch.Tensor) -> torch.Tensor:
        """What the transformer is told of a time of 0..1000."""
        return time / 1000

    @abstractmethod
    def flow(self, seen: torch.Tensor, now: torch.Tensor, told: Mapping[str, Any]) -> torch.Tensor:
        """The flow at latents (n, channels, height, width) of whole patches, like them; ``now`` is (n,)."""


class PatchesBackbone(TransformerBackbone):
    """One that is shown patches as rows of tokens, and gives such back."""

    def flow(self, seen: torch.Tensor, now: torch.Tensor, told: Mapping[str, Any]) -> torch.Tensor:
        """As in ``TransformerBackbone``."""
        patches = functional.pixel_unshuffle(seen, PATCH)
        output = self.run(
            hidden_states=patches.flatten(2).transpose(1, 2),
            timestep=now,
            return_dict=False,
            **self.given(told, *patches.shape[-2:]),
        )[0]
        return functional.pixel_shuffle(output.transpose(1, 2).reshape(patches.shape), PATCH)

    @abstractmethod
    def given(self, told: Mapping[str, Any], rows: int, columns: int) -> dict[str, Any]:
        """What is told, and the places of all tokens, as the transformer is given them."""


def shapes_by_name(keys: Keys, checkpoint: Checkpoint, shapes: Shapes, prefix: str) -> Callable[[str], tuple[int, ...]]:
    """The shape of a parameter by diffusers' name, where ``keys`` are its names in files; KeyError where it is none."""

    def shape(parameter: str) -> tuple[int, ...]:
        found = [key.name for key in keys(parameter, nn.Identity(), checkpoint.names, prefix)]
        return shapes[next((key for key in found if key in shapes), found[0])]

    return shape


def usual_spellings(path: str) -> Iterator[Spelling]:
    """diffusers' path; without the name of the part, where it begins like that; without the 0 behind ``to_out``."""
    yield Spelling(path)
    if path.startswith("transformer_"):
        yield Spelling(path.removeprefix("transformer_"))
    if path.endswith(".to_out.0"):
        yield Spelling(path.removesuffix(".0"))


def original_spelling(
    name: str, path: str, root: nn.Module, third: int | None = None, swapped: bool = False
) -> Spelling:
    """The module at ``path`` as the original program calls it, where it is a third of the tensor of this name, or its
    halves stand the other way round there."""
    if third is None and not swapped:
        return Spelling(name)
    layer: Any = root.get_submodule(path)
    rows: int = layer.out_features
    return Spelling(name, (rows // 2, rows, 0, rows // 2) if third is None else (third * rows, (third + 1) * rows))


def transformer(
    make: Callable[[Config], nn.Module],
    config: Callable[[Checkpoint, Shapes, str], Config],
    keys: Keys,
    spellings: Callable[[str, nn.Module], Iterator[Spelling]],
    *lora_prefixes: str,
) -> Part:
    """The transformer as a part; ``lora_prefixes`` are those that LoRAs of others have not."""
    usual = ("transformer_", "lora_unet_", "diffusion_model_", "model_diffusion_model_", "")
    return Part(
        role="backbone",
        title="transformer",
        make=make,
        config=config,
        keys=keys,
        dtype=without_float16,
        lora_prefixes=(*usual, *lora_prefixes),
        spellings=spellings,
    )


def qwen_encoder(*names: str, make: Callable[[Config], nn.Module] = qwen.make, theta: float = qwen.ROPE_THETA) -> Part:
    """Qwen3 as what reads words; ``names`` are what LoRAs of ComfyUI call it."""
    return Part(
        role="text_encoder",
        title="text encoder",
        make=make,
        config=lambda _checkpoint, shapes, prefix: qwen.config(shapes, prefix, theta),
        keys=qwen.keys,
        dtype=without_float16,
        lora_prefixes=(
            *("text_encoder_", "lora_te_", "lora_te1_"),
            *(f"text_encoders_{name}_transformer_model_" for name in names),
        ),
        tokenizer=qwen.tokenizer,
    )
