"""Stable Diffusion folders: what they hold is used, what is broken is named."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from webui.core.errors import RequestError
from webui.core.events import Done, Image, Loading
from webui.core.request import Request
from webui.core.settings import Settings
from webui.darkroom import Darkroom
from webui.engine.families.base import CannotLoad
from webui.library.library import Library, find_models

SMALL = {"width": 64, "height": 64, "steps": 2, "seed": 3}
PROMPT = "a red apple, flat style, on a blue background"


@pytest.fixture
def checkpoints(settings) -> Path:
    return settings.data_dir / "models/Stable-diffusion"


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def write_page(path: Path) -> None:
    path.write_text("<html>404 not found</html>")


def reshape_a_layer(path: Path) -> None:
    tensors = load_file(path)
    tensors[next(iter(tensors))] = torch.zeros(3)
    save_file(tensors, path, {"format": "pt"})


def lose_a_layer(path: Path) -> None:
    tensors = load_file(path)
    del tensors[next(name for name in tensors if name.endswith("weight"))]
    save_file(tensors, path, {"format": "pt"})


BROKEN = {
    "UNet cut short": ("unet/diffusion_pytorch_model.safetensors", truncate),
    "UNet missing": ("unet/diffusion_pytorch_model.safetensors", Path.unlink),
    "UNet is a web page": ("unet/diffusion_pytorch_model.safetensors", write_page),
    "UNet of another shape": ("unet/diffusion_pytorch_model.safetensors", reshape_a_layer),
    "UNet without a layer": ("unet/diffusion_pytorch_model.safetensors", lose_a_layer),
    "autoencoder without a layer": ("vae/diffusion_pytorch_model.safetensors", lose_a_layer),
    "text encoder without a layer": ("text_encoder/model.safetensors", lose_a_layer),
    "text encoder of another shape": ("text_encoder/model.safetensors", reshape_a_layer),
    "UNet settings make no sense": ("unet/config.json", lambda path: path.write_text('{"sample_size": 16}')),
    "autoencoder cut short": ("vae/diffusion_pytorch_model.safetensors", truncate),
    "autoencoder empty": ("vae/diffusion_pytorch_model.safetensors", lambda path: path.write_bytes(b"")),
    "text encoder cut short": ("text_encoder/model.safetensors", truncate),
    "text encoder missing": ("text_encoder/model.safetensors", Path.unlink),
    "text encoder is a web page": ("text_encoder/model.safetensors", write_page),
    "text encoder settings missing": ("text_encoder/config.json", Path.unlink),
    "tokenizer missing": ("tokenizer", shutil.rmtree),
    "scheduler missing": ("scheduler/scheduler_config.json", Path.unlink),
    "scheduler cut short": ("scheduler/scheduler_config.json", lambda path: path.write_text('{"beta_start": 0.0')),
    "scheduler is a list": ("scheduler/scheduler_config.json", lambda path: path.write_text("[]")),
    "preview map cut short": ("preview.json", lambda path: path.write_text('{"weight": [[1')),
    "preview map of another shape": ("preview.json", lambda path: path.write_text('{"weight": [[1]], "bias": [0]}')),
    "index is a list": ("model_index.json", lambda path: path.write_text("[]")),
}


@pytest.mark.parametrize("damage", BROKEN)
def test_a_broken_folder_is_named_with_a_reason_and_the_model_before_stays(
    settings, checkpoints, clone_demo, darkroom, monkeypatch, damage
):
    list(darkroom.load("demo"))
    path, break_it = BROKEN[damage]
    folder = clone_demo(checkpoints / "broken", own=(path.split("/")[0],))
    break_it(folder / path)
    monkeypatch.setattr(darkroom, "library", Library(settings))
    with pytest.raises((CannotLoad, RequestError)) as caught:
        list(darkroom.generate(Request(model="broken", **SMALL)))
    message = str(caught.value)
    assert message.startswith("model 'broken'") and "\n" not in message
    assert len(message.removeprefix("model 'broken' cannot be loaded: ")) > 3
    assert darkroom.manager.model_name == "demo"
    assert isinstance(list(darkroom.generate(Request(**SMALL)))[-1], Done)


def test_a_pickle_is_never_loaded_not_even_where_the_safetensors_are_broken(
    settings, checkpoints, clone_demo, tmp_path, darkroom, monkeypatch
):
    canary = tmp_path / "canary"

    class Evil:
        def __reduce__(self):
            return (canary.touch, ())

    for part, good, evil in (
        ("unet", "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin"),
        ("vae", "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin"),
        ("text_encoder", "model.safetensors", "pytorch_model.bin"),
    ):
        folder = clone_demo(checkpoints / f"evil-{part}", own=(part,))
        torch.save(Evil(), folder / part / evil)
        truncate(folder / part / good)
        monkeypatch.setattr(darkroom, "library", Library(settings))
        with pytest.raises((CannotLoad, RequestError), match=f"evil-{part}"):
            list(darkroom.generate(Request(model=f"evil-{part}", **SMALL)))
        (folder / part / good).unlink()
        with pytest.raises((CannotLoad, RequestError), match=f"evil-{part}"):
            list(darkroom.generate(Request(model=f"evil-{part}", **SMALL)))
    assert not canary.exists()


def test_a_folder_that_shares_its_parts_by_links_draws_the_same_and_is_told_apart_by_content(
    settings, checkpoints, clone_demo, darkroom, monkeypatch
):
    clone_demo(checkpoints / "twin")
    monkeypatch.setattr(darkroom, "library", Library(settings))
    twin = list(darkroom.generate(Request(model="twin", **SMALL)))
    demo = list(darkroom.generate(Request(model="demo", **SMALL)))
    assert any(isinstance(event, Loading) for event in twin)
    (one,), (other,) = ([event for event in events if isinstance(event, Image)] for events in (twin, demo))
    assert one.pixels_sha256 == other.pixels_sha256
    assert (one.recipe.request.model, other.recipe.request.model) == ("twin", "demo")
    assert one.recipe.model_hash == other.recipe.model_hash != ""


def test_the_size_left_out_is_the_model_s_own(darkroom, settings):
    native_px = find_models(settings)["demo"].native_px
    events = list(darkroom.generate(Request(steps=1, seed=1)))
    (picture,) = [event for event in events if isinstance(event, Image)]
    assert picture.image.size == (native_px, native_px)
    assert (picture.recipe.request.width, picture.recipe.request.height) == (native_px, native_px)


def test_every_text_layer_can_be_the_last_and_each_reads_differently(model):
    layers = model.components["text_encoder"].depth
    with torch.inference_mode():
        contexts = [model.encode_prompt(PROMPT, skip, {})["context"] for skip in range(1, layers + 1)]
    assert all(context.shape == contexts[0].shape for context in contexts)
    assert all(not torch.allclose(one, other) for one, other in zip(contexts, contexts[1:], strict=False))


def test_skipping_more_text_layers_than_there_are_is_refused_with_their_number(model):
    layers = model.components["text_encoder"].depth
    with pytest.raises(RequestError, match=f"clip_skip {layers + 1} is more than this model's {layers} text layers"):
        model.encode_prompt(PROMPT, layers + 1, {})


def test_a_prompt_of_any_length_is_read_in_chunks(model):
    length = model.parts.tokenizers["text_encoder"].length
    with torch.inference_mode():
        sides = [model.encode_prompt("a " * count, 1, {})["context"].shape[1] for count in (75, 76, 151)]
    assert sides == [length, 2 * length, 3 * length]


@pytest.mark.parametrize("text", ["", " ", "赤いリンゴ 🍎", "\0", "<|endoftext|>", "a" * 4000, "(" * 8000])
def test_any_text_can_be_encoded(model, text):
    with torch.inference_mode():
        context = model.encode_prompt(text, 1, {})["context"]
    assert len(context) == 1 and context.shape[1] % model.parts.tokenizers["text_encoder"].length == 0
    assert torch.isfinite(context).all()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_other_number_formats_draw_almost_the_same(tmp_path, draw, dtype):
    import numpy as np

    darkroom = Darkroom(Settings(device="cpu", dtype=dtype, data_dir=tmp_path))
    fields = {"prompt": PROMPT, "steps": 4, "seed": 3, "sampler": "DDIM"}
    events = list(darkroom.generate(Request(width=64, height=64, **fields)))
    (picture,) = [event.image for event in events if isinstance(event, Image)]
    (exact,) = draw(**fields)
    assert abs(np.asarray(picture).astype(int) - exact).mean() < 16
    assert darkroom.manager._residence.model.network.dtype == getattr(torch, dtype)


def test_an_autoencoder_that_overflows_float16_stays_in_float32(tmp_path, settings, checkpoints, clone_demo):
    for name, force_upcast in (("fragile", True), ("sturdy", False)):
        folder = clone_demo(checkpoints / name, own=("vae",))
        config = json.loads((folder / "vae/config.json").read_text("utf-8"))
        (folder / "vae/config.json").write_text(json.dumps(config | {"force_upcast": force_upcast}))
    darkroom = Darkroom(settings.model_copy(update={"dtype": "float16"}))
    for name, expected in (("fragile", torch.float32), ("sturdy", torch.float16)):
        for _ in darkroom.load(name):
            pass
        assert darkroom.manager._residence.model.vae.dtype == expected
