"""SDXL in the formats that people keep it in: drawn with weights that stay small, and what LoRAs make of them."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import UNET, WORDS, small, to_ldm
from safetensors.torch import save_file
from weight_formats import as_fp8, as_int8, as_scaled_fp8, save_gguf, save_small

from webui.core.errors import RequestError
from webui.core.events import Done, Image
from webui.core.request import Request
from webui.core.settings import Settings
from webui.core.tensor_file import START_BYTES
from webui.core.verdict import changes
from webui.darkroom import Darkroom
from webui.engine.families.base import CannotLoad
from webui.engine.tokens import Tokenizer
from webui.engine.weights.layers import Pair, StoredConv2d, StoredLayer
from webui.engine.weights.stored import Stored
from webui.library.adding.incoming import Shelves

SCALED = {
    "fp8": as_fp8,
    "fp8-scaled": partial(as_scaled_fp8, by_row=True, spelling="scale_weight"),
    "int8": partial(as_int8, group=64),
}
BLOCKS = ("Q8_0", "Q4_K")
ROUNDING = {"fp8": 32, "fp8-scaled": 32, "int8": 6, "Q8_0": 6}
"""Levels by which a picture of these random weights may be off, by the format (measured: half of it)."""


@dataclass
class Made:
    """The folder of models, the dense weights, and those that each file stands for."""

    folder: Path
    dense: dict[str, torch.Tensor]
    tokenizer: Path


@pytest.fixture(scope="module")
def made(tmp_path_factory, random_lora):
    folder = tmp_path_factory.mktemp("data") / "models/Stable-diffusion"
    pipe = small("sdxl", directory=folder.parent / "pipe")
    dense = to_ldm(pipe.unet, pipe.vae, pipe.text_encoder, text_encoder_2=pipe.text_encoder_2)
    dense = {key: tensor.contiguous().clone() for key, tensor in dense.items()}
    folder.mkdir()
    save_file(dense, folder / "dense.safetensors")
    for name, form in SCALED.items():
        meant = save_small(folder / f"{name}.safetensors", dense, form)
        save_file(
            {key: tensor.contiguous().clone() for key, tensor in meant.items()}, folder / f"{name}-twin.safetensors"
        )
    alone = {key.removeprefix(UNET): tensor for key, tensor in dense.items() if key.startswith(UNET)}
    for kind in BLOCKS:
        meant = save_gguf(folder / f"{kind}.gguf", alone, kind)
        save_file(dense | {UNET + key: tensor for key, tensor in meant.items()}, folder / f"{kind}-twin.safetensors")
    loras = folder.parent / "Lora"
    loras.mkdir()
    parts = {"backbone": pipe.unet, "text_encoder": pipe.text_encoder}
    for name, (seed, form) in {
        "one": (1, "lora"),
        "two": (2, "lora"),
        "loha": (3, "loha"),
        "dora": (4, "dora"),
    }.items():
        save_file(random_lora(parts, seed, "attn|resnets|proj|fc", form=form), loras / f"{name}.safetensors")
    return Made(folder, dense, folder.parent / "pipe/tokenizer")


@pytest.fixture(scope="module")
def darkroom(made, device):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("webui.engine.families.clip.CLIP_WORDS", WORDS)
        patch.setattr(Tokenizer, "clip", lambda pad=None: Tokenizer.from_folder(made.tokenizer))
        yield Darkroom(Settings(device=device, dtype="float32", data_dir=made.folder.parents[1], model_cache="1GB"))


def draw(darkroom, model, **fields):
    quick = {"prompt": "a red apple", "width": 64, "height": 64, "steps": 2, "seed": 5, "sampler": "Euler"}
    events = list(darkroom.generate(Request(**(quick | {"model": model} | fields))))
    assert isinstance(events[-1], Done)
    (picture,) = [event.image for event in events if isinstance(event, Image)]
    return np.asarray(picture).astype(int), events


def changed(darkroom):
    """What LoRAs have put on the layers whose weights stay small."""
    unet = darkroom.manager._residence.model.network
    return [layer.changed for layer in unet.modules() if isinstance(layer, StoredLayer) and layer.changed is not None]


@pytest.mark.parametrize("name", [*SCALED, *BLOCKS])
def test_it_draws_the_bits_of_the_dense_weights_that_it_stands_for(darkroom, made, name):
    picture, _ = draw(darkroom, name)
    unet = darkroom.manager._residence.model.network
    layers = [layer for layer in unet.modules() if isinstance(layer, StoredLayer)]
    assert len(layers) > 100 and any(isinstance(layer, StoredConv2d) for layer in layers)
    held = sum(weight.nbytes for weight in unet.parameters())
    assert held < 0.45 * sum(weight.nbytes for key, weight in made.dense.items() if key.startswith(UNET))
    off = abs(picture - draw(darkroom, f"{name}-twin")[0]).max()
    assert off == 0 or (off == 1 and name == "int8"), "a rotation is undone in another order of sums there"
    if name in ROUNDING:
        off = abs(picture - draw(darkroom, "dense")[0]).max()
        assert 0 < off <= ROUNDING[name]


@pytest.mark.parametrize("name", ["Q8_0"])
def test_loras_ride_beside_small_weights_and_come_off_bit_for_bit(darkroom, name):
    plain, _ = draw(darkroom, name)
    prompt = "a red apple <lora:one:0.8> <lora:two:-0.5>"
    both, _ = draw(darkroom, name, prompt=prompt)
    pairs = changed(darkroom)
    assert len(pairs) > 50 and all(isinstance(pair, Pair) for pair in pairs)
    assert {len(pair.down) for pair in pairs} == {8}, "both ranks side by side"
    twin, _ = draw(darkroom, f"{name}-twin", prompt=prompt)
    assert abs(both - twin).max() <= 1 and (both != plain).any()
    assert (draw(darkroom, name)[0] == plain).all() and not changed(darkroom)


def test_what_is_no_product_makes_its_layers_dense_with_the_twins_bits(darkroom):
    prompt = "a red apple <lora:loha:0.7>"
    picture, _ = draw(darkroom, "fp8-scaled", prompt=prompt)
    dense = changed(darkroom)
    assert dense and all(isinstance(weight, torch.Tensor) for weight in dense)
    cache = darkroom.manager._residence.loras.cache
    assert cache.nbytes >= sum(weight.nbytes for weight in dense)
    assert (picture == draw(darkroom, "fp8-scaled-twin", prompt=prompt)[0]).all()


def test_weights_by_block_and_over_steps_hold_beside_small_weights(darkroom):
    prompt = "a red apple <lora:one:1:lbw=OUTALL> <lora:two:1@0;0@0.5>"
    picture, _ = draw(darkroom, "Q8_0", prompt=prompt)
    assert abs(picture - draw(darkroom, "Q8_0-twin", prompt=prompt)[0]).max() <= 1
    assert (picture != draw(darkroom, "Q8_0", prompt="a red apple <lora:one:1> <lora:two:1>")[0]).any()


def test_pairs_are_cached_and_counted_as_small_and_what_is_larger_than_the_budget_is_not_kept(made, device):
    own = Darkroom(Settings(device=device, dtype="float32", data_dir=made.folder.parents[1], lora_cache="8MB"))
    hows = [draw(own, "int8", prompt=f"x <lora:{name}:1>")[1][-1].loras.how for name in ("one", "two", "one")]
    assert hows == ["merged", "merged", "cached"]
    cache, network = own.manager._residence.loras.cache, own.manager._residence.model.network
    tensors = {id(tensor): tensor for merged in cache._sets.values() for tensor in merged.tensors.values()}
    assert cache.nbytes == sum(tensor.nbytes for tensor in tensors.values())
    beside = sum(pair.nbytes for pair in tensors.values() if isinstance(pair, Pair))
    assert (
        0
        < beside
        < 0.2 * sum(2 * 4 * weight.shape.numel() for weight in network.modules() if isinstance(weight, Stored))
    )
    draw(own, "int8", prompt="x <lora:loha:1>")
    assert cache.nbytes > 8 * 2**20, "used all the same"
    draw(own, "int8", prompt="x")
    assert cache.nbytes <= 8 * 2**20


def test_the_planner_counts_what_is_in_memory(darkroom):
    draw(darkroom, "Q4_K")
    model, kept = darkroom.manager._residence.model, darkroom.manager._residence.kept
    for part, key in kept.active.parts.items():
        assert kept._parts[key].nbytes == sum(weight.nbytes for weight in kept.active.modules[part].parameters())
    assert not any(isinstance(module, Stored) for module in model.vae.modules())


def test_a_gguf_file_says_what_it_is_and_borrows_what_it_lacks(darkroom):
    models = darkroom.library.snapshot(max_age_s=0).models
    found = models["Q8_0"].checkpoint
    assert (found.family, found.dtype, found.kind) == ("SDXL", "Q8_0", "SDXL, Q8_0")
    assert models["int8"].checkpoint.kind == "SDXL, INT8" and models["fp8"].checkpoint.kind == "SDXL, fp8"
    assert models["dense"].checkpoint.kind == "SDXL"
    events = draw(darkroom, "Q8_0")[1]
    assert sum("has no" in warning for warning in events[-1].warnings) == 3
    (recipe,) = [event.recipe for event in events if isinstance(event, Image)]
    assert recipe.environment["weights"] == "Q8_0" and recipe.environment["dtype"] == "float32"
    (dense,) = [event.recipe for event in draw(darkroom, "dense")[1] if isinstance(event, Image)]
    assert "weights" not in dense.environment
    assert "environment: weights dense, now Q8_0" in changes(dense, recipe)


def test_a_gguf_file_can_be_added(made, darkroom):
    shelves, data = Shelves(darkroom.settings), (made.folder / "Q8_0.gguf").read_bytes()
    needed = shelves.needed_bytes("x.gguf", data[:START_BYTES], len(data))
    place = shelves.find_place(shelves.check_name("x.gguf"), data[:needed], len(data))
    assert (place.kind, place.about, place.path.name) == ("model", "an SDXL model", "x.gguf")
    with pytest.raises(RequestError, match="x.gguf is not a GGUF file, whatever its name says: it is a web page"):
        shelves.needed_bytes("x.gguf", b"<!doctype html>" + bytes(300), 10**6)
    with pytest.raises(RequestError, match="x.gguf is cut short"):
        shelves.find_place("x.gguf", data[:1000], 1000)


def test_weights_that_stay_small_are_looked_through_for_damage(darkroom, made):
    key = f"{UNET}middle_block.1.proj_in.weight"
    tensors = {**made.dense, **as_scaled_fp8(key, made.dense[key])[0], f"{key}_scale": torch.tensor(float("nan"))}
    save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, made.folder / "nan.safetensors")
    with pytest.raises(CannotLoad, match=rf"nan.safetensors holds not-a-number values in its UNet \({key}\)"):
        draw(darkroom, "nan")
