"""CLIP's image encoder, OpenAI's and OpenCLIP's, under the names that transformers gives the parts of its tower.

Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision".
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import nn

from webui.engine.nets.clip import Encoder

EPS = 1e-5


class Seen(NamedTuple):
    """What of pictures an encoder tells: ``hidden`` (n, 1 + patches, width), the output of the layer before the last,
    and ``summary`` (n, projected)."""

    hidden: torch.Tensor
    summary: torch.Tensor


class ClipVision(nn.Module):
    """Pictures (n, 3, side, side), normalised, to what it sees in them.

    ``config`` has the fields of transformers' CLIPVisionConfig.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        width = config["hidden_size"]
        self.embeddings = _Embeddings(width, config["patch_size"], config["image_size"])
        self.pre_layrnorm = nn.LayerNorm(width, EPS)
        self.encoder = Encoder({"layer_norm_eps": EPS, **config}, looks_back=False)
        self.post_layernorm = nn.LayerNorm(width, EPS)
        self.visual_projection = nn.Linear(width, config["projection_dim"], bias=False)

    def forward(self, pictures: torch.Tensor) -> Seen:
        """What it sees; ``side`` is the ``image_size``."""
        embedded = self.pre_layrnorm(self.embeddings(pictures))
        *_, hidden, last = self.encoder(embedded, len(self.encoder.layers))
        return Seen(hidden, self.visual_projection(self.post_layernorm(last[:, 0])))


class _Embeddings(nn.Module):
    """Patches as tokens, behind one of the whole picture."""

    def __init__(self, width: int, patch: int, side: int) -> None:
        super().__init__()
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.patch_embedding = nn.Conv2d(3, width, patch, stride=patch, bias=False)
        # nn.Embedding's own start, a random one, would import torch's compiler where there is no memory behind it.
        positions = (side // patch) ** 2 + 1
        self.position_embedding = nn.Embedding(positions, width, _weight=torch.empty(positions, width))

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        patches = self.patch_embedding(pictures).flatten(2).transpose(1, 2)
        whole = self.class_embedding.expand(len(pictures), 1, -1)
        places = torch.arange(self.position_embedding.num_embeddings, device=patches.device)
        output: torch.Tensor = torch.cat([whole, patches], dim=1) + self.position_embedding(places)
        return output
