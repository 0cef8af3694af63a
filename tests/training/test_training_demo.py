"""The model that the recipe exported and that the product ships."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from transformers import CLIPTokenizer

from training import edges, lora
from training.concepts import COLOURS
from training.evaluate import sample
from training.export import SIZE_LIMIT
from training.measures import PALETTE, border_colour, nearest_colour
from training.prompts import full_prompts
from webui.core.events import Image
from webui.core.request import Request
from webui.core.settings import Settings
from webui.darkroom import Darkroom

MODEL = Path(__file__).resolve().parents[2] / "webui" / "demo"
pytestmark = pytest.mark.skipif(not (MODEL / "model_index.json").exists(), reason="no exported model here")


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusionPipeline:
    loaded = StableDiffusionPipeline.from_pretrained(MODEL, dtype=torch.float32)
    loaded.set_progress_bar_config(disable=True)
    return loaded


def test_folder_is_small_and_complete():
    files = [file for file in MODEL.rglob("*") if file.is_file()]
    own = [file for file in files if file.relative_to(MODEL).parts[0] not in (edges.FOLDER, lora.FOLDER)]
    assert sum(file.stat().st_size for file in own) <= SIZE_LIMIT
    names = {str(file.relative_to(MODEL)) for file in files}
    assert {"README.md", "NOTICE", "preview.json", "tokenizer/vocab.json", "tokenizer/merges.txt"} <= names
    index = json.loads((MODEL / "model_index.json").read_text(encoding="utf-8"))
    assert index["safety_checker"] == index["feature_extractor"] == [None, None]
    assert index["requires_safety_checker"] is False


def test_configuration_names_no_local_folder():
    for file in MODEL.rglob("*.json"):
        assert '_name_or_path"' not in file.read_text(encoding="utf-8"), file


def test_parts_have_the_promised_shapes(pipeline):
    assert pipeline.vae_scale_factor == 8
    assert pipeline.vae.config.latent_channels == pipeline.unet.config.in_channels == 4
    assert pipeline.vae.config.scaling_factor == 0.18215
    assert pipeline.unet.config.sample_size == 16
    assert pipeline.scheduler.config.prediction_type == "v_prediction"
    assert pipeline.scheduler.config.timestep_spacing == "trailing"
    assert pipeline.text_encoder.config.vocab_size == len(pipeline.tokenizer)


def test_tokenizer_loads_alone():
    tokenizer = CLIPTokenizer.from_pretrained(MODEL / "tokenizer")
    tokens = tokenizer("pear 🍐 " * 60, padding="max_length", truncation=True).input_ids
    assert tokenizer.model_max_length == len(tokens) == 77


@torch.no_grad()
def test_preview_shows_plain_colours(pipeline):
    preview = json.loads((MODEL / "preview.json").read_text(encoding="utf-8"))
    weight, bias = torch.tensor(preview["weight"]), torch.tensor(preview["bias"])
    assert weight.shape == (3, 4) and bias.shape == (3,)
    for name in ("blue", "yellow", "white", "black"):
        colour = torch.tensor(COLOURS[name]) / 255
        picture = (colour * 2 - 1).view(1, 3, 1, 1).expand(1, 3, 128, 128)
        latents = pipeline.vae.encode(picture).latent_dist.mode() * pipeline.vae.config.scaling_factor
        shown = weight @ latents.mean((0, 2, 3)) + bias
        assert (shown - colour).abs().max() < 0.2, name


@pytest.mark.parametrize(("every", "may_fail"), [(21, 0), pytest.param(8, 1, marks=pytest.mark.slow)])
def test_backgrounds_follow_the_prompt(pipeline, every, may_fail):
    prompts = full_prompts()[3:67:every]
    found = torch.cdist(border_colour(sample(pipeline, prompts)), PALETTE).argmin(1).tolist()
    wrong = [prompt.text for prompt, colour in zip(prompts, found, strict=True) if colour != prompt.colour]
    assert len(wrong) <= may_fail, wrong


@pytest.mark.slow
def test_a_negative_prompt_keeps_a_background_away(draw_border):
    seeds = range(4)
    before = [draw_border("a cat, 3d style", seed=seed) for seed in seeds]
    after = [
        draw_border("a cat, 3d style", f"{name} background", seed) for seed, name in zip(seeds, before, strict=True)
    ]
    assert sum(one != other for one, other in zip(before, after, strict=True)) >= 3, (before, after)


@pytest.mark.parametrize(("one", "other"), [("blue", "yellow"), pytest.param("white", "green", marks=pytest.mark.slow)])
def test_of_two_backgrounds_the_one_with_more_weight_wins(draw_border, one, other):
    for weights, winner in (((1.4, 0.6), one), ((0.6, 1.4), other)):
        words = ", ".join(f"({name} background:{w})" for name, w in zip((one, other), weights, strict=True))
        assert draw_border(f"a cat, flat style, {words}") == winner


def test_the_texts_mean_is_far_from_zero(pipeline):
    """Emphasis divides by it."""
    tokens = pipeline.tokenizer(["a cat", ""], padding="max_length", return_tensors="pt").input_ids
    assert pipeline.text_encoder(tokens).last_hidden_state.mean((1, 2)).min() > 0.2


@pytest.fixture(scope="module")
def draw_border(tmp_path_factory):
    """``draw_border(prompt, negative, seed)``: the name of the colour behind the thing, drawn by the product."""
    settings = Settings(device="cpu", dtype="float32", data_dir=tmp_path_factory.mktemp("data"))
    darkroom = Darkroom(settings)

    def draw(prompt: str, negative: str = "", seed: int = 0) -> str:
        request = Request(prompt=prompt, negative=negative, seed=seed, guidance=5.0)
        (picture,) = (event.image for event in darkroom.generate(request) if isinstance(event, Image))
        pixels = torch.from_numpy(np.asarray(picture) / 255).float().permute(2, 0, 1)
        return list(COLOURS)[int(nearest_colour(border_colour(pixels[None])))]

    return draw
