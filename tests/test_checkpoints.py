"""The checkpoint maker itself, held against the published files' sizes and diffusers' own converters."""

import json
import math

import checkpoints
import diffusers
import pytest
import torch
from checkpoints import KINDS, SMALL, UNET, VAE, published, small, to_ldm, write_random
from diffusers.loaders import single_file_utils
from safetensors.torch import load_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

COUNTS = {  # tensors in all, the UNet's, the text encoders'
    "sd15": (1145, 686, 197),
    "sd15-inpainting": (1145, 686, 197),
    "sd21": (1242, 686, 294),
    "sdxl": (2515, 1680, 197 + 390),
    "sdxl-refiner": (1858, 1220, 390),
}
# The sizes in bytes that the hubs list for the published safetensors files, and what those hold beside tensors and
# their table: nothing, the 31 characters of "__metadata__":{"format":"pt"}, or SDXL's licence and thumbnail.
SIZES = {
    "sd15": (4_265_146_304, range(31, 32)),
    "sd15-inpainting": (4_265_203_873, range(1)),
    "sd21": (5_214_604_494, range(31, 32)),
    "sdxl": (6_938_078_334, range(30_000, 40_000)),
    "sdxl-refiner": (6_075_981_930, range(30_000, 40_000)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_published_files_have_the_known_number_of_tensors(kind: str) -> None:
    names = published(kind)
    text = [name for name in names if name.startswith(checkpoints.TEXT)]
    assert (len(names), sum(name.startswith(UNET) for name in names), len(text)) == COUNTS[kind]
    assert sum(name.startswith(VAE) for name in names) == 248


@pytest.mark.parametrize("kind", KINDS)
def test_published_files_have_the_known_size(kind: str) -> None:
    """Names, shapes and dtypes together make a safetensors file's size; a wrong one would show."""
    header, end = {}, 0
    for name, (shape, dtype) in sorted(published(kind).items()):
        begin, end = end, end + math.prod(shape) * int(dtype[1:]) // 8
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    size, beside = SIZES[kind]
    assert size - 8 - len(json.dumps(header, separators=(",", ":"))) - end in beside


# config.json of the folders on the hub: runwayml/stable-diffusion-v1-5 and -inpainting, stabilityai/
# stable-diffusion-2-1, -xl-base-1.0 and -xl-refiner-1.0.
DOWN, UP = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",), ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3
SD1 = {"block_out_channels": (320, 640, 1280, 1280), "down_block_types": DOWN, "up_block_types": UP}
XL = {"use_linear_projection": True, "addition_embed_type": "text_time", "addition_time_embed_dim": 256}
OFFICIAL_UNETS = {
    "sd15": SD1 | {"cross_attention_dim": 768, "attention_head_dim": 8},
    "sd15-inpainting": SD1 | {"cross_attention_dim": 768, "attention_head_dim": 8, "in_channels": 9},
    "sd21": SD1 | {"cross_attention_dim": 1024, "attention_head_dim": (5, 10, 20, 20), "use_linear_projection": True},
    "sdxl": XL
    | {
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "attention_head_dim": (5, 10, 20),
        "transformer_layers_per_block": (1, 2, 10),
        "cross_attention_dim": 2048,
        "projection_class_embeddings_input_dim": 2816,
    },
    "sdxl-refiner": XL
    | {
        "block_out_channels": (384, 768, 1536, 1536),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "attention_head_dim": (6, 12, 24, 24),
        "transformer_layers_per_block": 4,
        "cross_attention_dim": 1280,
        "projection_class_embeddings_input_dim": 2560,
    },
}
OFFICIAL_TEXT = {  # class, width, layers of text_encoder and of text_encoder_2
    "sd15": ((CLIPTextModel, 768, 12), None),
    "sd15-inpainting": ((CLIPTextModel, 768, 12), None),
    "sd21": ((CLIPTextModel, 1024, 23), None),
    "sdxl": ((CLIPTextModel, 768, 12), (CLIPTextModelWithProjection, 1280, 32)),
    "sdxl-refiner": (None, (CLIPTextModelWithProjection, 1280, 32)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_official_models_get_exactly_the_published_names_and_shapes(kind: str) -> None:
    def encoder(official):
        if official is None:
            return None
        model, width, layers = official
        sizes = {"hidden_size": width, "projection_dim": width, "intermediate_size": 4 * width}
        return model(CLIPTextConfig(vocab_size=49408, num_hidden_layers=layers, num_attention_heads=4, **sizes))

    with torch.device("meta"):
        unet = diffusers.UNet2DConditionModel(**OFFICIAL_UNETS[kind])
        vae = diffusers.AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
        )
        first, second = map(encoder, OFFICIAL_TEXT[kind])
        sd2 = kind == "sd21"
        made = to_ldm(unet, vae, first, second, open_clip=sd2, extra_layer=sd2)
    weights = {
        name: shape for name, (shape, _) in published(kind).items() if name.startswith((UNET, VAE, *checkpoints.TEXT))
    }
    assert {name: tuple(value.shape) for name, value in made.items()} == weights


def same(converted: dict[str, torch.Tensor], module: torch.nn.Module) -> None:
    state = {key.removeprefix("text_model."): value for key, value in module.state_dict().items()}
    converted = {key.removeprefix("text_model."): value for key, value in converted.items()}
    assert state.keys() == converted.keys()
    for key, value in state.items():
        assert torch.equal(converted[key], value), key


@pytest.mark.parametrize("kind", SMALL)
def test_diffusers_converters_read_the_weights_back(kind: str) -> None:
    pipeline = small(kind)
    second = getattr(pipeline, "text_encoder_2", None)
    sd2, refiner = kind.startswith("sd2"), kind == "sdxl-refiner"
    made = to_ldm(pipeline.unet, pipeline.vae, pipeline.text_encoder, second, open_clip=sd2)

    same(single_file_utils.convert_ldm_unet_checkpoint(dict(made), pipeline.unet.config), pipeline.unet)
    same(single_file_utils.convert_ldm_vae_checkpoint(dict(made), pipeline.vae.config), pipeline.vae)
    if sd2:
        same(single_file_utils.convert_open_clip_checkpoint(pipeline.text_encoder, made), pipeline.text_encoder)
    elif pipeline.text_encoder is not None:
        converted = single_file_utils.convert_ldm_clip_checkpoint(made)
        positions = converted.pop("text_model.embeddings.position_ids")
        assert torch.equal(positions, torch.arange(77)[None])
        same(converted, pipeline.text_encoder)
    if second is not None:
        prefix = f"conditioner.embedders.{0 if refiner else 1}.model."
        same(single_file_utils.convert_open_clip_checkpoint(second, made, prefix), second)


def test_stable_diffusion_2s_file_has_a_layer_that_nothing_uses() -> None:
    encoder = small("sd2").text_encoder
    plain, more = (to_ldm(text_encoder=encoder, open_clip=True, extra_layer=extra) for extra in (False, True))
    assert {name.removeprefix("cond_stage_model.model.transformer.") for name in more.keys() - plain.keys()} == {
        f"resblocks.3.{part}"
        for part in (
            *("attn.in_proj_weight", "attn.in_proj_bias", "attn.out_proj.weight", "attn.out_proj.bias"),
            *("ln_1.weight", "ln_1.bias", "ln_2.weight", "ln_2.bias"),
            *("mlp.c_fc.weight", "mlp.c_fc.bias", "mlp.c_proj.weight", "mlp.c_proj.bias"),
        )
    }


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16", "F8_E4M3"])
def test_random_files_load_as_they_were_asked_for(dtype: str, tmp_path, monkeypatch) -> None:
    tiny = {"base": 32, "multiples": (1, 2), "depths": (1, 0), "middle": 1, "context": 64}
    monkeypatch.setitem(KINDS, "tiny", (tiny, [("cond_stage_model.transformer.", checkpoints._clip, (64, 2))]))
    path = tmp_path / "tiny.safetensors"
    write_random(path, "tiny", dtype, parts=("unet", "text"), ema=True)
    tensors = load_file(path)
    shadow, name = (
        "model_ema.diffusion_modelinput_blocks10in_layers2weight",
        f"{UNET}input_blocks.1.0.in_layers.2.weight",
    )
    assert tensors.keys() - published("tiny").keys() == {
        f"model_ema.diffusion_model{key.removeprefix(UNET).replace('.', '')}" for key in tensors if key.startswith(UNET)
    }
    assert {key: tuple(value.shape) for key, value in tensors.items() if "model_ema.diffusion" not in key} == {
        key: shape for key, (shape, _) in published("tiny").items() if not key.startswith(VAE)
    }
    assert tensors[name].dtype == tensors[shadow].dtype == checkpoints.DTYPES[dtype]
    text = tensors["cond_stage_model.transformer.text_model.encoder.layers.1.mlp.fc1.weight"]
    assert text.dtype == (torch.float16 if dtype == "F8_E4M3" else checkpoints.DTYPES[dtype])
    for weight in (text, tensors[name], tensors[shadow]):
        assert weight.float().std().item() == pytest.approx(0.02, rel=0.1)
    assert not torch.equal(tensors[name].float(), tensors[shadow].float())
    assert tensors[f"{UNET}out.0.weight"].float().mean().item() == pytest.approx(1, abs=0.05)

    alphas = diffusers.DDIMScheduler.from_config(checkpoints.BETAS).alphas_cumprod
    assert torch.allclose(tensors["alphas_cumprod"], alphas, atol=1e-5)
    assert tensors["cond_stage_model.transformer.text_model.embeddings.position_ids"].tolist() == [list(range(77))]


def test_a_vae_file_holds_the_vae_alone(tmp_path) -> None:
    path = tmp_path / "vae.safetensors"
    write_random(path, "sd15", parts=("vae",))
    tensors = load_file(path)
    assert len(tensors) == 248
    assert all(name.startswith(VAE) and value.isfinite().all() for name, value in tensors.items())
