"""SDXL: the base reads two text encoders, the refiner one; both are told the picture's size besides the words."""

import torch

from webui.core.images import Size
from webui.engine.families import latent
from webui.engine.families.base import Conditioning
from webui.engine.families.clip import check_skip, encode, text_encoder
from webui.engine.families.configs import scheduler_config
from webui.engine.families.family import EncodeOptions, Family, LatentFormat, Parts
from webui.engine.families.latent import lone_vae, unet, unet_of, vae, vae_of
from webui.engine.tokens import split_chunks

SCALING_FACTOR = 0.13025
AESTHETIC_SCORE, NEGATIVE_AESTHETIC_SCORE = 6.0, 2.5
"""What the refiner is told the picture should, and should not, be rated (diffusers' and Stability's defaults)."""


def _encode(parts: Parts, text: str, options: EncodeOptions) -> Conditioning:
    """Both encoders' last layer but one, side by side, and the second one's summary of the whole prompt.

    ``clip_skip`` 1 reads the layer that SDXL was trained on, the last but one; 2 the one before that. An empty negative
    prompt is zeros, where the model was trained so.
    """
    rows = {name: embedding.rows for name, embedding in options.embeddings.items()}
    contexts, pooled = [], None
    for role, tokenizer in parts.tokenizers.items():
        encoder = parts[role]
        check_skip(options.clip_skip, encoder.depth)
        chunks = split_chunks(text, tokenizer, rows)
        layer = -(options.clip_skip + 1)
        context, pooled = encode(encoder, role, chunks, layer, False, options.embeddings, parts.device)
        contexts.append(context)
    assert pooled is not None
    encoded = {"context": torch.cat(contexts, dim=-1), "summary": pooled}
    if options.negative and not text and _zeroes_nothing_said(parts):
        encoded = {name: torch.zeros_like(tensor) for name, tensor in encoded.items()}
    return {name: tensor.to(parts["backbone"].dtype) for name, tensor in encoded.items()}


def _refines(parts: Parts) -> bool:
    return len(parts.tokenizers) == 1


def _zeroes_nothing_said(parts: Parts) -> bool:
    return bool(parts.pipeline_config.get("force_zeros_for_empty_prompt", not _refines(parts)))


def _condition(parts: Parts, prompt: Conditioning, size: Size, guidance: float, negative: bool) -> Conditioning:
    """Adds the sizes (original, crop, target; the refiner's aesthetic score in place of the target)."""
    width, height = size
    told: list[float] = [height, width, 0, 0]
    if _refines(parts):
        told.append(NEGATIVE_AESTHETIC_SCORE if negative else AESTHETIC_SCORE)
    else:
        told += [height, width]
    ids = torch.tensor([told], dtype=torch.float32).to(parts.device, parts["backbone"].dtype)
    return {**latent.condition(parts, prompt, size, guidance, negative), "ids": ids}


STABLE_DIFFUSION_XL = Family(
    kinds=("SDXL", "SDXL refiner"),
    parts=(text_encoder("text_encoder"), text_encoder("text_encoder_2"), unet(), vae(SCALING_FACTOR)),
    latents=LatentFormat(  # ComfyUI, latent_formats.py
        4,
        ((0.3651, 0.4232, 0.4341), (-0.2533, -0.0042, 0.1068), (0.1076, 0.1111, -0.0362), (-0.3165, -0.2492, -0.2188)),
        (0.1084, -0.0175, -0.0011),
    ),
    scheduler=scheduler_config,
    encode=_encode,
    condition=_condition,
    backbone=unet_of,
    autoencoder=vae_of,
    lone_vae=lone_vae(SCALING_FACTOR),
    is_unet=True,
)
