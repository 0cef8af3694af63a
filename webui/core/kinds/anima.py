"""Anima: how its files are known, and what it cannot do.

A file is in diffusers' names, or in those of Cosmos-Predict2, whose transformer it has.
"""

from webui.core.kinds.kind import OF_UNETS, Defaults, Kind, Traits
from webui.core.kinds.parts import QWEN3, QWEN_IMAGE_VAE, inner
from webui.core.tensor_file import BadFile, Header

BACKBONE_PREFIXES = ("model.diffusion_model.", "diffusion_model.", "net.", "transformer.", "")
ADAPTER = "llm_adapter."
NETWORKS = {"text_encoder": QWEN3, "vae": QWEN_IMAGE_VAE}


def _recognise(header: Header) -> Traits | None:
    shapes = header.shapes
    for prefix in BACKBONE_PREFIXES:
        if f"{prefix}blocks.0.adaln_modulation_self_attn.1.weight" in shapes:
            asked = shapes.get(f"{prefix}{ADAPTER}blocks.0.cross_attn.k_proj.weight")
            if asked is None:
                raise BadFile(
                    "is Cosmos-Predict2 without the llm_adapter that makes it Anima, which is what draws here"
                )
            found = {"text_conditioner": f"{prefix}{ADAPTER}", "backbone": prefix, **inner(shapes, NETWORKS)}
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


ANIMA = Kind(
    name="Anima",
    parts=("text_encoder", "text_conditioner", "backbone", "vae"),
    latents="Qwen-Image",
    recognise=_recognise,
    networks=NETWORKS,
    vocabulary="t5",
    folders={"backbone": "transformer"},
    native_px=1024,
    prediction="flow",
    defaults=Defaults(steps=30, guidance=4.0, sampler="Euler"),
    lacks=frozenset({"clip skip", "embeddings", "refiner", "prediction", *OF_UNETS}),
    step_px_bytes=300,
)
