"""What Stable Diffusion's families share: a UNet that works on the latents of a KL autoencoder."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from webui.core.checkpoint import Checkpoint
from webui.core.file_kinds import recognize
from webui.core.files import VaeFile
from webui.core.images import Size
from webui.core.kinds.sd import VAE_PREFIX
from webui.core.memory import FORWARD_ROWS
from webui.core.tensor_file import BadFile
from webui.engine.families import base
from webui.engine.families.base import Backbone, Conditioning, Posterior, Steering
from webui.engine.families.configs import unet_config, vae_config
from webui.engine.families.family import Config, Part, Parts, Shapes, Spelling
from webui.engine.families.ldm import unet_keys, unet_name, vae_keys
from webui.engine.nets.autoencoder import Autoencoder
from webui.engine.nets.encoder import Added, Prepared
from webui.engine.nets.tiny import TinyAutoencoder
from webui.engine.nets.transformer import Attended
from webui.engine.nets.unet import UNet
from webui.engine.speed.shortcuts import Shortcuts
from webui.engine.weights import Files, Key, WeightLoader, build_empty

LATENT_CHANNELS = 4
EMBEDDED_GUIDANCE_SCALE = 1000.0
REFERENCE = "reference "
"""What the names of pictures in a conditioning begin with, each as ``look_at`` has them."""


@dataclass(frozen=True)
class Forward:
    """One forward of the UNet: so many ``terms`` as it takes them, what it is shown beside the latents, what controls
    add. The last ``perturbed`` of its answers are perturbed."""

    prompts: Prepared
    shown: torch.Tensor | None = None
    perturbed: int = 0
    terms: int = 1
    added: Added | None = None

    @property
    def nbytes(self) -> int:
        """Memory of the keys and values."""
        return sum(part.nbytes for part in pytree.tree_leaves(self.prompts.attended))

    @cached_property
    def form(self) -> Hashable | None:
        """The same for those that can be joined; None for one that cannot."""
        if self.perturbed or self.added is not None or any(one.against is not None for one in self.prompts.attended):
            return None
        leaves, structure = pytree.tree_flatten((self.prompts, self.shown))
        shapes = tuple((leaf.shape[1:], leaf.dtype) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves)
        return self.terms, structure, shapes


class UNetBackbone(Backbone):
    """A UNet with cross-attention as a backbone."""

    def __init__(self, unet: UNet) -> None:
        self._unet = unet
        self.run: Callable[..., torch.Tensor] = unet

    def prepare(
        self, conditionings: Sequence[Conditioning], count: int, shown: torch.Tensor | None = None
    ) -> list[Forward]:
        """As in ``Backbone``: neighbours of one length are stacked, and are one forward up to ``FORWARD_ROWS``."""
        return self.steer(conditionings, count, shown, Steering())

    def steer(
        self, conditionings: Sequence[Conditioning], count: int, shown: torch.Tensor | None, steering: Steering
    ) -> list[Forward]:
        """As in ``Backbone``."""
        rows = [{name: part.repeat_interleave(count, dim=0) for name, part in told.items()} for told in conditionings]
        forwards, behind = [], 0
        for group in group_alike(rows, count, steering.perturbed):
            stacked = {name: torch.cat([told[name] for told in group]) for name in group[0]}
            steered = _steered(steering, behind, len(group))
            behind += len(group)
            pictures = [stacked.pop(name) for name in list(stacked) if name.startswith(REFERENCE)]
            prompts = self._unet.prepare(
                **stacked,
                perturbed=steered * count if steering.perturbed else 0,
                against=self._against(steering, steered * count),
            )
            prompts = prompts._replace(attended=look_at(prompts.attended, pictures)) if pictures else prompts
            forwards.append(Forward(prompts, shown, prompts.perturbed // count, len(group)))
        return forwards

    def _against(self, steering: Steering, rows: int) -> tuple[torch.Tensor, torch.Tensor] | None:
        """What so many rows are pushed away from, and how much."""
        if steering.nag is None or steering.against is None or rows == 0:
            return None
        context = steering.against["context"].expand(rows, -1, -1)
        nag = steering.nag
        return context, torch.tensor([nag.scale, nag.tau, nag.alpha], device=context.device)

    def convolved(
        self, conditionings: Sequence[Conditioning], latents: torch.Tensor, steering: Steering | None = None
    ) -> Mapping[nn.Module, torch.Size]:
        """As in ``Backbone``."""
        count, _, height, width = latents.shape
        perturbed = steering is not None and steering.perturbed
        first = len(group_alike(conditionings, count, perturbed)[0])
        again = _steered(steering, 0, first) if steering and perturbed else 0
        return dict(self._unet.convolved(count, count * first, height, width, count * again))

    def predict(
        self, latents: torch.Tensor, time: torch.Tensor, prepared: Forward, shortcuts: Shortcuts | None = None
    ) -> Sequence[torch.Tensor]:
        """As in ``Backbone``: one forward of the UNet in its own format."""
        seen = latents if prepared.shown is None else torch.cat([latents, prepared.shown], dim=1)
        given = (seen.to(self._unet.dtype), time, prepared.prompts, shortcuts)
        output = (self.run(*given) if prepared.added is None else self.run(*given, prepared.added)).float()
        return output.chunk(len(output) // len(latents))

    def join(self, prepared: Sequence[Forward], counts: Sequence[int]) -> Forward:
        """As in ``Backbone``."""
        terms = prepared[0].terms

        def of_all(*parts: Any) -> Any:
            """One term behind the other, each of all pictures."""
            if not isinstance(parts[0], torch.Tensor):
                return parts[0]
            by_term = (part.unflatten(0, (terms, count)) for part, count in zip(parts, counts, strict=True))
            return torch.cat(list(by_term), dim=1).flatten(0, 1)

        prompts = pytree.tree_map(of_all, *(part.prompts for part in prepared))
        shown = [part.shown for part in prepared if part.shown is not None]
        return Forward(prompts, torch.cat(shown) if shown else None, terms=terms)


def look_at(attended: Sequence[Attended], pictures: Iterable[torch.Tensor]) -> list[Attended]:
    """What cross-attentions look at, with pictures beside the prompts, (rows, length, numbers) each: keys and values by
    turns, of all cross-attentions in the same order."""
    widths = [one.keys.shape[1] * one.keys.shape[3] for one in attended for _ in range(2)]
    for picture in pictures:
        parts = picture.split(widths, dim=-1)
        pairs = zip(parts[::2], parts[1::2], strict=True)
        attended = [one.with_further(*pair) for one, pair in zip(attended, pairs, strict=True)]
    return list(attended)


class KlAutoencoder:
    """A KL autoencoder, or a tiny one in its place, which is certain of what it sees."""

    def __init__(self, vae: Any, device: torch.device) -> None:
        self._vae, self._device = vae, device
        self.scale = 2 ** (len(vae.block_out_channels) - 1)

    @property
    def px_bytes(self) -> int:
        """As in ``Autoencoder``."""
        pixel_bytes: int = self._vae.block_out_channels[0] * self._vae.dtype.itemsize
        return pixel_bytes

    @property
    def use_tiling(self) -> bool:
        """As in ``Autoencoder``."""
        tiles: bool = self._vae.use_tiling
        return tiles

    @use_tiling.setter
    def use_tiling(self, tiles: bool) -> None:
        self._vae.use_tiling = tiles

    def encode(self, picture: torch.Tensor) -> Posterior:
        """As in ``Autoencoder``; mean and standard deviation scaled like the latents."""
        vae = self._vae
        mean, std = vae.encode(picture.to(vae.dtype))
        return Posterior((mean.float() - vae.shift_factor) * vae.scaling_factor, std.float() * vae.scaling_factor)

    def decode(self, latents: torch.Tensor, in_float32: bool = False) -> torch.Tensor:
        """As in ``Autoencoder``: undoes the scaling and the shift of the latents first."""
        return self._decode(latents / self._vae.scaling_factor + self._vae.shift_factor, in_float32)

    def _decode(self, latents: torch.Tensor, in_float32: bool) -> torch.Tensor:
        vae = self._vae
        dtype = vae.dtype
        if not in_float32:
            decoded: torch.Tensor = vae.decode(latents.to(dtype))
            return decoded.float()
        try:  # widening and narrowing again leaves every weight as it was
            torch.nn.Module.to(vae, torch.float32)
            whole: torch.Tensor = vae.decode(latents.float().to(vae.device))
            return whole.to(self._device)
        finally:
            torch.nn.Module.to(vae, dtype)


def unet_of(parts: Parts) -> Backbone:
    """The UNet among the parts."""
    return UNetBackbone(parts["backbone"])


def vae_of(parts: Parts) -> base.Autoencoder:
    """The autoencoder among the parts."""
    return KlAutoencoder(parts["vae"], parts.device)


def condition(parts: Parts, prompt: Conditioning, _size: Size, guidance: float, _negative: bool) -> Conditioning:
    """A UNet that guides itself is told the guidance, as a sinusoid (Meng et al. 2023; diffusers' LCM form)."""
    unet: UNet = parts["backbone"]
    if unet.guidance_channels is None:
        return prompt
    half = unet.guidance_channels // 2
    frequencies = torch.exp(torch.arange(half) * -(torch.log(torch.tensor(10_000.0)) / (half - 1)))
    angles = max(guidance - 1, 0.0) * EMBEDDED_GUIDANCE_SCALE * frequencies
    told = torch.cat([angles.sin(), angles.cos()])[None]
    return {**prompt, "guidance": told.to(parts.device, unet.dtype)}


def _steered(steering: Steering, behind: int, count: int) -> int:
    """How many of the ``count`` after so many are no negative ones."""
    return count - min(max(steering.negatives - behind, 0), count)


def group_alike(conditionings: Sequence[Conditioning], count: int, perturbed: bool = False) -> list[list[Conditioning]]:
    """What goes into one forward each: neighbours of the same shapes, as many as ``count`` pictures leave room for.

    Where most of them are answered once more, ``perturbed``, room is counted for that.
    """
    alike = [
        list(group) for _, group in groupby(conditionings, key=lambda told: [part.shape for part in told.values()])
    ]
    most = max(FORWARD_ROWS // (count * 2 if perturbed else count), 1)
    return [group[k : k + most] for group in alike for k in range(0, len(group), most)]


def unet() -> Part:
    """The UNet as a part."""
    return Part(
        role="backbone",
        title="UNet",
        make=UNet,
        config=unet_config,
        keys=unet_keys,
        lora_prefixes=(
            *("unet_", "model_diffusion_model_", "diffusion_model_", "lycoris_"),
            *(f"{program}_unet_" for program in ("lora", "lycoris", "oft")),
        ),
        spellings=_unet_spellings,
    )


def _unet_spellings(path: str, root: nn.Module) -> Iterator[Spelling]:
    """diffusers' paths, some of whose programs leave out the 0 behind ``to_out``, and Stability's."""
    yield Spelling(path)
    if path.endswith(".to_out.0"):
        yield Spelling(path.removesuffix(".0"))
    if original := unet_name(path, root):
        yield Spelling(original)


def vae(scaling_factor: float, shift_factor: float = 0.0) -> Part:
    """The autoencoder as a part; in a single file it has the original programs' names, or diffusers'."""

    def config(_checkpoint: Checkpoint, shapes: Shapes, prefix: str) -> Config:
        return vae_config(scaling_factor, shapes, prefix, _vae_names(shapes, prefix)) | {"shift_factor": shift_factor}

    return Part(
        role="vae",
        title="VAE",
        make=Autoencoder,
        config=config,
        keys=vae_keys,
        names=lambda _checkpoint, shapes, prefix: _vae_names(shapes, prefix),
        dtype=kl_dtype,
        changeable=False,
    )


def _vae_names(shapes: Shapes, prefix: str) -> str:
    return "diffusers" if f"{prefix}decoder.mid_block.resnets.0.conv1.weight" in shapes else "ldm"


def kl_dtype(config: Mapping[str, Any], dtype: torch.dtype) -> torch.dtype:
    """A KL autoencoder that overflows float16 stays in float32."""
    return torch.float32 if dtype == torch.float16 and config.get("force_upcast", True) else dtype


Found = tuple[WeightLoader, torch.dtype]


def lone_vae(
    scaling_factor: float, shift_factor: float = 0.0, channels: int = LATENT_CHANNELS
) -> Callable[[VaeFile, Files, Checkpoint, torch.dtype], Found]:
    """What finds an autoencoder in a file of its own: KL in LDM's or diffusers' names, or a tiny one (TAESD)."""

    def find(file: VaeFile, files: Files, checkpoint: Checkpoint, dtype: torch.dtype) -> Found:
        prefix = VAE_PREFIX if f"{VAE_PREFIX}decoder.conv_in.weight" in files.shapes else ""
        if f"{prefix}decoder.conv_in.weight" not in files.shapes and channels == LATENT_CHANNELS:
            return _tiny_vae(file, files), dtype
        if f"{prefix}decoder.conv_in.weight" not in files.shapes:
            kind = recognize(files.shapes)
            raise BadFile(kind.reason if kind and kind.role != "VAE" else f"holds no VAE of {channels} channels")
        names = _vae_names(files.shapes, prefix)
        config = vae_config(scaling_factor, files.shapes, prefix, names) | {"shift_factor": shift_factor}
        if config["latent_channels"] != channels:
            raise BadFile(
                f"has latents of {config['latent_channels']} channels and belongs to another kind of model;"
                f" {checkpoint.family} has {channels}"
            )
        module = build_empty(lambda: Autoencoder(config))
        loader = WeightLoader(module, files, lambda name: vae_keys(name, module, names, prefix))
        return loader, kl_dtype(config, dtype)

    return find


def _tiny_vae(file: VaeFile, files: Files) -> WeightLoader:
    """TAESD: one file as diffusers saves it, or the decoder's with the encoder's beside it."""
    module = build_empty(TinyAutoencoder)
    if "decoder.layers.0.weight" in files.shapes:
        return WeightLoader(module, files, lambda name: iter([Key(name)]))
    beside = file.path.with_name(file.path.name.replace("decoder", "encoder"))
    if "1.weight" not in files.shapes:
        kind = recognize(files.shapes)
        raise BadFile(kind.reason if kind and kind.role != "VAE" else "holds no VAE")
    if beside == file.path or not beside.is_file():
        raise BadFile("is half of a VAE; its encoder (taesd_encoder.safetensors) must lie beside it")
    both = Files([file.path, beside], ["decoder.", "encoder."])

    def find(name: str) -> Iterator[Key]:
        half, _, number, rest = name.split(".", 3)
        yield Key(f"{half}.{int(number) + (half == 'decoder')}.{rest}")  # its decoder begins with a clamp

    return WeightLoader(module, both, find)
