"""A tiny Krea 2, drawn with as people draw: every layout of files, every task, beside diffusers' own pipeline."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as PilImages
from safetensors.torch import save_file

from tests.engine.families.test_anima import stock_tokenizers
from tests.krea2_models import STYLES, encoder_state, make_parts, pipeline, save_apart, save_folder, save_whole, theirs
from webui.core.errors import RequestError
from webui.core.events import Done, Image, Step
from webui.core.groups.hires import Hires
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
def data(stock: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every layout in one folder of models, and LoRAs in every style."""
    data = tmp_path_factory.mktemp("krea2")
    models = data / "models"
    save_folder(models / "Stable-diffusion/folder", stock)
    save_folder(models / "Stable-diffusion/turbo", stock, distilled=True)
    save_whole(models / "Stable-diffusion/whole.safetensors", stock)
    save_apart(models, stock).rename(models / "diffusion_models/bare.safetensors")
    save_file(theirs(stock, "model.diffusion_model."), models / "diffusion_models/wrapped.safetensors")
    _save_loras(models / "Lora", stock)
    return data


def _save_loras(folder: Path, stock: dict[str, Any]) -> None:
    """The same changes in each style; further ones for the text encoder, and queries, keys and values in one."""
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(4)
    pairs = {
        path: [torch.randn(shape, generator=generator) * 0.2 for shape in ((sides[0], 2), (2, sides[1]))]
        for path, layer in stock["transformer"].named_modules()
        if isinstance(layer, torch.nn.Linear) and (sides := layer.weight.shape)
    }
    for style, name in STYLES.items():
        joined = "_" in name("a.b") and "." not in name("a.b")
        ends = (".lora_up.weight", ".lora_down.weight") if joined else (".lora_B.weight", ".lora_A.weight")
        state = {
            f"{name(path)}{end}": half for path, pair in pairs.items() for end, half in zip(ends, pair, strict=True)
        }
        save_file(state, folder / f"{style}.safetensors")
    words = {}
    for path, layer in stock["text_encoder"].language_model.named_modules():
        if isinstance(layer, torch.nn.Linear):
            key = f"lora_te_{path.replace('.', '_')}"
            words[f"{key}.lora_down.weight"] = torch.randn(2, layer.in_features, generator=generator) * 0.3
            words[f"{key}.lora_up.weight"] = torch.randn(layer.out_features, 2, generator=generator) * 0.3
    save_file(words, folder / "words.safetensors")


@pytest.fixture(scope="module")
def darkroom(data: Path) -> Darkroom:
    return Darkroom(Settings(device="cpu", dtype="float32", data_dir=data))


def draw(darkroom: Darkroom, **fields: Any) -> np.ndarray:
    """One picture's numbers."""
    quick = {"width": SIDE, "height": SIDE, "steps": STEPS, "seed": SEED, "model": "folder", "guidance": GUIDANCE}
    quick |= {"form": "Raw"} if fields.get("model") in LAYOUTS[1:] else {}
    events = list(darkroom.generate(Request(**(quick | WORDS | fields))))
    assert isinstance(events[-1], Done)
    *_, picture = [event.image for event in events if isinstance(event, Image)]
    return np.asarray(picture).astype(int)


@pytest.fixture(scope="module")
def plain(darkroom: Darkroom) -> np.ndarray:
    return draw(darkroom)


