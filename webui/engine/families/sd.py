"""Stable Diffusion 1.x and 2.x: one CLIP text encoder, a UNet, a KL autoencoder."""

from collections.abc import Mapping

import torch

from webui.core.files import ModelFile
from webui.engine.embeddings import Embedding
from webui.engine.families.base import Conditioning
from webui.engine.families.clip import encode
from webui.engine.families.latent import LatentDiffusionModel
from webui.engine.families.loading import Components
from webui.engine.tokens import split_chunks


class StableDiffusionModel(LatentDiffusionModel):
    """The UNet reads the text encoder's last layer; for 2.x that is OpenCLIP's last but one."""

    preview_factors = (
        ((0.3512, 0.2297, 0.3227), (0.3250, 0.4974, 0.2350), (-0.2829, 0.1762, 0.2721), (-0.2120, -0.2616, -0.7177)),
        (0.0, 0.0, 0.0),
    )

    def encode_prompt(
        self, text: str, clip_skip: int, embeddings: Mapping[str, Embedding], negative: bool = False
    ) -> Conditioning:
        """``clip_skip`` counts as A1111 does: 1 reads the last layer, 2 the one before, always normalised."""
        encoder = self.text_encoders["text_encoder"]
        self.check_clip_skip(clip_skip, encoder.depth)
        rows = {name: embedding.rows for name, embedding in embeddings.items()}
        chunks = split_chunks(text, self.tokenizers["text_encoder"], rows)
        context, _ = encode(encoder, "text_encoder", chunks, -clip_skip, True, embeddings, self.device)
        return {"context": context.to(self.unet.dtype)}


class StableDiffusion:
    """SD 1.x, SD 2.x and what was made from them."""

    names = ("SD 1.x", "SD 2.x")

    def assemble(self, file: ModelFile, components: Components, device: torch.device) -> StableDiffusionModel:
        """The model from its parts."""
        return StableDiffusionModel(file, components, device)
