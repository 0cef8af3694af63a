"""Anima in fp8 and as GGUF: networks of other libraries compute with weights that stay small too."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from weight_formats import as_scaled_fp8, save_gguf, save_small

from tests.anima_models import encoder_state, make_parts, save_apart, theirs
from webui.core.events import Done, Image
from webui.core.request import Request
from webui.core.settings import Settings
from webui.darkroom import Darkroom
from webui.engine.weights import keeps_small


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data, parts = tmp_path_factory.mktemp("anima"), make_parts()
    models = data / "models"
    save_apart(models, parts).unlink()
    folder, form = models / "diffusion_models", partial(as_scaled_fp8, by_row=True)
    whole = theirs(parts, "net.")
    save_file(_own(save_small(folder / "fp8.safetensors", whole, form, "net.")), folder / "fp8-twin.safetensors")
    blocks = save_gguf(folder / "Q8_0.gguf", theirs(parts, ""), "Q8_0", "cosmos")
    save_file(_own(blocks), folder / "Q8_0-twin.safetensors")
    pair = {"lora_up.weight": torch.randn(48, 2), "lora_down.weight": torch.randn(2, 48)}
    name = "lora_unet_blocks_0_self_attn_q_proj"
    (models / "Lora").mkdir()
    save_file({f"{name}.{part}": tensor for part, tensor in pair.items()}, models / "Lora/one.safetensors")
    encoder = encoder_state(parts, "model.")
    save_small(models / "text_encoders/qwen_3_tiny.safetensors", encoder, form, "model.")
    return data


def _own(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: tensor.contiguous().clone() for key, tensor in tensors.items()}


@pytest.fixture(scope="module")
def draw(data: Path) -> Callable[..., np.ndarray]:
    darkroom = Darkroom(Settings(device="cpu", dtype="float32", data_dir=data))

    def draw(model: str, prompt: str = "1girl", small: bool = True) -> np.ndarray:
        request = Request(model=model, prompt=prompt, width=64, height=64, steps=2, seed=3)
        events = list(darkroom.generate(request))
        assert isinstance(events[-1], Done)
        modules: Mapping[str, Any] = darkroom.manager._residence._kept.active.modules  # type: ignore[union-attr]
        assert keeps_small(modules["backbone"]) == small and keeps_small(modules["text_encoder"])
        assert not keeps_small(modules["vae"])
        (picture,) = [event.image for event in events if isinstance(event, Image)]
        return np.asarray(picture).astype(int)

    return draw


@pytest.mark.parametrize("model", ["fp8", "Q8_0"])
def test_its_pictures_are_those_of_the_dense_weights_with_loras_beside_them(
    draw: Callable[..., np.ndarray], model: str
) -> None:
    plain = draw(model)
    assert (plain == draw(f"{model}-twin", small=False)).all()
    prompt = "1girl <lora:one:1>"
    beside = draw(model, prompt)
    assert (beside != plain).any() and abs(beside - draw(f"{model}-twin", prompt, small=False)).max() <= 1
    assert (draw(model) == plain).all()
