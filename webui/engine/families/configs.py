"""The configurations of diffusers' and transformers' classes for a file that comes without any: from its shapes.

For the published models they are the published ones; a smaller model of the same build gets what its shapes say.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from webui.core.checkpoint import Checkpoint
from webui.core.kinds.sd import SIZE_IDS
from webui.core.text_encoders import has_open_clip_names

Shapes = Mapping[str, tuple[int, ...]]

HEADS_OF_SD1 = 8
HEAD_WIDTH = 64
OPEN_CLIP_H_LAYERS = 23
"""SD 2.x reads OpenCLIP-H's last layer but one; files have 24 layers or leave out the last."""


def unet_config(checkpoint: Checkpoint, shapes: Shapes, prefix: str) -> dict[str, Any]:
    """For ``UNet2DConditionModel``, from a UNet with LDM's or diffusers' names."""
    own = {key.removeprefix(prefix): shape for key, shape in shapes.items() if key.startswith(prefix)}
    ldm, is_first = checkpoint.names == "ldm", checkpoint.family == "SD 1.x"
    levels = ldm_levels(own) if ldm else diffusers_levels(own)
    depths, channels = [level.depth for level in levels], [level.channels for level in levels]
    middle = count(own, ("middle_block.1" if ldm else "mid_block.attentions.0") + r".transformer_blocks.(\d+)\.")
    label = own.get("label_emb.0.0.weight" if ldm else "add_embedding.linear_1.weight")
    guided = next((shape for key, shape in own.items() if key.endswith("cond_proj.weight")), None)
    return {
        "sample_size": checkpoint.native_px // 8,
        "in_channels": own["input_blocks.0.0.weight" if ldm else "conv_in.weight"][1],
        "out_channels": own["out.2.weight" if ldm else "conv_out.weight"][0],
        "block_out_channels": channels,
        "layers_per_block": levels[0].layers,
        "down_block_types": [("CrossAttnDownBlock2D" if depth else "DownBlock2D") for depth in depths],
        "up_block_types": [("CrossAttnUpBlock2D" if depth else "UpBlock2D") for depth in reversed(depths)],
        "transformer_layers_per_block": [depth or 1 for depth in depths[:-1]] + [middle],
        "attention_head_dim": HEADS_OF_SD1 if is_first else [width // HEAD_WIDTH for width in channels],
        "cross_attention_dim": next(shape[1] for key, shape in own.items() if key.endswith("attn2.to_k.weight")),
        "use_linear_projection": not is_first,
        "addition_embed_type": "text_time" if label else None,
        "addition_time_embed_dim": SIZE_IDS if label else None,
        "projection_class_embeddings_input_dim": label[1] if label else None,
        "time_cond_proj_dim": guided[1] if guided else None,
    }


@dataclass
class _Level:
    """One resolution of a UNet, going down: layers, their channels, and how deep their transformers are."""

    layers: int = 0
    channels: int = 0
    depth: int = 0


def ldm_levels(own: Shapes) -> list[_Level]:
    """The resolutions in the original names."""
    levels = [_Level()]
    for block in range(1, count(own, r"input_blocks\.(\d+)\.")):
        if (convolution := own.get(f"input_blocks.{block}.0.out_layers.3.weight")) is not None:
            depth = count(own, rf"input_blocks\.{block}\.1\.transformer_blocks\.(\d+)\.")
            levels[-1] = _Level(levels[-1].layers + 1, convolution[0], depth)
        else:
            levels.append(_Level())
    return levels


def diffusers_levels(own: Shapes) -> list[_Level]:
    """The resolutions in diffusers' names."""
    return [
        _Level(
            count(own, rf"down_blocks\.{block}\.resnets\.(\d+)\."),
            own[f"down_blocks.{block}.resnets.0.conv1.weight"][0],
            count(own, rf"down_blocks\.{block}\.attentions\.0\.transformer_blocks\.(\d+)\."),
        )
        for block in range(count(own, r"down_blocks\.(\d+)\."))
    ]


def count(shapes: Shapes, pattern: str) -> int:
    """One more than the highest number that the pattern finds; 0 for none."""
    found = (re.match(pattern, key) for key in shapes)
    return max((int(match[1]) + 1 for match in found if match), default=0)


def vae_config(scaling_factor: float, shapes: Shapes, prefix: str, names: str = "ldm") -> dict[str, Any]:
    """For ``AutoencoderKL``, from an autoencoder with LDM's or diffusers' names."""
    own = {key.removeprefix(prefix): shape for key, shape in shapes.items() if key.startswith(prefix)}
    side, block = ("down", "block") if names == "ldm" else ("down_blocks", "resnets")
    levels = count(own, rf"encoder\.{side}\.(\d+)\.")
    return {
        "in_channels": 3,
        "out_channels": 3,
        "block_out_channels": [own[f"encoder.{side}.{level}.{block}.0.conv1.weight"][0] for level in range(levels)],
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "layers_per_block": count(own, rf"encoder\.{side}\.0\.{block}\.(\d+)\."),
        "latent_channels": own["decoder.conv_in.weight"][1],
        "scaling_factor": scaling_factor,
        "use_quant_conv": "quant_conv.weight" in own,
        "use_post_quant_conv": "post_quant_conv.weight" in own,
        "force_upcast": True,
    }


def text_config(role: str, checkpoint: Checkpoint, shapes: Shapes, prefix: str) -> dict[str, Any]:
    """For ``CLIPTextConfig``, from a text encoder with OpenCLIP's names or transformers'."""
    own = {key.removeprefix(prefix): shape for key, shape in shapes.items() if key.startswith(prefix)}
    open_clip = checkpoint.family == "SD 2.x" or role == "text_encoder_2"
    if theirs := has_open_clip_names(own, ""):
        layers = count(own, r"transformer\.resblocks\.(\d+)\.")
        words, positions = own["token_embedding.weight"], own["positional_embedding"]
        inner = own["transformer.resblocks.0.mlp.c_fc.weight"][0]
    else:
        own = {key.removeprefix("text_model."): shape for key, shape in own.items()}
        layers = count(own, r"encoder\.layers\.(\d+)\.")
        words, positions = own["embeddings.token_embedding.weight"], own["embeddings.position_embedding.weight"]
        inner = own["encoder.layers.0.mlp.fc1.weight"][0]
    if checkpoint.family == "SD 2.x":
        layers = min(layers, OPEN_CLIP_H_LAYERS) if words[1] == 1024 or not theirs else layers - 1
    projection = own.get("text_projection") or own.get("text_projection.weight", ())[::-1]
    return {
        "vocab_size": words[0],
        "hidden_size": words[1],
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": max(1, words[1] // HEAD_WIDTH),
        "max_position_embeddings": positions[0],
        "hidden_act": "gelu" if open_clip else "quick_gelu",
        "projection_dim": projection[1] if projection and role == "text_encoder_2" else words[1],
        "bos_token_id": words[0] - 2,
        "eos_token_id": words[0] - 1,
        "pad_token_id": 0 if open_clip else words[0] - 1,
    }


def scheduler_config(checkpoint: Checkpoint, said: Mapping[str, Any] | None) -> dict[str, Any]:
    """The noise that every model of these families was trained on (CompVis, v1-inference.yaml), or what a folder says.

    Two settings are as ``StableDiffusionPipeline`` insists on: a file written for a scheduler that does not have them
    would leave DDIM, DDPM, LCM and TCD at defaults that are not meant for latents.
    """
    if said is not None:
        return {**said, "steps_offset": 1, "clip_sample": False}
    zero_snr = checkpoint.zero_snr
    return {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "num_train_timesteps": 1000,
        "prediction_type": "v_prediction" if checkpoint.prediction == "v" else "epsilon",
        "rescale_betas_zero_snr": zero_snr,
        "timestep_spacing": "trailing" if zero_snr else "leading",
        "steps_offset": 1,
        "clip_sample": False,
        "set_alpha_to_one": False,
    }
