"""Stable Diffusion 1.x and 2.x: one CLIP text encoder, a UNet, a KL autoencoder."""

from webui.engine.families.base import Conditioning
from webui.engine.families.clip import check_skip, encode, text_encoder
from webui.engine.families.configs import scheduler_config
from webui.engine.families.family import EncodeOptions, Family, LatentFormat, Parts
from webui.engine.families.latent import condition, lone_vae, unet, unet_of, vae, vae_of
from webui.engine.tokens import split_chunks

SCALING_FACTOR = 0.18215


def _encode(parts: Parts, text: str, options: EncodeOptions) -> Conditioning:
    """The UNet reads the text encoder's last layer; for 2.x that is OpenCLIP's last but one.

    ``clip_skip`` counts as A1111 does: 1 reads the last layer, 2 the one before, always normalised.
    """
    encoder, embeddings = parts["text_encoder"], options.embeddings
    check_skip(options.clip_skip, encoder.depth)
    rows = {name: embedding.rows for name, embedding in embeddings.items()}
    chunks = split_chunks(text, parts.tokenizers["text_encoder"], rows)
    context, _ = encode(encoder, "text_encoder", chunks, -options.clip_skip, True, embeddings, parts.device)
    return {"context": context.to(parts["backbone"].dtype)}


STABLE_DIFFUSION = Family(
    kinds=("SD 1.x", "SD 2.x"),
    parts=(text_encoder("text_encoder"), unet(), vae(SCALING_FACTOR)),
    latents=LatentFormat(  # ComfyUI, latent_formats.py
        4,
        ((0.3512, 0.2297, 0.3227), (0.3250, 0.4974, 0.2350), (-0.2829, 0.1762, 0.2721), (-0.2120, -0.2616, -0.7177)),
    ),
    scheduler=scheduler_config,
    encode=_encode,
    condition=condition,
    backbone=unet_of,
    autoencoder=vae_of,
    lone_vae=lone_vae(SCALING_FACTOR),
    is_unet=True,
)
