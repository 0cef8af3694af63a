"""CLIP's text encoder, OpenAI's and OpenCLIP's, under the names that transformers 5 gives its parts.

Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision".
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional

DEFAULTS: Mapping[str, Any] = {
    "vocab_size": 49408,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "eos_token_id": 49407,
    "projection_dim": 512,
}
NULLABLE = ("layer_norm_eps", "eos_token_id", "projection_dim")
ACTIVATIONS: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "quick_gelu": lambda values: values * torch.sigmoid(1.702 * values),  # Hendrycks and Gimpel 2016, section 2
    "gelu": functional.gelu,
}
LEGACY_END = 2  # in old configurations, whatever ends a text; it is the highest id there


class ClipText(nn.Module):
    """Token ids to hidden states, and to a summary of the text where it ``projects``.

    ``config`` is that of transformers' CLIPTextConfig, by itself or as the ``text_config`` of a whole CLIP. Raises
    ValueError for one that asks for what this one does not do.
    """

    def __init__(self, config: Mapping[str, Any], projects: bool) -> None:
        super().__init__()
        given = _read(config)
        self.hidden_size: int = given["hidden_size"]
        self.depth: int = given["num_hidden_layers"]
        self._end: int = given["eos_token_id"]
        self.embeddings = _Embeddings(given["vocab_size"], given["max_position_embeddings"], self.hidden_size)
        self.encoder = Encoder(given)
        self.final_layer_norm = nn.LayerNorm(self.hidden_size, given["layer_norm_eps"])
        self.text_projection = nn.Linear(self.hidden_size, given["projection_dim"], bias=False) if projects else None

    @property
    def dtype(self) -> torch.dtype:
        """Of its weights."""
        return self.final_layer_norm.weight.dtype

    @property
    def device(self) -> torch.device:
        """Where its weights are; meta, where each layer's are brought as it is needed."""
        return self.final_layer_norm.weight.device

    def forward(
        self, ids: torch.Tensor, layer: int, normalise: bool, place: Callable[[torch.Tensor], None] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """A hidden state, (n, length, width), of ids (n, length), and the summary, (n, projected), if there is one.

        ``layer`` counts from the end: -1 is the last layer's output, -2 that of the one before. ``place`` may write
        into the tokens' embeddings, (n, length, width), before positions are added. Raises IndexError for a layer that
        is not there, ValueError for more tokens than there are positions.
        """
        wanted = self.depth + 1 + layer
        if not 0 <= wanted <= self.depth:
            raise IndexError(f"the text encoder has {self.depth} layers and no hidden state {layer}")
        states = self.encoder(self.embeddings(ids, place), wanted if self.text_projection is None else self.depth)
        context = self.final_layer_norm(states[wanted]) if normalise else states[wanted]
        if self.text_projection is None:
            return context, None
        ends = (ids if self._end == LEGACY_END else (ids == self._end).int()).argmax(dim=-1)  # the first of several
        last = states[-1][torch.arange(len(ids), device=ids.device), ends]
        return context, self.text_projection(self.final_layer_norm(last))


def _read(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Every setting; null is as good as none where transformers allows it."""
    nested = config.get("text_config")
    own = nested if isinstance(nested, Mapping) else config
    given = {name: own.get(name, default) for name, default in DEFAULTS.items()}
    given |= {name: DEFAULTS[name] for name in NULLABLE if given[name] is None}
    for name, value in given.items():
        if type(value) is not type(DEFAULTS[name]) or (name == "hidden_act" and value not in ACTIVATIONS):
            raise ValueError(f"the text encoder's {name} is {value!r}, which is not supported")
    width, heads = given["hidden_size"], given["num_attention_heads"]
    if heads < 1 or width % heads:
        raise ValueError(f"the text encoder's width, {width}, cannot be divided among {heads} heads")
    return given


class _Embeddings(nn.Module):
    def __init__(self, words: int, positions: int, width: int) -> None:
        super().__init__()
        # nn.Embedding's own start, a random one, would import torch's compiler where there is no memory behind it.
        self.token_embedding = nn.Embedding(words, width, _weight=torch.empty(words, width))
        self.position_embedding = nn.Embedding(positions, width, _weight=torch.empty(positions, width))

    def forward(self, ids: torch.Tensor, place: Callable[[torch.Tensor], None] | None) -> torch.Tensor:
        length, positions = ids.shape[-1], self.position_embedding.num_embeddings
        if length > positions:
            raise ValueError(f"the text encoder reads {positions} tokens at once, not {length}")
        embedded = self.token_embedding(ids)
        if place:
            place(embedded)
        output: torch.Tensor = embedded + self.position_embedding(torch.arange(length, device=ids.device))
        return output


class Encoder(nn.Module):
    """The layers of a transformer; where it ``looks_back``, a token attends to those up to itself alone."""

    def __init__(self, config: Mapping[str, Any], looks_back: bool = True) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Layer(config, looks_back) for _ in range(config["num_hidden_layers"]))

    def forward(self, hidden: torch.Tensor, count: int) -> list[torch.Tensor]:
        """The embeddings and the outputs of the first ``count`` layers; the others do not run."""
        states = [hidden]
        for layer in self.layers[:count]:
            states.append(layer(states[-1]))
        return states


class _Layer(nn.Module):
    """Vaswani et al. 2017, with the norms before what they norm."""

    def __init__(self, config: Mapping[str, Any], looks_back: bool) -> None:
        super().__init__()
        self.looks_back = looks_back
        width, inner, eps = config["hidden_size"], config["intermediate_size"], config["layer_norm_eps"]
        self.heads, self.activation = config["num_attention_heads"], ACTIVATIONS[config["hidden_act"]]
        projections = ("q_proj", "k_proj", "v_proj", "out_proj")
        self.self_attn = nn.ModuleDict({name: nn.Linear(width, width) for name in projections})
        self.layer_norm1 = nn.LayerNorm(width, eps)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, inner), "fc2": nn.Linear(inner, width)})
        self.layer_norm2 = nn.LayerNorm(width, eps)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        normed = self.layer_norm1(tokens)
        query, key, value = (self._split(self.self_attn[name](normed)) for name in ("q_proj", "k_proj", "v_proj"))
        found = functional.scaled_dot_product_attention(query, key, value, is_causal=self.looks_back)
        tokens = tokens + self.self_attn["out_proj"](found.transpose(1, 2).flatten(2))
        output: torch.Tensor = tokens + self.mlp["fc2"](self.activation(self.mlp["fc1"](self.layer_norm2(tokens))))
        return output

    def _split(self, tokens: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        return output
