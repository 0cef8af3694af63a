"""The configurations of diffusers' classes of controls for files that come without any: from their shapes."""

import re
from collections.abc import Mapping
from typing import Any

from webui.core.control_file import ControlKind
from webui.core.kinds.sd import SIZE_IDS
from webui.engine.families.configs import HEAD_WIDTH, HEADS_OF_SD1, Shapes, count, diffusers_levels, ldm_levels

SHUFFLED = re.compile(r"shuffle(_fp16)?$")
"""What single files of ControlNets that are shown a shuffled picture are called: nothing in them tells (ComfyUI)."""
EACH_PIXEL = {8: (64, 192), 16: (256, 768)}
"""A T2I-Adapter's channels by how many pixels a side each place has: of greys, of colours."""


def control_net_config(kind: ControlKind, own: Shapes, name: str) -> dict[str, Any]:
    """For ``ControlNetModel`` or ``ControlNetUnionModel``, from the shapes of a file called ``name``."""
    ldm = kind.names == "ldm"
    levels = ldm_levels(own) if ldm else diffusers_levels(own)
    channels = [level.channels for level in levels]
    middle = "middle_block.1" if ldm else "mid_block.attentions.0"
    depths = [*(level.depth for level in levels[:-1]), count(own, rf"{middle}.transformer_blocks.(\d+)\.")]
    attends = [_attends(own, ldm, number, levels[0].layers) for number in range(len(levels))]
    label = own.get("label_emb.0.0.weight" if ldm else "add_embedding.linear_1.weight")
    context = next((shape[1] for key, shape in own.items() if key.endswith("attn2.to_k.weight")), kind.width or 1)
    projection = next((shape for key, shape in own.items() if key.endswith(".proj_in.weight")), ())
    is_first = kind.family == "SD 1.x"
    return {
        "in_channels": own["input_blocks.0.0.weight" if ldm else "conv_in.weight"][1],
        "block_out_channels": channels,
        "layers_per_block": levels[0].layers,
        "down_block_types": ["CrossAttnDownBlock2D" if does else "DownBlock2D" for does in attends],
        "mid_block_type": "UNetMidBlock2DCrossAttn" if f"{middle}.norm.weight" in own else "UNetMidBlock2D",
        "transformer_layers_per_block": depths,
        "attention_head_dim": HEADS_OF_SD1 if is_first else [width // HEAD_WIDTH for width in channels],
        "cross_attention_dim": context,
        "use_linear_projection": len(projection) == 2,
        "addition_embed_type": "text_time" if label else None,
        "addition_time_embed_dim": SIZE_IDS if label else None,
        "projection_class_embeddings_input_dim": label[1] if label else None,
        "global_pool_conditions": SHUFFLED.search(name) is not None,
        **picture_config(own, ldm),
        **_union_config(own, label is not None),
    }


def _attends(own: Shapes, ldm: bool, level: int, layers: int) -> bool:
    """Whether a level has transformers, which may be without a layer: SDXL's middle-sized ControlNets have such."""
    key = f"input_blocks.{1 + level * (layers + 1)}.1.norm.weight"
    return (key if ldm else f"down_blocks.{level}.attentions.0.norm.weight") in own


def picture_config(own: Shapes, ldm: bool) -> dict[str, Any]:
    """What the network that sees the map is built of."""
    first = own["input_hint_block.0.weight" if ldm else "controlnet_cond_embedding.conv_in.weight"]
    block = r"input_hint_block\.(\d+)\." if ldm else r"controlnet_cond_embedding\.blocks\.(\d+)\."
    steps = (count(own, block) - 3) // 4 if ldm else count(own, block) // 2
    names = [
        f"input_hint_block.{4 * step}.weight" if ldm else f"controlnet_cond_embedding.blocks.{2 * step - 1}.weight"
        for step in range(1, steps + 1)
    ]
    widths = [first[0], *(own[name][0] for name in names)]
    return {"conditioning_channels": first[1], "conditioning_embedding_out_channels": widths}


def _union_config(own: Shapes, labelled: bool) -> dict[str, Any]:
    if (task := own.get("task_embedding")) is None:
        return {}
    told = own["control_add_embedding.linear_1.weight"][1]
    return {
        "num_control_type": task[0],
        "num_trans_channel": task[1],
        "num_trans_layer": count(own, r"transformer_layes\.(\d+)\."),
        "num_proj_channel": own["spatial_ch_projs.weight"][0],
        **({} if labelled else {"addition_time_embed_dim": told // task[0]}),
    }


def adapter_config(kind: ControlKind, own: Shapes) -> dict[str, Any]:
    """For ``T2IAdapter``, from its shapes without the prefix ``adapter.``."""
    ours = kind.names == "diffusers"
    is_light = kind.detail == "light"
    into = own["body.0.in_conv.weight" if is_light else "conv_in.weight"][1]
    scale = next((scale for scale, channels in EACH_PIXEL.items() if into in channels), 8)
    blocks = count(own, r"body\.(\d+)\.")
    if is_light:
        layers = count(own, rf"body\.0\.{'resnets' if ours else 'body'}\.(\d+)\.")
        channels = [own[f"body.{level}.out_conv.weight"][0] for level in range(blocks - 1)]
    else:
        layers = count(own, r"body\.0\.resnets\.(\d+)\.") if ours else ORIGINAL_LAYERS
        name = "body.{}.resnets.0.block1.weight" if ours else "body.{}.block1.weight"
        channels = [own[name.format(number)][0] for number in range(0, blocks, 1 if ours else layers)]
    full = "full_adapter_xl" if scale == max(EACH_PIXEL) else "full_adapter"
    return {
        "in_channels": into // scale**2,
        "channels": channels,
        "num_res_blocks": layers,
        "downscale_factor": scale,
        "adapter_type": "light_adapter" if is_light else full,
    }


ORIGINAL_LAYERS = 2
"""Of a resolution, in the original names, which count all layers through."""


def of_unet(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a ControlNet has from its UNet's configuration: all but what is the UNet's alone."""
    return {key: value for key, value in config.items() if key not in ("time_cond_proj_dim", "_class_name")}
