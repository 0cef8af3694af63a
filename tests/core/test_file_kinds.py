"""A file in the wrong folder is named by what it is: the names of its tensors are those that its program gives them."""

import pytest

from webui.core.file_kinds import recognize

MATRIX = (4, 64)
BLOCK = "transformer.transformer_blocks.0"
EITHER_FLUX = "FLUX.1, FLUX.2 Klein or FLUX.2 dev"


def lora(*modules: str, ending: str = "lora_A.weight") -> dict[str, tuple[int, ...]]:
    return {f"{module}.{ending}": MATRIX for module in modules}


@pytest.mark.parametrize(
    ("shapes", "reason"),
    [
        ({}, "holds no weights"),
        ({"lora_unet_conv_in.alpha": ()}, "holds no weights"),
        ({"a.lora_up.weight": (4, 0)}, "holds no weights"),
        (
            {"model.diffusion_model.input_blocks.0.0.weight": (320, 4, 3, 3), "model.diffusion_model.out.2.bias": (4,)},
            "is a checkpoint, a whole model; it belongs in the folder for models (models/Stable-diffusion)",
        ),
        ({"input_blocks.0.0.weight": (320, 4, 3, 3)}, "is a UNet; it belongs in the folder for models"),
        ({"down_blocks.0.resnets.0.conv1.weight": (1,)}, "is a UNet; it belongs in the folder for models"),
        ({"input_blocks.0.0.weight": (4, 4, 3, 3), "lora_controlnet": ()}, "is a Control-LoRA; it belongs"),
        ({"lora_controlnet": (0,), "input_blocks.1.0.in_layers.2.up": MATRIX}, "is a Control-LoRA; it belongs"),
        ({"control_model.input_blocks.0.0.weight": (1,)}, "is a ControlNet"),
        ({"controlnet_down_blocks.0.weight": (1,), "down_blocks.0.resnets.0.x": (1,)}, "is a ControlNet"),
        ({"lllite_unet_input_blocks_4_1_x.conditioning1.0.weight": (1,)}, "is a ControlNet-LLLite, which cannot"),
        ({"adapter.body.0.in_conv.weight": (1,)}, "is a T2I-Adapter"),
        ({"image_proj.proj.weight": (1,), "ip_adapter.1.to_k_lora.down.weight": MATRIX}, "is an IP-Adapter"),
        ({"down_blocks.0.motion_modules.0.temporal.x.weight": (1,)}, "is a motion module of AnimateDiff"),
        ({"decoder.conv_in.weight": (8, 4, 3, 3)}, "is a VAE; it belongs in the folder for VAEs (models/VAE)"),
        ({"first_stage_model.decoder.conv_in.weight": (8, 4, 3, 3)}, "is a VAE"),
        ({"1.weight": (64, 4, 3, 3), "3.conv.0.weight": (64, 64, 3, 3)}, "is a VAE"),
        ({"emb_params": (4, 192)}, "is an embedding; it belongs in the folder for embeddings (embeddings)"),
        ({"clip_l": (4, 768), "clip_g": (4, 1280)}, "is an embedding"),
        ({"<a-cat>": (768,)}, "is an embedding"),
        ({"string_to_param.*": (2, 768)}, "is an embedding"),
        ({"model.0.weight": (1,), "model.1.sub.0.RDB1.conv1.0.weight": (1,)}, "is an upscaler"),
        ({"conv_first.weight": (64, 3, 3, 3), "body.0.rdb1.conv1.weight": (1,)}, "is an upscaler"),
        ({"body.0.weight": (64, 3, 3, 3), "body.1.weight": (64,)}, "is an upscaler"),
        ({"text_model.encoder.layers.0.self_attn.q_proj.weight": (768, 768)}, "is a text encoder"),
        ({"encoder.block.0.layer.0.SelfAttention.q.weight": (1,)}, "is a text encoder"),
        ({"vision_model.embeddings.class_embedding": (1,)}, "is an image encoder"),
        ({"double_blocks.0.img_mod.lin.weight": (1,)}, "is a FLUX.1 model; it belongs in the folder for models"),
        ({"model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight": (1,)}, "is an SD 3.x model"),
        (lora("lora_unet_x"), "is a LoRA; it belongs in the folder for LoRAs (models/Lora)"),
        ({"lora_unet_conv_in.oft_blocks": (1, 2, 2)}, "is a LoRA; it belongs"),
        ({"lora_unet_conv_in.a1.weight": (1, 2)}, "is a LoRA; it belongs"),
        ({"lora_unet_x.weight": (320,), "lora_unet_x.on_input": ()}, "is a LoRA; it belongs"),
        (lora("unet.up_blocks.1.attn1.processor.to_q_lora", ending="down.weight"), "is a LoRA; it belongs"),
        (lora("down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"), "is a LoRA; it belongs"),
        (lora("diffusion_model.input_blocks.4.1.transformer_blocks.0.attn1.to_q"), "is a LoRA; it belongs"),
        (lora("lora_te_text_model_encoder_layers_0_self_attn_q_proj"), "is a LoRA; it belongs"),
        (lora("lora_unet_double_blocks_0_img_attn_qkv"), f"is a LoRA for {EITHER_FLUX}; "),
        (lora("lora_unet_double_blocks_18_img_attn_qkv"), "is a LoRA for FLUX.1; it belongs"),
        (lora("transformer.single_transformer_blocks.0.attn.to_q"), "is a LoRA for FLUX.1;"),
        (lora("transformer.single_transformer_blocks.0.attn.to_qkv_mlp_proj"), "is a LoRA for FLUX.2 Klein or FLUX.2 "),
        (lora("diffusion_model.joint_blocks.3.x_block.attn.qkv"), "is a LoRA for SD 3.x;"),
        (lora(f"{BLOCK}.attn.add_k_proj"), f"is a LoRA for {EITHER_FLUX}, Krea 2, Qwen-Image or SD 3.x;"),
        (lora("transformer_blocks.59.attn.add_k_proj"), "is a LoRA for Qwen-Image;"),
        (lora(f"{BLOCK}.img_mlp.net.2", f"{BLOCK}.attn.to_q"), "is a LoRA for Qwen-Image;"),
        (lora("diffusion_model.layers.0.attention.to_q"), "is a LoRA for Z-Image;"),
        (lora("lora_unet_layers_12_feed_forward_w1"), "is a LoRA for Z-Image;"),
        (lora("diffusion_model.blocks.7.cross_attn.k"), "is a LoRA for Wan;"),
        (lora("lora_unet_blocks_7_self_attn_q"), "is a LoRA for Wan;"),
        (lora("lora_unet_blocks_7_self_attn_q_proj"), "is a LoRA for Anima or Cosmos;"),
        (lora("lora_prior_unet_down_blocks_0"), "is a LoRA for Stable Cascade;"),
    ],
)  # fmt: skip
def test_a_file_is_named_by_what_it_is(shapes, reason):
    kind = recognize(shapes)
    assert kind is not None and kind.reason.startswith(reason)


@pytest.mark.parametrize("shapes", [{"a": (2,)}, {"something.weight": (768,)}, {"💥": (3, 3, 3)}, {"a": (), "b": (7,)}])
def test_what_is_not_known_is_given_no_name(shapes):
    assert recognize(shapes) is None
