"""What ``families`` measures: a model of each family with random weights, and a step of it by diffusers' networks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from webui.engine.families.base import Conditioning

Networks = Mapping[str, Any]
"""diffusers' and transformers' networks by the folder that each has in a diffusers model."""
Outputs = Sequence[torch.Tensor]


@dataclass(frozen=True)
class Subject:
    """A family's model with random weights, of some 20 to 60 million numbers: small enough for a step in 0.3 s.

    ``make`` makes its networks, and ``save`` writes them as a diffusers model into the folder that it is given.
    ``told`` is what the backbone is told in a step, as ``Model.condition`` gives it: the negative prompt, the prompt.
    ``ask`` is the same step by diffusers' networks: these, latents (1, channels, h, w), the time 0..1000 (a scalar
    tensor) and what is told; it gives what ``Backbone.predict`` does, an output for each that is told.
    """

    name: str
    make: Callable[[], Networks]
    save: Callable[[Path, Networks], object]
    told: Callable[[], Sequence[Conditioning]]
    ask: Callable[[Networks, torch.Tensor, torch.Tensor, Sequence[Conditioning]], Outputs]


def subjects() -> list[Subject]:
    """All of them; what they are made with is imported where it is needed."""
    sds = [stable_diffusion("sd1"), stable_diffusion("sdxl")]
    return [*sds, anima(), krea2(), qwen_image(), z_image(), flux("FLUX.2 Klein"), flux("FLUX.1"), sd3()]


def stable_diffusion(kind: str) -> Subject:
    """Of the tests' own shape, and two to six times as wide."""
    from tests.checkpoints import small

    xl = kind == "sdxl"
    wide: dict[str, Any] = {"block_out_channels": (128, 384)}
    if xl:
        wide = {"block_out_channels": (128, 320, 384), "attention_head_dim": (2, 5, 6)}

    def make() -> Networks:
        made: Any = small(kind, **wide)
        names = ("unet", "vae", "text_encoder", "text_encoder_2")
        return {name: network for name in names if (network := made.components.get(name))}

    def told() -> list[Conditioning]:
        more = {"summary": torch.randn(1, 128), "ids": torch.tensor([[256.0, 256, 0, 0, 256, 256]])} if xl else {}
        return [{"context": torch.randn(1, 77, 192 if xl else 64), **more} for _ in range(2)]

    def ask(networks: Networks, latents: torch.Tensor, moment: torch.Tensor, told: Sequence[Conditioning]) -> Outputs:
        both = {name: torch.cat([one[name] for one in told]) for name in told[0]}
        added = {"text_embeds": both["summary"], "time_ids": both["ids"]} if xl else None
        twice = latents.repeat(2, 1, 1, 1)
        output = networks["unet"](twice, moment, both["context"], added_cond_kwargs=added, return_dict=False)[0]
        return list(output.chunk(2))

    return Subject("SDXL" if xl else "SD 1.x", make, lambda folder, _: small(kind, directory=folder, **wide), told, ask)


def anima() -> Subject:
    """Six of its 28 layers, 512 wide."""
    from tests.anima_models import TRANSFORMER, make_parts, save_folder

    wide = {"num_attention_heads": 8, "attention_head_dim": 64, "num_layers": 6, "mlp_ratio": 4.0}

    def ask(networks: Networks, latents: torch.Tensor, moment: torch.Tensor, told: Sequence[Conditioning]) -> Outputs:
        padding = torch.zeros(1, 1, *latents.shape[-2:])
        given = {"padding_mask": padding, "return_dict": False}
        transformer, film, now = networks["transformer"], latents[:, :, None], moment.reshape(1) / 1000
        return [transformer(film, now, one["context"], **given)[0][:, :, 0] for one in told]

    return Subject(
        "Anima",
        lambda: make_parts(transformer=TRANSFORMER | wide),
        save_folder,
        lambda: [{"context": torch.randn(1, 512, 32)} for _ in range(2)],
        ask,
    )


def z_image() -> Subject:
    """Six of its 30 layers, 768 wide."""
    from tests.anima_models import save_folder
    from tests.z_image_models import TRANSFORMER, make_parts

    wide = {"dim": 768, "n_layers": 6, "n_heads": 6, "n_kv_heads": 6, "axes_dims": [32, 48, 48]}

    def ask(networks: Networks, latents: torch.Tensor, moment: torch.Tensor, told: Sequence[Conditioning]) -> Outputs:
        seen = [*latents[:, :, None].repeat(len(told), 1, 1, 1, 1)]
        now = ((1000 - moment) / 1000).expand(len(told))
        found = networks["transformer"](seen, now, [one["context"][0] for one in told], return_dict=False)[0]
        return [-flow[None, :, 0] for flow in found]

    return Subject(
        "Z-Image",
        lambda: make_parts(transformer=TRANSFORMER | wide),
        save_folder,
        lambda: [{"context": torch.randn(1, tokens, 32)} for tokens in (60, 20)],
        ask,
    )


def sd3() -> Subject:
    """Eight blocks of 3.5 medium's build, four of which attend twice, 512 wide."""
    from tests.sd3_models import TRANSFORMER, make_parts, save_folder

    wide: dict[str, Any] = {"attention_head_dim": 64, "num_attention_heads": 8, "num_layers": 8}
    wide |= {"caption_projection_dim": 512, "pos_embed_max_size": 64, "dual_attention_layers": (0, 1, 2, 3)}

    def ask(networks: Networks, latents: torch.Tensor, moment: torch.Tensor, told: Sequence[Conditioning]) -> Outputs:
        both = {name: torch.cat([one[name] for one in told]) for name in told[0]}
        twice, now = latents.repeat(len(told), 1, 1, 1), moment.expand(len(told))
        output = networks["transformer"](twice, both["context"], both["summary"], now, return_dict=False)[0]
        return list(output.chunk(len(told)))

    return Subject(
        "SD 3.x",
        lambda: make_parts(TRANSFORMER | wide),
        save_folder,
        lambda: [{"context": torch.randn(1, 333, 96), "summary": torch.randn(1, 64)} for _ in range(2)],
        ask,
    )


