"""Z-Image and Z-Image Turbo: how their files are known, and what they cannot do.

A file is in diffusers' names, or in those of its own program, which has attention's three projections in one. The two
forms have the same tensors.
"""

from webui.core.kinds.forms import Form
from webui.core.kinds.kind import OF_UNETS, Defaults, Kind, Traits
from webui.core.kinds.parts import FLUX_VAE, QWEN3, inner
from webui.core.tensor_file import BadFile, Header

PREFIXES = ("model.diffusion_model.", "diffusion_model.", "transformer.", "")
CHANNELS = 16
NETWORKS = {"text_encoder": QWEN3, "vae": FLUX_VAE}


def _recognise(header: Header) -> Traits | None:
    shapes = header.shapes
    for prefix in PREFIXES:
        told = shapes.get(f"{prefix}cap_embedder.1.weight")
        if told is None or f"{prefix}noise_refiner.0.attention_norm1.weight" not in shapes:
            continue
        if f"{prefix}x_pad_token" not in shapes:
            raise BadFile("is Lumina 2 or made from it; of its kind Z-Image is what draws here")
        names = "diffusers" if f"{prefix}all_x_embedder.2-1.weight" in shapes else "z-image"
        found = {"backbone": prefix, **inner(shapes, NETWORKS)}
        return Traits(tuple(found.items()), names, CHANNELS, told[-1])
    return None


Z_IMAGE = Kind(
    name="Z-Image",
    parts=("text_encoder", "backbone", "vae"),
    latents="FLUX.1",
    recognise=_recognise,
    networks=NETWORKS,
    vocabulary="qwen3",
    folders={"backbone": "transformer"},
    native_px=1024,
    prediction="flow",
    forms=(
        Form("Turbo", Defaults(steps=8, guidance=1.0, sampler="Euler"), {"shift": 3.0}, is_distilled=True),
        Form("Base", Defaults(steps=30, guidance=5.0, sampler="Euler"), {"shift": 6.0}),
    ),
    lacks=frozenset({"emphasis", "clip skip", "embeddings", "refiner", "prediction", *OF_UNETS}),
)
