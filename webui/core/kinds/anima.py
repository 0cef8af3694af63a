"""Anima: how its files are known, whole and in parts, and what it cannot do.

A file is in diffusers' names, or in those of Cosmos-Predict2, whose transformer it has.
"""

from collections.abc import Mapping

from webui.core.kinds.kind import Defaults, Kind, Traits
from webui.core.tensor_file import BadFile, Header

BACKBONE_PREFIXES = ("model.diffusion_model.", "diffusion_model.", "net.", "transformer.", "")
TEXT_PREFIXES = (
    "text_encoders.qwen3_06b.transformer.model.",
    "text_encoders.qwen3_06b.",
    "text_encoder.",
    "model.",
    "",
)
VAE_PREFIXES = ("vae.", "first_stage_model.", "")
ADAPTER = "llm_adapter."
TEXT_SIGN = "layers.0.self_attn.q_norm.weight"
VAE_SIGNS = ("decoder.middle.0.residual.0.gamma", "decoder.mid_block.resnets.0.norm1.gamma")  # Wan's names, diffusers'

Shapes = Mapping[str, tuple[int, ...]]


def _recognise(header: Header) -> Traits | None:
    shapes = header.shapes
    for prefix in BACKBONE_PREFIXES:
        if f"{prefix}blocks.0.adaln_modulation_self_attn.1.weight" in shapes:
            asked = shapes.get(f"{prefix}{ADAPTER}blocks.0.cross_attn.k_proj.weight")
            if asked is None:
                raise BadFile(
                    "is Cosmos-Predict2 without the llm_adapter that makes it Anima, which is what draws here"
                )
            found = {"text_conditioner": f"{prefix}{ADAPTER}", "backbone": prefix, **_others(shapes)}
            return Traits(tuple(found.items()), "cosmos", 16, asked[1])
        if (
            f"{prefix}transformer_blocks.0.norm1.linear_2.weight" in shapes
            and f"{prefix}patch_embed.proj.weight" in shapes
        ):
            told = shapes.get(f"{prefix}transformer_blocks.0.attn2.to_k.weight")
            if told is None or f"{prefix}time_embed.t_embedder.linear_1.weight" not in shapes:
                return None
            return Traits((("backbone", prefix),), "diffusers", 16, told[1])
    return None


def _others(shapes: Shapes) -> dict[str, str]:
    """What an all-in-one file has beside the transformer, by role."""
    found = {"text_encoder": _text_prefix(shapes), "vae": _vae_prefix(shapes)}
    return {role: prefix for role, prefix in found.items() if prefix}


def _text_prefix(shapes: Shapes) -> str | None:
    signs = (prefix for prefix in TEXT_PREFIXES if f"{prefix}{TEXT_SIGN}" in shapes)
    return next((prefix for prefix in signs if f"{prefix}embed_tokens.weight" in shapes), None)


def _vae_prefix(shapes: Shapes) -> str | None:
    return next((prefix for prefix in VAE_PREFIXES if any(prefix + sign in shapes for sign in VAE_SIGNS)), None)


def _lone(header: Header) -> Traits | None:
    """A text encoder or an autoencoder in a file of its own."""
    shapes = header.shapes
    if (prefix := _text_prefix(shapes)) is not None:
        return Traits((("text_encoder", prefix),), context_width=shapes[f"{prefix}embed_tokens.weight"][1])
    if (prefix := _vae_prefix(shapes)) is not None:
        return Traits((("vae", prefix),))
    return None


ANIMA = Kind(
    name="Anima",
    parts=("text_encoder", "text_conditioner", "backbone", "vae"),
    latents="Qwen-Image",
    recognise=_recognise,
    lone=_lone,
    vocabulary="t5",
    wants={
        "text_encoder": "Qwen3 0.6B (qwen_3_06b_base.safetensors) in models/text_encoders",
        "vae": "Qwen-Image's autoencoder (qwen_image_vae.safetensors) in models/VAE",
    },
    folders={"backbone": "transformer"},
    native_px=1024,
    prediction="flow",
    defaults=Defaults(steps=30, guidance=4.0, sampler="Euler"),
    lacks=frozenset({"clip skip", "embeddings", "refiner", "prediction", "token merging", "reuse"}),
)
