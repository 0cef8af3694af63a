"""SDXL: the base reads two text encoders, the refiner one; both are told the picture's size besides the words."""

from collections.abc import Mapping

import torch

from webui.core.files import ModelFile
from webui.core.images import Size
from webui.engine.embeddings import Embedding
from webui.engine.families.base import Conditioning
from webui.engine.families.clip import encode
from webui.engine.families.latent import LatentDiffusionModel
from webui.engine.families.loading import Components
from webui.engine.tokens import split_chunks

AESTHETIC_SCORE, NEGATIVE_AESTHETIC_SCORE = 6.0, 2.5
"""What the refiner is told the picture should, and should not, be rated (diffusers' and Stability's defaults)."""


class StableDiffusionXLModel(LatentDiffusionModel):
    """Both encoders' last layer but one, side by side, and the second one's summary of the whole prompt."""

    preview_factors = (
        ((0.3651, 0.4232, 0.4341), (-0.2533, -0.0042, 0.1068), (0.1076, 0.1111, -0.0362), (-0.3165, -0.2492, -0.2188)),
        (0.1084, -0.0175, -0.0011),
    )

    def __init__(self, file: ModelFile, components: Components, device: torch.device) -> None:
        super().__init__(file, components, device)
        self.refines = len(self.text_encoders) == 1
        config = components.pipeline_config
        self._zeroes_nothing_said = bool(config.get("force_zeros_for_empty_prompt", not self.refines))

    def encode_prompt(
        self, text: str, clip_skip: int, embeddings: Mapping[str, Embedding], negative: bool = False
    ) -> Conditioning:
        """``clip_skip`` 1 reads the layer that SDXL was trained on, the last but one; 2 the one before that.

        An empty negative prompt is zeros, where the model was trained so.
        """
        rows = {name: embedding.rows for name, embedding in embeddings.items()}
        contexts, pooled = [], None
        for part, encoder in self.text_encoders.items():
            self.check_clip_skip(clip_skip, encoder.depth)
            chunks = split_chunks(text, self.tokenizers[part], rows)
            context, pooled = encode(encoder, part, chunks, -(clip_skip + 1), False, embeddings, self.device)
            contexts.append(context)
        assert pooled is not None
        encoded = {"context": torch.cat(contexts, dim=-1), "summary": pooled}
        if negative and not text and self._zeroes_nothing_said:
            encoded = {name: torch.zeros_like(tensor) for name, tensor in encoded.items()}
        return {name: tensor.to(self.unet.dtype) for name, tensor in encoded.items()}

    def condition(self, prompt: Conditioning, size: Size, guidance: float, negative: bool) -> Conditioning:
        """Adds the sizes (original, crop, target; the refiner's aesthetic score in place of the target)."""
        width, height = size
        told: list[float] = [height, width, 0, 0]
        if self.refines:
            told.append(NEGATIVE_AESTHETIC_SCORE if negative else AESTHETIC_SCORE)
        else:
            told += [height, width]
        ids = torch.tensor([told], dtype=torch.float32).to(self.device, self.unet.dtype)
        return {**super().condition(prompt, size, guidance, negative), "ids": ids}


class StableDiffusionXL:
    """SDXL's base, what was made from it, and its refiner."""

    names = ("SDXL", "SDXL refiner")

    def assemble(self, file: ModelFile, components: Components, device: torch.device) -> StableDiffusionXLModel:
        """The model from its parts."""
        return StableDiffusionXLModel(file, components, device)
