"""FLUX.2 Klein: how its files are known, and what it cannot do.

A file is in diffusers' names, or in Black Forest Labs' own. The base and the distilled models have the same tensors.
"""

from webui.core.kinds.forms import Form
from webui.core.kinds.kind import OF_UNETS, Defaults, Kind, Traits
from webui.core.kinds.parts import FLUX2_VAE, QWEN3, inner
from webui.core.tensor_file import BadFile, Header

PREFIXES = ("model.diffusion_model.", "diffusion_model.", "transformer.", "")
LAYERS_READ = 3
"""Of the text encoder, side by side: so many times as wide as it are the texts."""
CHANNELS = 32
SCHEDULER = {"use_dynamic_shifting": True}
NETWORKS = {"text_encoder": QWEN3, "vae": FLUX2_VAE}
# (whose names, what only FLUX.2 has, what reads its words, what is told the guidance)
NAMES = (
    ("flux", "single_stream_modulation.lin.weight", "txt_in.weight", "guidance_in.in_layer.weight"),
    (
        "diffusers",
        "single_stream_modulation.linear.weight",
        "context_embedder.weight",
        "time_guidance_embed.guidance_embedder.linear_1.weight",
    ),
)


def _recognise(header: Header) -> Traits | None:
    shapes = header.shapes
    for names, sign, words, guidance in NAMES:
        prefix = next((prefix for prefix in PREFIXES if prefix + sign in shapes and prefix + words in shapes), None)
        if prefix is None:
            continue
        if prefix + guidance in shapes:
            raise BadFile("is FLUX.2 dev, whose words Mistral reads; of FLUX.2 the Klein models draw here")
        width = shapes[prefix + words][-1] // LAYERS_READ
        found = {"backbone": prefix, **inner(shapes, NETWORKS)}
        return Traits(tuple(found.items()), names, CHANNELS, width)
    return None


FLUX2_KLEIN = Kind(
    name="FLUX.2 Klein",
    parts=("text_encoder", "backbone", "vae"),
    latents="FLUX.2",
    recognise=_recognise,
    networks=NETWORKS,
    vocabulary="qwen3",
    folders={"backbone": "transformer"},
    native_px=1024,
    prediction="flow",
    forms=(
        Form("Distilled", Defaults(steps=4, guidance=1.0, sampler="Euler"), SCHEDULER, is_distilled=True),
        Form("Base", Defaults(steps=50, guidance=4.0, sampler="Euler"), SCHEDULER),
    ),
    lacks=frozenset({"emphasis", "clip skip", "embeddings", "refiner", "prediction", *OF_UNETS}),
    step_px_bytes=700,
)
