"""CLIP's text encoders: chunks of tokens to the context that a UNet attends to, with A1111's weights on it."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from webui.engine.embeddings import Embedding
from webui.engine.tokens import Chunk


def encode(
    encoder: CLIPTextModel | CLIPTextModelWithProjection,
    component: str,
    chunks: Sequence[Chunk],
    layer: int,
    normalise: bool,
    embeddings: Mapping[str, Embedding],
    device: torch.device | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The context, (1, chunks * length, width), and the first chunk's projection, (1, width), if there is one; float32.

    ``layer`` counts the encoder's hidden states from their end: -1 is the last one, -2 the one before. ``component`` is
    the encoder's name in each embedding's vectors. ``device`` is where it computes; None is where its weights are.
    """
    ids = torch.tensor([chunk.ids for chunk in chunks], device=device or encoder.device)

    def place_vectors(_module: torch.nn.Module, _ids: object, embedded: torch.Tensor) -> None:
        for number, chunk in enumerate(chunks):
            for position, name, row in chunk.vectors:
                embedded[number, position] = embeddings[name].vectors[component][row]

    with encoder.get_input_embeddings().register_forward_hook(place_vectors):
        output = encoder(ids, output_hidden_states=True)
    if normalise and layer == -1:
        context = output.last_hidden_state
    else:
        context = output.hidden_states[layer]
        if normalise:
            text_model: Any = getattr(encoder, "text_model", encoder)
            context = text_model.final_layer_norm(context)
    weights = torch.tensor([chunk.weights for chunk in chunks], device=context.device)
    pooled = getattr(output, "text_embeds", None)
    return weigh(context.float(), weights).flatten(0, 1)[None], None if pooled is None else pooled[:1].float()


def weigh(context: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Multiplies each token by its weight and each chunk back to the mean it had: A1111's "Original" emphasis.

    ``context`` is (chunks, length, width), ``weights`` (chunks, length). A chunk whose weights are all 1 stays exactly
    as it is; one whose mean is lost is not multiplied back.
    """
    weighted = context * weights[..., None]
    scale = context.mean(dim=(1, 2), keepdim=True) / weighted.mean(dim=(1, 2), keepdim=True)
    scale = torch.where(scale.isfinite(), scale, 1.0)
    plain = (weights == 1).all(dim=1)[:, None, None]
    return torch.where(plain, context, weighted * scale)
