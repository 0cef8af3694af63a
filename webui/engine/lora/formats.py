"""Formats of LoRA files: which endings of keys play which role, and what delta the roles make together.

A file's keys are ``<module><ending>``. Endings say which role a tensor plays, all roles of one module together which
format it is. To add a format, add a ``Format`` to ``FORMATS``.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from webui.engine.lora.deltas import (
    Delta,
    Difference,
    Generalized,
    Hadamard,
    Kronecker,
    LowRank,
    Replacement,
    Residual,
    ResidualOf,
    Scaled,
)
from webui.engine.lora.rotations import InputRotation, OutputRotation

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Notes:
    """What a file and the files beside it say of one module besides its tensors.

    ``alpha`` and ``rank`` are None where they say nothing; ``config`` is PEFT's configuration, ``by_peft`` whether
    PEFT wrote the file, ``residual_of`` what a T-LoRA's training began from.
    """

    alpha: float | None = None
    rank: int | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    by_peft: bool = False
    residual_of: ResidualOf = "principal"


@dataclass(frozen=True)
class Format:
    """A way to write down a change. ``endings`` maps key endings to roles; with all of ``needed`` there, it is used.

    ``build`` gets the roles' tensors and the notes, and returns deltas for ``weight`` and ``bias``.
    """

    name: str
    endings: Mapping[str, str]
    needed: frozenset[str]
    build: Callable[[Tensors, Notes], Mapping[str, Delta]]


def _scale(alpha: float | None, rank: int) -> float:
    """What the product of low rank is multiplied with; raises RuntimeError."""
    if rank == 0:
        raise RuntimeError("its rank is 0")
    return (rank if alpha is None else alpha) / rank


def _build_lora(parts: Tensors, notes: Notes) -> Mapping[str, Delta]:
    up, down, mid = parts["up"].flatten(1), parts["down"].flatten(1), parts.get("mid")
    rank = len(down)
    if up.shape[1] != rank or (mid is not None and mid.shape[:2] != (rank, rank)):
        raise RuntimeError(f"rank {rank} of its down part and {up.shape[1]} of its up part")
    scale = _scale(notes.alpha, rank)
    bias = {"bias": Difference(parts["up_bias"], scale)} if "up_bias" in parts else {}
    return {"weight": LowRank(up, down, scale, mid), **bias}


def _build_loha(parts: Tensors, notes: Notes) -> Mapping[str, Delta]:
    scale = _scale(notes.alpha, len(parts["hada_b1"]))
    four = (parts["hada_a1"], parts["hada_b1"], parts["hada_a2"], parts["hada_b2"])
    return {"weight": Hadamard(*four, parts.get("hada_t1"), parts.get("hada_t2"), scale)}


def _build_lokr(parts: Tensors, notes: Notes) -> Mapping[str, Delta]:
    rank = notes.rank if notes.by_peft else None  # LyCORIS has no scale where both are whole, PEFT always has
    halves: list[Any] = []
    for half in ("w1", "w2"):
        if f"lokr_{half}" in parts:
            halves.append(parts[f"lokr_{half}"])
        else:
            pair = parts[f"lokr_{half}_a"], parts[f"lokr_{half}_b"]
            rank = len(pair[1])
            halves.append(pair)
    scale = 1.0 if rank is None else _scale(notes.alpha, rank)
    return {"weight": Kronecker(halves[0], halves[1], parts.get("lokr_t2"), scale)}


def _build_ia3(parts: Tensors, _notes: Notes) -> Mapping[str, Delta]:
    return {"weight": Scaled(parts["factors"], bool(parts["on_input"].any()))}


def _build_difference(parts: Tensors, _notes: Notes) -> Mapping[str, Delta]:
    return {"weight": Difference(parts["diff"])}


def _build_bias(parts: Tensors, _notes: Notes) -> Mapping[str, Delta]:
    return {"bias": Difference(parts["diff_b"])}


def _build_replacement(parts: Tensors, _notes: Notes) -> Mapping[str, Delta]:
    return {"weight": Replacement(parts["set"])}


def _build_glora(parts: Tensors, notes: Notes) -> Mapping[str, Delta]:
    return {"weight": Generalized(parts["a1"], parts["a2"], parts["b1"], parts["b2"], notes.alpha)}


def _build_tlora(parts: Tensors, notes: Notes) -> Mapping[str, Delta]:
    p, q = parts["p"].flatten(1), parts["q"].flatten(1)
    return {"weight": Residual(p, parts["lambdas"], q, _scale(notes.alpha, len(q)), notes.residual_of)}


def _build_oft(parts: Tensors, notes: Notes) -> Mapping[str, Delta]:
    return {"weight": OutputRotation(parts["oft_blocks"], notes.alpha or 0.0, parts.get("rescale"))}


def _build_turned_oft(parts: Tensors, _notes: Notes) -> Mapping[str, Delta]:
    return {"weight": OutputRotation(parts["oft_turned"], 0.0, parts.get("rescale"), turned=True)}


def _build_old_peft_oft(parts: Tensors, notes: Notes) -> Mapping[str, Delta]:
    """PEFT before 0.16: R^T W of the Cayley transform of -S, S half of what the others' Q is."""
    _refuse_coft(notes)
    return {"weight": OutputRotation(parts["oft_r"].float() * -0.5, 0.0, None)}


def _build_peft_oft(parts: Tensors, notes: Notes) -> Mapping[str, Delta]:
    _refuse_coft(notes)
    vectors, config = parts["oft_vectors"], notes.config
    terms = config.get("num_cayley_neumann_terms", 5)
    if not isinstance(terms, int) or not 1 <= terms <= 100:
        raise ValueError(f"has an adapter_config.json with num_cayley_neumann_terms {str(terms)[:40]}")
    exact = config.get("use_cayley_neumann", True) is False
    return {"weight": InputRotation(vectors, notes.by_peft, "oft_scaled" in parts, exact, terms)}