@pytest.fixture(scope="module")
def pipe(stock: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    tokenizer, _ = stock_tokenizers(tmp_path_factory.mktemp("tokenizers"))
    return pipeline(stock, tokenizer=tokenizer)


def stock_picture(pipe: Any, **options: Any) -> np.ndarray:
    """diffusers counts guidance from 0."""
    noise = torch.randn(1, 16, SIDE // 8, SIDE // 8, generator=torch.Generator().manual_seed(SEED))
    given = {"prompt": WORDS["prompt"], "negative_prompt": WORDS["negative"], "num_inference_steps": STEPS}
    given |= {"latents": pipe._pack_latents(noise, 1, 16, SIDE // 8, SIDE // 8), "output_type": "np"}
    given |= {"width": SIDE, "height": SIDE, "guidance_scale": GUIDANCE - 1}
    return np.asarray(pipe(**given | options).images[0] * 255).round().astype(int)


def photo() -> PilImages.Image:
    numbers = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return PilImages.fromarray(numbers).resize((SIDE, SIDE), PilImages.Resampling.BICUBIC)


def test_a_picture_from_words_is_diffusers(darkroom: Darkroom, pipe: Any, plain: np.ndarray) -> None:
    assert abs(plain - stock_picture(pipe)).max() <= LEVELS
    assert plain.std() > 5, "it is a picture"
    assert abs(plain - draw(darkroom, prompt="a blue pear")).max() > LEVELS
    off = draw(darkroom, guidance=1)
    assert abs(off - stock_picture(pipe, guidance_scale=0.0)).max() <= LEVELS
    assert abs(off - plain).max() > LEVELS


def test_turbo_is_told_by_its_folder_and_asked_for_where_a_file_does_not_tell(
    darkroom: Darkroom, stock: dict[str, Any], pipe: Any, plain: np.ndarray
) -> None:
    turbo = draw(darkroom, model="turbo", guidance=1)
    pipe = pipeline(stock, distilled=True, tokenizer=pipe.tokenizer)
    assert abs(turbo - stock_picture(pipe, guidance_scale=0.0)).max() <= LEVELS
    assert (draw(darkroom, model="bare", form="auto", guidance=1) == turbo).all(), "a file that says nothing is Turbo"
    assert (draw(darkroom, model="folder", form="Turbo", guidance=1) == turbo).all()
    assert (draw(darkroom, model="turbo", form="Raw") == plain).all()
    found = {name: file.checkpoint for name, file in darkroom.library.snapshot().models.items() if name != "demo"}
    found = {name: (own.form, own.formed.defaults.steps) for name, own in found.items() if own and own.formed}
    assert found == {"folder": ("Raw", 28), "turbo": ("Turbo", 8)} | dict.fromkeys(LAYOUTS[1:], ("", 8))


@pytest.mark.parametrize("layout", LAYOUTS[1:])
def test_every_layout_gives_the_same_picture(darkroom: Darkroom, layout: str, plain: np.ndarray) -> None:
    assert (draw(darkroom, model=layout) == plain).all()


@torch.no_grad()
def test_pictures_and_masks_are_a_loop_by_hand_over_diffusers_parts(
    darkroom: Darkroom, pipe: Any, stock: dict[str, Any]
) -> None:
    """diffusers draws Krea 2 from words alone."""
    mask = PilImages.new("L", (SIDE, SIDE), 0)
    mask.paste(255, (16, 16, 48, 48))
    inside = np.asarray(mask) == 255
    ours = draw(darkroom, init=Init(image=photo(), mask=mask, strength=0.75, mask_blur=0))
    free = torch.from_numpy(inside[::8, ::8].astype(np.float32))
    by_hand = _by_hand(pipe, stock, 1, free)
    assert abs(ours - by_hand)[inside].max() <= LEVELS
    assert (ours[~inside] == np.asarray(photo()).astype(int)[~inside]).all()
    whole = draw(darkroom, init=Init(image=photo(), strength=0.5))
    assert abs(whole - _by_hand(pipe, stock, 2, torch.ones(8, 8))).max() <= LEVELS


def _by_hand(pipe: Any, stock: dict[str, Any], first: int, free: torch.Tensor) -> np.ndarray:
    """From the photo, from step ``first`` on; what is not ``free`` stays."""
    told = [pipe.get_text_hidden_states(text, device=torch.device("cpu")) for text in WORDS.values()]
    config = stock["vae"].config
    mean, std = (torch.tensor(row).view(1, 16, 1, 1, 1) for row in (config.latents_mean, config.latents_std))
    pixels = torch.from_numpy(np.asarray(photo()).copy()).permute(2, 0, 1)[None, :, None].float() / 127.5 - 1
    clean = ((stock["vae"].encode(pixels).latent_dist.mode() - mean) / std)[:, :, 0]
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(SEED))
    mu = 0.5 + (1.15 - 0.5) * (16 - 256) / (6400 - 256)
    pipe.scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / STEPS, STEPS), mu=mu)
    levels = pipe.scheduler.sigmas
    latents = levels[first] * noise + (1 - levels[first]) * clean
    for index in range(first, STEPS):
        said, unsaid = (
            stock["transformer"](
                hidden_states=pipe._pack_latents(latents, 1, 16, 8, 8),
                timestep=levels[index : index + 1],
                encoder_hidden_states=states,
                encoder_attention_mask=room,
                position_ids=pipe.prepare_position_ids(states.shape[1], 4, 4, torch.device("cpu")),
                return_dict=False,
            )[0]
            for states, room in told
        )
        flow = pipe._unpack_latents(unsaid + GUIDANCE * (said - unsaid), SIDE, SIDE)[:, :, 0]
        latents = latents + (levels[index + 1] - levels[index]) * flow
        kept = levels[index + 1] * noise + (1 - levels[index + 1]) * clean
        latents = free * latents + (1 - free) * kept
    decoded = stock["vae"].decode(latents[:, :, None] * std + mean, return_dict=False)[0][0, :, 0].permute(1, 2, 0)
    return np.asarray(((decoded / 2 + 0.5).clamp(0, 1) * 255).round()).astype(int)


def test_previews_hires_and_other_samplers_draw(darkroom: Darkroom, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webui.engine.preview.BUDGET", 1e9)
    request = Request(width=SIDE, height=SIDE, steps=STEPS, seed=SEED, model="folder", **WORDS)
    steps = [event for event in darkroom.generate(request) if isinstance(event, Step)]
    assert all(step.preview for step in steps)
    assert draw(darkroom, width=72, height=88, steps=2).shape == (88, 72, 3), "sides of half patches"
    assert draw(darkroom, hires=Hires(scale=2.0, steps=2)).shape == (2 * SIDE, 2 * SIDE, 3)
    assert draw(darkroom, sampler="DPM++ 2M", steps=2).std() > 5
    with pytest.raises(RequestError, match="Euler a"):
        draw(darkroom, sampler="Euler a")


def test_loras_of_every_style_give_the_same_picture_and_come_off_again(darkroom: Darkroom, plain: np.ndarray) -> None:
    drawn = {style: draw(darkroom, loras=f"{style}:0.8") for style in STYLES}
    assert all((drawn[style] == drawn["diffusers"]).all() for style in STYLES)
    assert abs(drawn["diffusers"] - plain).max() > LEVELS
    assert abs(draw(darkroom, loras="words:1") - plain).max() > LEVELS
    assert (draw(darkroom) == plain).all()


def test_a_vae_of_another_family_is_refused_by_name_before_it_is_queued(darkroom: Darkroom, data: Path) -> None:
    other = {"bn.running_mean": torch.zeros(128), "decoder.conv_in.weight": torch.zeros(8, 32, 3, 3)}
    save_file(other, data / "models/VAE/other.safetensors")
    darkroom.library.reload()
    with pytest.raises(RequestError, match="vae: 'other' is FLUX.2's .*, which Krea 2, as 'folder' is, cannot use"):
        draw(darkroom, vae="other")
    with pytest.raises(RequestError, match="vae: 'qwen_image_tiny' is Qwen-Image's VAE, which SD 1.x, as 'demo' is"):
        draw(darkroom, model="demo", vae="qwen_image_tiny")


def test_words_and_loras_change_on_the_way(darkroom: Darkroom, plain: np.ndarray) -> None:
    assert (draw(darkroom, prompt="[a red apple, flat style:a blue pear:1.0]") == plain).all()
    assert abs(draw(darkroom, prompt="[a red apple:a blue pear:0.5]") - plain).max() > LEVELS
    early = draw(darkroom, prompt=f"{WORDS['prompt']} [<lora:kohya:1>::0.5]")
    assert (early == draw(darkroom, loras="kohya:1@0;1@0.5;0@0.5")).all(), "for the first steps only"
    assert abs(early - plain).max() > LEVELS and abs(early - draw(darkroom, loras="kohya:1")).max() > LEVELS


def test_what_is_missing_is_said_with_where_it_goes(stock: dict[str, Any], tmp_path: Path) -> None:
    models = tmp_path / "models"
    save_apart(models, stock)
    encoder = models / "text_encoders/qwen3vl_tiny.safetensors"
    encoder.unlink()
    darkroom = Darkroom(Settings(device="cpu", data_dir=tmp_path))
    wanted = r"krea2-tiny.safetensors has no text encoder; it needs Qwen3-VL 4B .*bf16.safetensors\) in models/text_enc"
    with pytest.raises(RequestError, match=wanted):
        draw(darkroom, model="krea2-tiny")
    save_file(encoder_state(make_parts(width=48), "model."), encoder)
    darkroom.library.reload()
    with pytest.raises(RequestError, match=f"{wanted}.*. There is qwen3vl_tiny is 48 wide, and 32 are needed"):
        draw(darkroom, model="krea2-tiny")
    save_file(encoder_state(make_parts(layers=4), "model."), encoder)
    darkroom.library.reload()
    with pytest.raises(RequestError, match="the text encoder has 4 layers, and the transformer asks"):
        draw(darkroom, model="krea2-tiny")


@pytest.mark.slow
def test_the_command_line_draws_grids_and_verifies(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from webui.cli import main

    monkeypatch.setenv("WEBUI_DEVICE", "cpu")
    where = ["--data-dir", str(data), "--dtype", "float32", "--model", "bare"]
    asked = ["--width", "64", "--height", "64", "--steps", "2", "--seed", "5"]
    asked += ["--prompt", "a (red) [apple:pear:0.5]"]
    assert main(["generate", *where, *asked, "--lora", "kohya:0.8"]) == 0
    (drawn,) = data.rglob("outputs/txt2img/*/*.png")
    assert main(["verify", *where[:4], str(drawn)]) == 0
    said = capsys.readouterr()
    assert "identical" in said.out
    assert main(["grid", *where, *asked, "--x", "guidance=1,4", "--y", "sampler=Euler,UniPC"]) == 0
    sheets = [path for path in data.rglob("outputs/**/*.png") if path != drawn]
    assert any(PilImages.open(path).width > 2 * SIDE for path in sheets)
    assert main(["generate", *where, *asked, "--clip-skip", "2"]) != 0
    assert "clip_skip: Krea 2, as 'bare' is, has no clip skip" in capsys.readouterr().err


def test_prompts_by_area_are_drawn_and_one_over_everything_is_the_plain_prompt(darkroom: Darkroom) -> None:
    plain, other = draw(darkroom), {"box": (0.5, 0, 1, 1), "prompt": "a blue whale, swimming"}
    everywhere = draw(darkroom, prompt="a blue whale", regions=({"box": (0, 0, 1, 1), "prompt": WORDS["prompt"]},))
    assert (everywhere == plain).all()
    assert (draw(darkroom, regions=(other,)) != plain).any()
