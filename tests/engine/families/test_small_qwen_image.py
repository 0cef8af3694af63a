"""Qwen-Image in fp8 and as GGUF: its pictures are those of the dense weights."""

from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from weight_formats import as_scaled_fp8, save_gguf, save_small

from tests.qwen_image_models import encoder_state, make_parts, save_apart, transformer_state
from webui.core.events import Done, Image
from webui.core.request import Request
from webui.core.settings import Settings
from webui.darkroom import Darkroom
from webui.engine.weights import keeps_small


@pytest.fixture(scope="module")
def darkroom(tmp_path_factory: pytest.TempPathFactory) -> Darkroom:
    """Each format beside a file of the numbers that it stands for."""
    data, parts = tmp_path_factory.mktemp("qwen-image"), make_parts()
    models = data / "models"
    save_apart(models, parts).unlink()
    folder, own = models / "diffusion_models", transformer_state(parts, "")
    meant = {"fp8": save_small(folder / "fp8.safetensors", own, as_scaled_fp8, "")}
    meant["Q8_0"] = save_gguf(folder / "Q8_0.gguf", own, "Q8_0", "qwen_image")
    for name, tensors in meant.items():
        whole = {key: tensor.contiguous().clone() for key, tensor in tensors.items()}
        save_file(whole, folder / f"{name}-twin.safetensors")
    (models / "Lora").mkdir()
    pair = {"lora_up.weight": torch.randn(64, 2), "lora_down.weight": torch.randn(2, 64)}
    save_file(
        {f"lora_unet_transformer_blocks_0_attn_to_q.{name}": half for name, half in pair.items()},
        models / "Lora/one.safetensors",
    )
    save_small(models / "text_encoders/qwen_2.5_vl_tiny.safetensors", encoder_state(parts), as_scaled_fp8, "model.")
    return Darkroom(Settings(device="cpu", dtype="float32", data_dir=data))


def draw(darkroom: Darkroom, model: str, lora: str = "") -> np.ndarray:
    request = Request(model=model, prompt=f"a fox{lora}", width=64, height=64, steps=2, seed=3, guidance=4.0)
    events = list(darkroom.generate(request))
    assert isinstance(events[-1], Done)
    modules: Any = darkroom.manager._residence.kept.active.modules  # type: ignore[union-attr]
    assert keeps_small(modules["backbone"]) == ("twin" not in model) and keeps_small(modules["text_encoder"])
    (picture,) = [event.image for event in events if isinstance(event, Image)]
    return np.asarray(picture).astype(int)


@pytest.mark.parametrize("model", ["fp8", "Q8_0"])
def test_its_pictures_are_those_of_the_dense_weights_with_loras_beside_them(darkroom: Darkroom, model: str) -> None:
    plain, lora = draw(darkroom, model), "<lora:one:1>"
    assert (plain == draw(darkroom, f"{model}-twin")).all() and plain.std() > 5
    beside = draw(darkroom, model, lora)
    assert (beside != plain).any() and abs(beside - draw(darkroom, f"{model}-twin", lora)).max() <= 1
    assert (draw(darkroom, model) == plain).all()
