"""Stable Diffusion 3 medium and 3.5 medium, large and large turbo: how their files are known, and what they cannot do.

A file is in diffusers' names, or in Stability's own. T5, the largest part, may be left out.
"""

from webui.core.kinds.forms import Form
from webui.core.kinds.kind import OF_UNETS, Defaults, Kind, Traits
from webui.core.kinds.parts import CLIP, SD3_VAE, T5, inner
from webui.core.tensor_file import BadFile, Header

PREFIXES = ("model.diffusion_model.", "diffusion_model.", "transformer.", "")
CHANNELS = 16
NETWORKS = {"text_encoder": CLIP, "text_encoder_2": CLIP, "text_encoder_3": T5, "vae": SD3_VAE}
# (whose names, what only SD 3 has, what reads pictures, words and their summary, what draws)
NAMES = (
    (
        "sd3",
        *("joint_blocks.0.context_block.attn.qkv.weight", "x_embedder.proj.weight", "context_embedder.weight"),
        *("y_embedder.mlp.0.weight", "final_layer.linear.weight"),
    ),
    (
        "diffusers",
        *("transformer_blocks.0.norm1_context.linear.weight", "pos_embed.proj.weight", "context_embedder.weight"),
        *("time_text_embed.text_embedder.linear_1.weight", "proj_out.weight"),
    ),
)


def clip_widths(summary: int) -> tuple[int, int]:
    """CLIP-L's and CLIP-G's of the summary of both: 768 and 1280 of 2048."""
    return summary * 3 // 8, summary * 5 // 8


def _recognise(header: Header) -> Traits | None:
    shapes = header.shapes
    for names, sign, pictures, words, summary, drawn in NAMES:
        needed = (sign, pictures, words, summary, drawn)
        prefix = next((prefix for prefix in PREFIXES if all(prefix + name in shapes for name in needed)), None)
        if prefix is None:
            continue
        if shapes[prefix + pictures][1] != CHANNELS:
            raise BadFile("is an SD 3 model that is shown a picture besides; those that are told words draw here")
        first, second = clip_widths(shapes[prefix + summary][-1])
        widths = (("text_encoder", first), ("text_encoder_2", second))
        found = {"backbone": prefix, **inner(shapes, NETWORKS, dict(widths))}
        return Traits(tuple(found.items()), names, CHANNELS, shapes[prefix + words][-1], widths=widths)
    return None


SD3 = Kind(
    name="SD 3.x",
    parts=("text_encoder", "text_encoder_2", "text_encoder_3", "backbone", "vae"),
    latents="SD 3",
    recognise=_recognise,
    networks=NETWORKS,
    optional=frozenset({"text_encoder_3"}),
    folders={"backbone": "transformer"},
    native_px=1024,
    prediction="flow",
    forms=(
        Form("Base", Defaults(steps=28, guidance=4.5, sampler="Euler"), {"shift": 3.0}),
        Form("Turbo", Defaults(steps=4, guidance=1.0, sampler="Euler"), {"shift": 3.0}, is_distilled=True),
    ),
    lacks=frozenset({"embeddings", "refiner", "prediction", *OF_UNETS}),
    step_px_bytes=400,
)
