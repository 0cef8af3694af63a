"""Anima in fp8 and as GGUF, its text encoder too: networks of other libraries compute with weights that stay small."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from weight_formats import as_fp8, as_scaled_fp8, save_gguf, save_small

from tests.anima_models import encoder_state, make_parts, save_apart, theirs
from webui.core.errors import RequestError
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
    words = models / "text_encoders"
    save_small(words / "qwen_3_tiny.safetensors", encoder, form, "model.")
    other = {key: tensor * 1.5 for key, tensor in encoder.items()}
    save_file(
        _own(save_small(words / "words-fp8.safetensors", other, as_fp8, "model.")), words / "twin-fp8.safetensors"
    )
    _write_gguf_encoder(words, other, "Q8_0")
    wide = encoder_state(make_parts(encoder_width=64), "model.")
    save_small(words / "wide-fp8.safetensors", wide, form, "model.")
    _write_gguf_encoder(words, wide, "Q8_0", "wide")
    lost = words / "lost.gguf"  # a format that is not read
    lost.write_bytes((words / "words-Q8_0.gguf").read_bytes().replace(b"qwen3", b"gemma"))
    save_file({"model.layers.0.mlp.up_proj.weight_scale_2": torch.ones(1), **_own(other)}, words / "nvfp4.safetensors")
    return data


def _write_gguf_encoder(folder: Path, state: Mapping[str, torch.Tensor], kind: str, name: str = "words") -> None:
    """As llama.cpp names it, with the dense weights that it stands for beside it."""
    table = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN3, 2)
    theirs = {table.get_name(key, try_suffixes=(".weight",)): key for key in state}
    tensors = {called: state[key] for called, key in theirs.items()}
    meant = save_gguf(folder / f"{name}-{kind}.gguf", tensors, kind, "qwen3", noted=False)
    twin = {theirs[called]: tensor for called, tensor in meant.items()}
    save_file(_own(twin), folder / f"twin-{name}-{kind}.safetensors")


def _own(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: tensor.contiguous().clone() for key, tensor in tensors.items()}


@pytest.fixture(scope="module")
def draw(data: Path, device: str) -> Callable[..., np.ndarray]:
    darkroom = Darkroom(Settings(device=device, dtype="float32", data_dir=data))

    def draw(model: str, prompt: str = "1girl", small: bool = True, words: str = "") -> np.ndarray:
        request = Request(model=model, prompt=prompt, width=64, height=64, steps=2, seed=3, text_encoder=words)
        events = list(darkroom.generate(request))
        assert isinstance(events[-1], Done)
        modules: Mapping[str, Any] = darkroom.manager._residence.kept.active.modules  # type: ignore[union-attr]
        assert keeps_small(modules["backbone"]) == small
        assert keeps_small(modules["text_encoder"]) == (not words.startswith("twin"))
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


@pytest.mark.parametrize("words", ["fp8", "words-Q8_0"])
def test_a_small_text_encoder_says_what_the_dense_weights_say(draw: Callable[..., np.ndarray], words: str) -> None:
    own = words if words.startswith("words") else f"words-{words}"
    picture = draw("fp8", words=own)
    assert (picture == draw("fp8", words=f"twin-{words}")).all() and (picture != draw("fp8")).any()


@pytest.mark.parametrize("model", ["fp8", "Q8_0"])
def test_what_cannot_read_its_words_is_refused_with_why(draw: Callable[..., np.ndarray], model: str) -> None:
    reasons = {
        "wide-fp8": f"is Qwen3, 64 wide; {model} reads words with Qwen3, 32 wide; those that fit are",
        "wide-Q8_0": f"is Qwen3, 64 wide; {model} reads words with Qwen3, 32 wide; those that fit are",
        "lost": "lost.gguf is a language model of the architecture 'gemma'",
        "nvfp4": "nvfp4.safetensors is quantized as nvfp4",
    }
    for name, reason in reasons.items():
        with pytest.raises(RequestError, match=reason) as refused:
            draw(model, words=name)
        assert refused.value.field == "text_encoder"
