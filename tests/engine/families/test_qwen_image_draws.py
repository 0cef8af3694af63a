"""A tiny Qwen-Image, drawn with as people draw: every layout of files, every task, beside diffusers' own pipelines."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as PilImages
from safetensors.torch import save_file

from tests.anima_models import write_published
from tests.engine.families.test_anima import stock_tokenizers
from tests.qwen_image_models import (
    STYLES,
    encoder_state,
    make_parts,
    pipeline,
    save_apart,
    save_folder,
    save_whole,
    transformer_state,
)
from webui.core.errors import RequestError
from webui.core.events import Done, Image, Step
from webui.core.groups.init import Init
from webui.core.request import Request
from webui.core.settings import Settings
from webui.darkroom import Darkroom

SIDE, STEPS, SEED, GUIDANCE = 64, 4, 21, 4.0
WORDS = {"prompt": "a red apple, flat style", "negative": "green"}
LAYOUTS = ("folder", "whole", "bare", "wrapped")
LEVELS = 1


@pytest.fixture(scope="module")
def stock() -> dict[str, Any]:
    return make_parts()


@pytest.fixture(scope="module")
def darkroom(stock: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Darkroom:
    """Every layout in one folder of models, and LoRAs in every style."""
    data = tmp_path_factory.mktemp("qwen-image")
    models = data / "models"
    save_folder(models / "Stable-diffusion/folder", stock)
    save_whole(models / "Stable-diffusion/whole.safetensors", stock)
    save_apart(models, stock).rename(models / "diffusion_models/bare.safetensors")
    save_file(transformer_state(stock, "model.diffusion_model."), models / "diffusion_models/wrapped.safetensors")
    _save_loras(models / "Lora", stock)
    return Darkroom(Settings(device="cpu", dtype="float32", data_dir=data))


def _save_loras(folder: Path, stock: dict[str, Any]) -> None:
    """The same changes in each style, and others for the text encoder."""
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(4)
    pairs = {
        path: [torch.randn(shape, generator=generator) * 0.1 for shape in ((sides[0], 2), (2, sides[1]))]
        for path, layer in stock["transformer"].named_modules()
        if isinstance(layer, torch.nn.Linear) and (sides := layer.weight.shape)
    }
    for style, name in STYLES.items():
        joined = style != "Lightning" and "." not in name("a.b")
        ends = (".lora_up.weight", ".lora_down.weight") if joined else (".lora_B.weight", ".lora_A.weight")
        state = {
            f"{name(path)}{end}": half for path, pair in pairs.items() for end, half in zip(ends, pair, strict=True)
        }
        save_file(state, folder / f"{style}.safetensors")
    words = {}
    for path, layer in stock["text_encoder"].model.language_model.named_modules():
        if isinstance(layer, torch.nn.Linear):
            key = f"lora_te_{path.replace('.', '_')}"
            words[f"{key}.lora_down.weight"] = torch.randn(2, layer.in_features, generator=generator) * 0.3
            words[f"{key}.lora_up.weight"] = torch.randn(layer.out_features, 2, generator=generator) * 0.3
    save_file(words, folder / "words.safetensors")


def draw(darkroom: Darkroom, **fields: Any) -> np.ndarray:
    """One picture's numbers."""
    quick = {"width": SIDE, "height": SIDE, "steps": STEPS, "seed": SEED, "model": "folder", "guidance": GUIDANCE}
    events = list(darkroom.generate(Request(**(quick | WORDS | fields))))
    assert isinstance(events[-1], Done)
    *_, picture = [event.image for event in events if isinstance(event, Image)]
    return np.asarray(picture).astype(int)


@pytest.fixture(scope="module")
def plain(darkroom: Darkroom) -> np.ndarray:
    return draw(darkroom)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return stock_tokenizers(tmp_path_factory.mktemp("tokenizers"))[0]


