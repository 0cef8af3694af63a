"""CLIP's text encoders: chunks of tokens to the context that a UNet attends to, with A1111's weights on it."""

from collections.abc import Mapping, Sequence

import torch

from webui.engine.embeddings import Embedding
from webui.engine.nets.clip import ClipText
from webui.engine.tokens import Chunk


def encode(
    encoder: ClipText,
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

    def place(embedded: torch.Tensor) -> None:
        for number, chunk in enumerate(chunks):
            for position, name, row in chunk.vectors:
                embedded[number, position] = embeddings[name].vectors[component][row]

    context, pooled = encoder(ids, layer, normalise, place)
    weights = torch.tensor([chunk.weights for chunk in chunks], device=context.device)
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
