"""What a LoRA's file brings besides its weights."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from webui.core.checkpoint import Checkpoint
from webui.core.lora_files import (
    MAX_TEXT,
    bundled_embeddings,
    bundled_rows,
    check_family,
    find_adapter_config,
    made_for,
    noise_levels,
    short_text,
)
from webui.core.tensor_file import BadFile, Header


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"modelspec.architecture": "stable-diffusion-xl-v1-base/lora", "ss_base_model_version": "x"}, None),
        ({"modelspec.architecture": "  ", "ss_base_model_version": "sdxl_base_v1-0"}, "sdxl_base_v1-0"),
        ({"ss_base_model_version": "x" * 100}, "x" * 80),
        ({}, ""),
    ],
)
def test_the_architecture_that_the_metadata_names(metadata: dict[str, str], said: str | None) -> None:
    assert made_for(metadata) == (metadata["modelspec.architecture"] if said is None else said)


@pytest.mark.parametrize(
    ("said", "levels"),
    [("600,1000", (600, 1000)), ("600, 999", (600, 1000)), ("[0,400]", (0, 400)), ("300,700", (300, 700))]
    + [(said, None) for said in ("0,1000", "0,999", "", "all", "5", "1000,1000", "700,600", "1" * 400 + ",2", "-5,3")],
)
def test_the_noise_that_a_lora_was_trained_with(said: str, levels: tuple[int, int] | None) -> None:
    assert noise_levels({"modelspec.timestep_range": said}) == levels
    assert noise_levels({}) is None


def test_embeddings_in_the_file_stand_for_as_many_tokens_as_they_have_rows(tmp_path: Path) -> None:
    tensors = {
        "bundle_emb.zorb.string_to_param.*": np.zeros((3, 8), np.float32),
        "bundle_emb.xl.clip_l": np.zeros((2, 8), np.float32),
        "bundle_emb.xl.clip_g": np.zeros((2, 16), np.float32),
        "bundle_emb.one.emb_params": np.zeros(8, np.float32),
        "bundle_emb.zorb.string_to_token.*": np.zeros(1, np.float32),
        "lora_unet_x.alpha": np.zeros((), np.float32),
    }
    save_file(tensors, tmp_path / "x.safetensors")
    assert bundled_rows(tmp_path / "x.safetensors") == {"zorb": 3, "xl": 2, "one": 1}
    assert bundled_embeddings(tensors)["xl"] == {"clip_l": "bundle_emb.xl.clip_l", "clip_g": "bundle_emb.xl.clip_g"}
    (tmp_path / "bad.safetensors").write_bytes(b"x")
    with pytest.raises(BadFile):
        bundled_rows(tmp_path / "bad.safetensors")


@pytest.mark.parametrize(
    ("file", "beside", "is_its"),
    [
        ("x.safetensors", [], True),
        ("x.safetensors", ["y.safetensors"], False),
        ("adapter_model.safetensors", ["y.safetensors"], True),
    ],
)
def test_an_adapter_config_is_that_of_the_only_file_or_of_peft_s_own_name(
    tmp_path: Path, file: str, beside: list[str], is_its: bool
) -> None:
    for name in (file, *beside):
        (tmp_path / name).touch()
    assert find_adapter_config(tmp_path / file) is None
    config = tmp_path / "adapter_config.json"
    config.touch()
    assert find_adapter_config(tmp_path / file) == (config if is_its else None)


def test_a_text_is_cut_and_can_be_sent() -> None:
    assert short_text(" a\0b\ud800 ") == "ab?" and len(short_text("x" * 3 * MAX_TEXT)) == MAX_TEXT


ASKS_SDXL = {"lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k.lora_down.weight": (4, 2048)}
ASKS_SD = {"unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.lora_A.weight": (4, 768)}
ANIMA = {"diffusion_model.blocks.0.self_attn.q_proj.lora_A.weight": (4, 2048)}
FLUX = {"lora_unet_double_blocks_0_img_attn_proj.lora_down.weight": (4, 3072)}
WORDS = {"lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": (4, 768)}


@pytest.mark.parametrize(
    ("shapes", "family", "width", "reason"),
    [
        (ASKS_SD, "SD 1.x", 768, ""),
        (WORDS, "SDXL", 2048, ""),
        (ANIMA, "Anima", 1024, ""),
        ({}, "SD 1.x", 768, ""),
        (ASKS_SDXL, "SD 1.x", 768, "is made for SDXL, but this model is SD 1.x"),
        (ASKS_SD | WORDS, "SDXL", 2048, "is made for SD 1.x, but this model is SDXL"),
        (ASKS_SD, "SD 1.x", 192, "is made for SD 1.x, but this model is a model with texts 192 wide"),
        (ASKS_SD, "Anima", 768, "is made for SD 1.x, but this model is Anima"),
        (ANIMA, "SDXL", 2048, "is made for Anima or Cosmos, but this model is SDXL"),
        (FLUX, "SD 1.x", 768, "is made for FLUX.1, FLUX.2 Klein or FLUX.2 dev, but this model is SD 1.x"),
    ],
)
def test_a_lora_of_another_family_is_known_by_names_and_shapes(shapes, family, width, reason) -> None:
    model = Checkpoint(family, "ldm", ("backbone",), in_channels=4, context_width=width, native_px=512)
    assert check_family(Header({}, shapes), model) == reason