def _refuse_coft(notes: Notes) -> None:
    if notes.config.get("coft"):
        raise ValueError("is a constrained OFT (COFT) of PEFT, a format that is not known here")


_LORA_ENDINGS = {
    **{f".lora_{name}.weight": name for name in ("down", "up", "mid")},
    **{".lora_A.weight": "down", ".lora_B.weight": "up", ".lora_B.bias": "up_bias", ".lora_up.bias": "up_bias"},
    **{f".{middle}{name}.weight": name for middle in ("lora.", "lora_linear_layer.", "") for name in ("down", "up")},
}
_LOHA_ENDINGS = {
    **{f".hada_w{number}_{letter}": f"hada_{letter}{number}" for number in "12" for letter in "ab"},
    **{f".hada_t{number}": f"hada_t{number}" for number in "12"},
}
_LOKR_ENDINGS = {f".lokr_{part}": f"lokr_{part}" for part in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")}
_GLORA_ENDINGS = {f".{part}.weight": part for part in ("a1", "a2", "b1", "b2")}
_TLORA_ENDINGS = {".p_layer.weight": "p", ".q_layer.weight": "q", ".lambda_layer": "lambdas"}
_RESCALE = {".rescale": "rescale"}

FORMATS = (
    Format("LoRA", _LORA_ENDINGS, frozenset({"up", "down"}), _build_lora),
    Format("LoHa", _LOHA_ENDINGS, frozenset({"hada_a1", "hada_b1", "hada_a2", "hada_b2"}), _build_loha),
    *(
        Format("LoKr", _LOKR_ENDINGS, frozenset({*one, *other}), _build_lokr)
        for one in (("lokr_w1",), ("lokr_w1_a", "lokr_w1_b"))
        for other in (("lokr_w2",), ("lokr_w2_a", "lokr_w2_b"))
    ),
    Format("GLoRA", _GLORA_ENDINGS, frozenset({"a1", "a2", "b1", "b2"}), _build_glora),
    Format("T-LoRA", _TLORA_ENDINGS, frozenset({"p", "q", "lambdas"}), _build_tlora),
    Format("OFT", {".oft_blocks": "oft_blocks", **_RESCALE}, frozenset({"oft_blocks"}), _build_oft),
    Format("OFT of LyCORIS 2", {".oft_diag": "oft_turned", **_RESCALE}, frozenset({"oft_turned"}), _build_turned_oft),
    Format("OFT of PEFT before 0.16", {".oft_r": "oft_r"}, frozenset({"oft_r"}), _build_old_peft_oft),
    Format(
        "OFT of PEFT",
        {".oft_R.weight": "oft_vectors", ".oft_R.scaled_oft": "oft_scaled"},
        frozenset({"oft_vectors"}),
        _build_peft_oft,
    ),
    Format("IA3", {".weight": "factors", ".on_input": "on_input"}, frozenset({"factors", "on_input"}), _build_ia3),
    Format("difference", {".diff": "diff", ".w_norm": "diff"}, frozenset({"diff"}), _build_difference),
    Format("bias difference", {".diff_b": "diff_b", ".b_norm": "diff_b"}, frozenset({"diff_b"}), _build_bias),
    Format("replacement", {".set_weight": "set"}, frozenset({"set"}), _build_replacement),
)
ENDINGS: Mapping[str, str] = {
    **{ending: role for row in FORMATS for ending, role in row.endings.items()},
    **{".alpha": "alpha", ".dora_scale": "magnitude"},
    **{f".lora_magnitude_vector{rest}": "row_magnitude" for rest in ("", ".weight")},
}
OTHER_FORMATS = (  # that people may have, by a part of their keys
    ("boft_", "BOFT, as PEFT writes it"),
    ("ia3_l", "IA3, as PEFT writes it"),
    ("vera_", "VeRA"),
    ("hra_u", "HRA"),
    ("fourierft_spectrum", "FourierFT"),
    ("randlora_", "RandLoRA"),
    ("lora_embedding_", "LoRA of a token embedding"),
    ("lora_E", "AdaLoRA"),
    ("vblora_", "VB-LoRA"),
    ("c3a_kernel", "C3A"),
    ("shira_weight", "SHiRA"),
    ("road_", "RoAd"),
    ("miss_block", "MiSS"),
    ("bone_block", "Bone"),
)
# PEFT puts the adapter's name behind what is the adapter's: lora_A.style.weight, hada_w1_a.style.
_ADAPTER = re.compile(
    r"(?P<part>\.(?:lora_[AB]|oft_R|lora_magnitude_vector))\.(?P<name>[^.]+)(?=\.(?:weight|bias|scaled_oft)$)"
    r"|(?P<own>\.(?:hada_\w+|lokr_\w+|oft_r|lora_magnitude_vector))\.(?P<own_name>(?!weight$)[^.]+)$"
)


def split_adapter(key: str) -> tuple[str, str]:
    """The key without the name of a PEFT adapter in it, and that name; empty where there is none."""
    if not (found := _ADAPTER.search(key)):
        return key, ""
    part, name = found["part"] or found["own"], found["name"] or found["own_name"]
    return key[: found.start()] + part + key[found.end() :], name


def split_key(key: str) -> tuple[str, str] | None:
    """A key's module name and role, by its longest known ending."""
    at = key.find(".")
    while at >= 0:
        if role := ENDINGS.get(key[at:]):
            return key[:at], role
        at = key.find(".", at + 1)
    return None


def name_format(ending: str) -> str:
    """What people call the format of an ending that is not read here; empty where it is not known either."""
    return next((name for part, name in OTHER_FORMATS if part in ending), "")
