"""The networks that several kinds of models share: what a file of one alone is, and which files people know.

A part is known by what network it is, not by whose it is: a file of Qwen3 serves every kind that reads words with it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

Shapes = Mapping[str, tuple[int, ...]]

QWEN_WORDS = 151_936
"""Of Qwen3's vocabulary, by which its files are told from those of other language models."""


def always(_shapes: Shapes, _prefix: str) -> bool:
    """For networks that their signs alone tell."""
    return True


def of_any_width(_shapes: Shapes, _prefix: str) -> int:
    """For networks of which every one fits."""
    return 0


@dataclass(frozen=True)
class Network:
    """A network that kinds share.

    ``name`` is what people call it, ``role`` what it is in a file of its own: ``vae``, or it begins with ``text``.
    ``signs`` are tensors of which any one tells that it is there, by their names behind what the network's begin with.
    ``fits`` says whether all else is so that belongs to it, and ``width`` how wide its states are, 0 where that does
    not matter; both are given all shapes, and what the network's names begin with. ``files`` are the published ones
    by their width. ``twin`` is the name of another network with the very same shapes, which a file of its own is taken
    for.
    """

    name: str
    role: str
    signs: tuple[str, ...]
    files: Mapping[int, str]
    fits: Callable[[Shapes, str], bool] = always
    width: Callable[[Shapes, str], int] = of_any_width
    twin: str = ""

    def find(self, shapes: Shapes, width: int = 0) -> str | None:
        """What its tensors' names begin with in a file, or None where it is not there, this wide if that is said."""
        ends = tuple(f".{sign}" for sign in self.signs)
        begins = ["" for sign in self.signs if sign in shapes]
        begins += [key[: -len(end) + 1] for key in shapes if key.endswith(ends) for end in ends if key.endswith(end)]
        fitting = (begin for begin in begins if self.fits(shapes, begin))
        return next((begin for begin in fitting if width in (0, self.width(shapes, begin))), None)

    def wanted(self, width: int) -> str:
        """The file that has it this wide, or the nearest to that, and where it goes."""
        nearest = min(self.files, key=lambda known: abs(known - width))
        return f"{self.files[nearest]} in models/{'VAE' if self.role == 'vae' else 'text_encoders'}"


def inner(shapes: Shapes, networks: Mapping[str, Network], widths: Mapping[str, int] = {}) -> dict[str, str]:
    """What a file has of these beside its backbone: what the names of each begin with, by role.

    ``widths`` tell those apart that are the same network.
    """
    found = {role: network.find(shapes, widths.get(role, 0)) for role, network in networks.items()}
    return {role: prefix for role, prefix in found.items() if prefix}


def _is_qwen3(shapes: Shapes, prefix: str) -> bool:
    return shapes.get(f"{prefix}embed_tokens.weight", ())[:1] == (QWEN_WORDS,)


def _sees(shapes: Shapes, prefix: str) -> bool:
    """Whether it is the half of Qwen3-VL that reads: its layers are called so, or what sees is beside them."""
    beside = prefix.removesuffix("model.")
    return prefix.endswith("language_model.") or f"{beside}visual.patch_embed.proj.weight" in shapes


def t5_words(shapes: Shapes, prefix: str) -> tuple[int, ...]:
    """The shape of T5's words, (words, width), under any of their names; empty where there are none."""
    names = ("shared.weight", "encoder.embed_tokens.weight")
    return next((shapes[prefix + name] for name in names if prefix + name in shapes), ())