def krea2() -> Subject:
    """Six of its 28 layers, 512 wide."""
    from diffusers import Krea2Pipeline

    from tests.krea2_models import TRANSFORMER, make_parts, save_folder

    wide = {"attention_head_dim": 64, "num_attention_heads": 8, "num_layers": 6, "intermediate_size": 1536}
    rope = {"axes_dims_rope": (16, 24, 24)}

    def ask(networks: Networks, latents: torch.Tensor, moment: torch.Tensor, told: Sequence[Conditioning]) -> Outputs:
        pipe: Any = Krea2Pipeline(*[None] * 5)
        count, channels, height, width = latents.shape
        pipe.vae_scale_factor = 8
        packed = pipe._pack_latents(latents, count, channels, height, width)
        outputs = []
        for one in told:
            words = one["context"].shape[1]
            places = pipe.prepare_position_ids(words, height // 2, width // 2, latents.device)
            flow = networks["transformer"](
                hidden_states=packed,
                encoder_hidden_states=one["context"],
                timestep=moment.reshape(1) / 1000,
                position_ids=places,
                encoder_attention_mask=torch.ones(1, words, dtype=torch.bool),
                return_dict=False,
            )[0]
            outputs.append(pipe._unpack_latents(flow, height * 8, width * 8)[:, :, 0])
        return outputs

    return Subject(
        "Krea 2",
        lambda: make_parts(transformer=TRANSFORMER | wide | rope),
        save_folder,
        lambda: [{"context": torch.randn(1, 77, 3, 32)} for _ in range(2)],
        ask,
    )


def qwen_image() -> Subject:
    """Four of its 60 blocks, 512 wide."""
    from diffusers import QwenImagePipeline

    from tests.qwen_image_models import TRANSFORMER, make_parts, save_folder

    wide = {"attention_head_dim": 64, "num_attention_heads": 8, "num_layers": 4, "axes_dims_rope": (8, 28, 28)}

    def ask(networks: Networks, latents: torch.Tensor, moment: torch.Tensor, told: Sequence[Conditioning]) -> Outputs:
        count, channels, height, width = latents.shape
        packed = QwenImagePipeline._pack_latents(latents, count, channels, height, width)
        outputs = []
        for one in told:
            flow = networks["transformer"](
                hidden_states=packed,
                encoder_hidden_states=one["context"],
                timestep=moment.reshape(1) / 1000,
                img_shapes=[[(1, height // 2, width // 2)]],
                return_dict=False,
            )[0]
            outputs.append(QwenImagePipeline._unpack_latents(flow, height * 8, width * 8, 8)[:, :, 0])
        return outputs

    return Subject(
        "Qwen-Image",
        lambda: make_parts(transformer=TRANSFORMER | wide),
        save_folder,
        lambda: [{"context": torch.randn(1, 77, 128)} for _ in range(2)],
        ask,
    )


def flux(name: str) -> Subject:
    """Two blocks of each kind, 512 wide. FLUX.1 is told the summary of its words and the guidance too."""
    from diffusers import Flux2KleinPipeline, FluxPipeline

    from tests import flux1_models, flux2_models

    first = name == "FLUX.1"
    own: Any = flux1_models if first else flux2_models
    rope = (8, 28, 28) if first else (16, 16, 16, 16)
    wide = {"attention_head_dim": 64, "num_attention_heads": 8, "axes_dims_rope": rope}

    def told() -> list[Conditioning]:
        more = {"summary": torch.randn(1, 64), "guidance": torch.tensor([3.5])} if first else {}
        return [{"context": torch.randn(1, 512, 32 if first else 96), **more} for _ in range(2)]

    def ask(networks: Networks, latents: torch.Tensor, moment: torch.Tensor, told: Sequence[Conditioning]) -> Outputs:
        count, channels, height, width = latents.shape
        if first:
            packed = FluxPipeline._pack_latents(latents, count, channels, height, width)
            places = FluxPipeline._prepare_latent_image_ids(
                count, height // 2, width // 2, latents.device, latents.dtype
            )
        else:
            patches = Flux2KleinPipeline._patchify_latents(latents)
            packed, places = Flux2KleinPipeline._pack_latents(patches), Flux2KleinPipeline._prepare_latent_ids(patches)
        outputs = []
        for one in told:
            words = torch.zeros(512, 3) if first else Flux2KleinPipeline._prepare_text_ids(one["context"])
            more = {"pooled_projections": one["summary"], "guidance": one["guidance"]} if first else {}
            flow = networks["transformer"](
                hidden_states=packed,
                encoder_hidden_states=one["context"],
                timestep=moment.reshape(1) / 1000,
                img_ids=places,
                txt_ids=words,
                return_dict=False,
                **more,
            )[0]
            if first:
                outputs.append(FluxPipeline._unpack_latents(flow, height * 8, width * 8, 8))
            else:
                outputs.append(Flux2KleinPipeline._unpatchify_latents(flow.transpose(1, 2).reshape(patches.shape)))
        return outputs

    return Subject(name, lambda: own.make_parts(transformer=own.TRANSFORMER | wide), own.save_folder, told, ask)