@pytest.fixture(autouse=True)
def _without_norms(monkeypatch: pytest.MonkeyPatch) -> None:
    """diffusers brings each token of a guided answer back to the length that it has without guidance; ComfyUI and we
    do not."""
    own = torch.norm

    def norm(tensor: torch.Tensor, p: Any = "fro", dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Any:
        is_theirs = p == "fro" and dim == -1
        return torch.ones_like(tensor[..., :1]) if is_theirs else own(tensor, p, dim, keepdim, dtype=dtype)

    monkeypatch.setattr(torch, "norm", norm)


def stock_picture(pipe: Any, **options: Any) -> np.ndarray:
    given = {"prompt": WORDS["prompt"], "negative_prompt": WORDS["negative"], "num_inference_steps": STEPS}
    given |= {"width": SIDE, "height": SIDE, "true_cfg_scale": GUIDANCE, "output_type": "np"}
    given |= {"generator": torch.Generator().manual_seed(SEED)}
    return np.asarray(pipe(**given | options).images[0] * 255).round().astype(int)


def photo() -> PilImages.Image:
    numbers = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return PilImages.fromarray(numbers).resize((SIDE, SIDE), PilImages.Resampling.BICUBIC)


def test_a_picture_from_words_is_diffusers(
    darkroom: Darkroom, stock: dict[str, Any], tokenizer: Any, plain: np.ndarray
) -> None:
    pipe = pipeline(stock, tokenizer)
    assert abs(plain - stock_picture(pipe)).max() <= LEVELS
    assert plain.std() > 5, "it is a picture"
    assert abs(plain - draw(darkroom, prompt="a blue pear")).max() > LEVELS
    off = draw(darkroom, guidance=1)
    assert abs(off - stock_picture(pipe, true_cfg_scale=1.0)).max() <= LEVELS < abs(off - plain).max()
    wide = draw(darkroom, width=96, steps=7)
    assert abs(wide - stock_picture(pipe, width=96, num_inference_steps=7)).max() <= LEVELS


@pytest.mark.parametrize("layout", LAYOUTS[1:])
def test_every_layout_gives_the_same_picture(darkroom: Darkroom, layout: str, plain: np.ndarray) -> None:
    assert (draw(darkroom, model=layout) == plain).all()


def test_pictures_and_masks_are_diffusers(
    darkroom: Darkroom, stock: dict[str, Any], tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """diffusers draws the picture's latents from what its autoencoder thinks likely; here they are the likeliest."""
    from diffusers.pipelines.qwenimage import pipeline_qwenimage_img2img, pipeline_qwenimage_inpaint

    for module in (pipeline_qwenimage_img2img, pipeline_qwenimage_inpaint):
        monkeypatch.setattr(module, "retrieve_latents", lambda encoded, generator: encoded.latent_dist.mode())
    whole = draw(darkroom, init=Init(image=photo(), strength=0.5))
    theirs = stock_picture(pipeline(stock, tokenizer, "QwenImageImg2ImgPipeline"), image=photo(), strength=0.5)
    assert abs(whole - theirs).max() <= LEVELS
    mask = PilImages.new("L", (SIDE, SIDE), 0)
    mask.paste(255, (16, 16, 48, 48))
    ours = draw(darkroom, init=Init(image=photo(), mask=mask, strength=0.75, mask_blur=0))
    pipe, inside = pipeline(stock, tokenizer, "QwenImageInpaintPipeline"), np.asarray(mask) == 255
    theirs = stock_picture(pipe, image=photo(), mask_image=mask, strength=0.75)
    assert abs(ours - theirs)[inside].max() <= LEVELS
    assert (ours[~inside] == np.asarray(photo()).astype(int)[~inside]).all()


def test_previews_and_other_samplers_draw(darkroom: Darkroom, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webui.engine.preview.BUDGET", 1e9)
    request = Request(width=SIDE, height=SIDE, steps=STEPS, seed=SEED, model="folder", **WORDS)
    steps = [event for event in darkroom.generate(request) if isinstance(event, Step)]
    assert all(step.preview for step in steps)
    assert draw(darkroom, width=72, height=88, steps=2).shape == (88, 72, 3), "sides of half patches"
    assert draw(darkroom, steps=1).std() > 5
    for sampler in ("DPM++ 2M", "UniPC", "Heun", "LCM"):
        assert draw(darkroom, sampler=sampler, steps=3).std() > 5
    with pytest.raises(RequestError, match="Euler a"):
        draw(darkroom, sampler="Euler a")


def test_loras_of_every_style_give_the_same_picture_and_come_off_again(darkroom: Darkroom, plain: np.ndarray) -> None:
    drawn = {style: draw(darkroom, loras=f"{style}:0.8") for style in STYLES}
    assert all((drawn[style] == drawn["diffusers"]).all() for style in STYLES)
    assert abs(drawn["diffusers"] - plain).max() > LEVELS
    assert abs(draw(darkroom, loras="words:1") - plain).max() > LEVELS
    assert (draw(darkroom) == plain).all()


def test_words_and_regions_change_it(darkroom: Darkroom, plain: np.ndarray) -> None:
    assert (draw(darkroom, prompt="[a red apple, flat style:a blue pear:1.0]") == plain).all()
    assert abs(draw(darkroom, prompt="[a red apple:a blue pear:0.5]") - plain).max() > LEVELS
    half = ({"box": (0.5, 0, 1, 1), "prompt": "a blue whale, swimming"},)
    assert (draw(darkroom, regions=half) != plain).any()


def test_what_is_missing_is_said_with_where_it_goes(stock: dict[str, Any], tmp_path: Path) -> None:
    models = tmp_path / "models"
    save_apart(models, stock)
    encoder = models / "text_encoders/qwen_2.5_vl_tiny.safetensors"
    encoder.unlink()
    darkroom = Darkroom(Settings(device="cpu", data_dir=tmp_path))
    wanted = (
        r"qwen-image-tiny.safetensors has no text encoder; it needs Qwen2.5-VL 7B .*scaled.safetensors\) in models/te"
    )
    with pytest.raises(RequestError, match=wanted):
        draw(darkroom, model="qwen-image-tiny")
    wide = {
        name: tuple(256 if side == 128 else side for side in own.shape) for name, own in encoder_state(stock).items()
    }
    write_published(encoder, wide, sparse=True)
    darkroom.library.reload()
    with pytest.raises(RequestError, match=f"{wanted}.*. There is qwen_2.5_vl_tiny is 256 wide, and 128 are needed"):
        draw(darkroom, model="qwen-image-tiny")