QWEN3 = Network(
    name="Qwen3",
    role="text_encoder",
    signs=("layers.0.self_attn.q_norm.weight",),
    files={
        1024: "Qwen3 0.6B (qwen_3_06b_base.safetensors)",
        2560: "Qwen3 4B (qwen_3_4b.safetensors)",
        4096: "Qwen3 8B (qwen_3_8b.safetensors)",
    },
    fits=lambda shapes, prefix: _is_qwen3(shapes, prefix) and not _sees(shapes, prefix),
    width=lambda shapes, prefix: shapes[f"{prefix}embed_tokens.weight"][-1],
)
QWEN3_VL = Network(
    name="Qwen3-VL",
    role="text_encoder",
    signs=QWEN3.signs,
    files={2560: "Qwen3-VL 4B (qwen3vl_4b_bf16.safetensors)"},
    fits=lambda shapes, prefix: _is_qwen3(shapes, prefix) and _sees(shapes, prefix),
    width=QWEN3.width,
)
QWEN2_5_VL = Network(
    name="Qwen2.5-VL",
    role="text_encoder",
    signs=("layers.0.self_attn.q_proj.bias",),
    files={3584: "Qwen2.5-VL 7B (qwen_2.5_vl_7b_fp8_scaled.safetensors)"},
    fits=lambda shapes, prefix: f"{prefix}embed_tokens.weight" in shapes,
    width=QWEN3.width,
)
QWEN_IMAGE_CHANNELS = 16
"""Of its latents, by which its files are told from Wan 2.2's, which has 48 under the same names."""
QWEN_IMAGE_VAE = Network(
    name="Qwen-Image's VAE",
    role="vae",
    signs=("decoder.middle.0.residual.0.gamma", "decoder.mid_block.resnets.0.norm1.gamma"),  # Wan's names, diffusers'
    files={0: "Qwen-Image's VAE (qwen_image_vae.safetensors)"},
    fits=lambda shapes, prefix: any(
        shapes.get(f"{prefix}{last}.weight", ())[:1] == (QWEN_IMAGE_CHANNELS,) for last in ("conv2", "post_quant_conv")
    ),
)
FLUX2_VAE = Network(
    name="FLUX.2's VAE",
    role="vae",
    signs=("bn.running_mean",),
    files={0: "FLUX.2's VAE (flux2-vae.safetensors)"},
    fits=lambda shapes, prefix: f"{prefix}decoder.conv_in.weight" in shapes,
)
FLUX_VAE = Network(
    name="FLUX.1's VAE",
    role="vae",
    signs=("decoder.mid.block_1.norm1.weight", "decoder.mid_block.resnets.0.norm1.weight"),  # its own names, diffusers'
    files={0: "FLUX.1's VAE (ae.safetensors)"},
    fits=lambda shapes, prefix: shapes.get(f"{prefix}decoder.conv_in.weight", ())[1:2] == (16,),
)
SD3_VAE = replace(FLUX_VAE, name="SD 3's VAE", files={0: "SD 3's VAE (sd3_vae.safetensors)"}, twin=FLUX_VAE.name)
CLIP = Network(
    name="CLIP",
    role="text_encoder",
    signs=("text_model.encoder.layers.0.layer_norm1.weight",),
    files={768: "CLIP-L (clip_l.safetensors)", 1280: "CLIP-G (clip_g.safetensors)"},
    fits=lambda shapes, prefix: f"{prefix}text_model.embeddings.token_embedding.weight" in shapes,
    width=lambda shapes, prefix: shapes[f"{prefix}text_model.embeddings.token_embedding.weight"][-1],
)
T5_WORDS = 32_128
"""Of T5 v1.1's vocabulary, by which its files are told from those of others of its build."""
T5 = Network(
    name="T5",
    role="text_encoder_2",
    signs=("encoder.block.0.layer.0.SelfAttention.q.weight",),
    files={4096: "T5-XXL (t5xxl_fp16.safetensors, t5xxl_fp8_e4m3fn.safetensors)"},
    fits=lambda shapes, prefix: t5_words(shapes, prefix)[:1] == (T5_WORDS,),
    width=lambda shapes, prefix: t5_words(shapes, prefix)[-1],
)
NETWORKS = (QWEN3, QWEN3_VL, QWEN2_5_VL, QWEN_IMAGE_VAE, FLUX2_VAE, FLUX_VAE, CLIP, T5)
