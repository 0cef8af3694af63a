"""A tiny Anima, drawn with as people draw: every layout of files, every task, beside diffusers' own blocks."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as PilImages
from safetensors.torch import save_file

from tests.anima_models import STYLES, encoder_state, make_parts, save_apart, save_folder, save_whole, theirs
from tests.engine.families.test_anima import stock_tokenizers
from webui.core.errors import RequestError
from webui.core.events import Done, Image, Step
from webui.core.groups.hires import Hires
from webui.core.groups.init import Init
from webui.core.recipe import read_picture
from webui.core.request import Request
from webui.core.settings import Settings
from webui.darkroom import Darkroom

SIDE, STEPS, SEED = 64, 4, 21
WORDS = {"prompt": "a red apple, flat style", "negative": "green"}
LAYOUTS = ("folder", "whole", "net", "bare", "wrapped")
LEVELS = 1


@pytest.fixture(scope="module")
def stock() -> dict[str, Any]:
    return make_parts()


@pytest.fixture(scope="module")
def data(stock: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every layout in one folder of models."""
    data = tmp_path_factory.mktemp("anima")
    models = data / "models"
    save_folder(models / "Stable-diffusion/folder", stock)
    save_whole(models / "Stable-diffusion/whole.safetensors", stock)
    save_apart(models, stock, "net.").rename(models / "diffusion_models/net.safetensors")
    save_file(theirs(stock, ""), models / "diffusion_models/bare.safetensors")
    save_file(theirs(stock, "model.diffusion_model."), models / "diffusion_models/wrapped.safetensors")
    other = {name: tensor * 2 for name, tensor in encoder_state(stock, "model.").items()}
    save_file(other, models / "text_encoders/zz.safetensors")
    return data


@pytest.fixture(scope="module")
def darkroom(data: Path) -> Darkroom:
    return Darkroom(Settings(device="cpu", dtype="float32", data_dir=data))


def draw(darkroom: Darkroom, **fields: Any) -> np.ndarray:
    """One picture's numbers."""
    quick = {"width": SIDE, "height": SIDE, "steps": STEPS, "seed": SEED, "model": "folder", **WORDS}
    events = list(darkroom.generate(Request(**(quick | fields))))
    assert isinstance(events[-1], Done)
    *_, picture = [event.image for event in events if isinstance(event, Image)]
    return np.asarray(picture).astype(int)


@pytest.fixture(scope="module")
def pipe(stock: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """diffusers' blocks with our defaults."""
    from diffusers import AnimaAutoBlocks, ClassifierFreeGuidance, FlowMatchEulerDiscreteScheduler

    made = AnimaAutoBlocks().init_pipeline()
    qwen, t5 = stock_tokenizers(tmp_path_factory.mktemp("tokenizers"))
    scheduler, guider = FlowMatchEulerDiscreteScheduler(shift=3.0), ClassifierFreeGuidance(guidance_scale=4.0)
    made.update_components(**stock, tokenizer=qwen, t5_tokenizer=t5, scheduler=scheduler, guider=guider)
    return made


def stock_picture(pipe: Any, **options: Any) -> np.ndarray:
    given = {"prompt": WORDS["prompt"], "negative_prompt": WORDS["negative"], "num_inference_steps": STEPS}
    given |= {"generator": torch.Generator().manual_seed(SEED), "output_type": "np", "width": SIDE, "height": SIDE}
    return np.asarray(pipe(**given, **options, output="images")[0] * 255).round().astype(int)


def photo() -> PilImages.Image:
    numbers = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return PilImages.fromarray(numbers).resize((SIDE, SIDE), PilImages.Resampling.BICUBIC)


def test_a_picture_from_words_is_diffusers(darkroom: Darkroom, pipe: Any) -> None:
    ours = draw(darkroom)
    assert abs(ours - stock_picture(pipe)).max() <= LEVELS
    assert ours.std() > 5, "it is a picture"
    assert abs(ours - draw(darkroom, prompt="a blue pear")).max() > LEVELS


def test_a_picture_from_a_picture_is_diffusers(darkroom: Darkroom, pipe: Any) -> None:
    theirs_ = stock_picture(pipe, image=photo(), strength=0.5)
    assert abs(draw(darkroom, init=Init(image=photo(), strength=0.5)) - theirs_).max() <= LEVELS


@pytest.mark.parametrize("layout", LAYOUTS[1:])
def test_every_layout_gives_the_same_picture(darkroom: Darkroom, layout: str) -> None:
    assert (draw(darkroom, model=layout) == draw(darkroom)).all()


@torch.no_grad()
def test_what_a_mask_covers_is_a_loop_by_hand_over_diffusers_parts(
    darkroom: Darkroom, pipe: Any, stock: dict[str, Any]
) -> None:
    mask = PilImages.new("L", (SIDE, SIDE), 0)
    mask.paste(255, (16, 16, 48, 48))
    inside = np.asarray(mask) == 255
    ours = draw(darkroom, init=Init(image=photo(), mask=mask, strength=0.75, mask_blur=0))

    generator = torch.Generator().manual_seed(SEED)
    context = [_context(pipe, stock, text) for text in (WORDS["prompt"], WORDS["negative"])]
    mean, std = (
        torch.tensor(row).view(1, 16, 1, 1, 1)
        for row in (stock["vae"].config.latents_mean, stock["vae"].config.latents_std)
    )
    pixels = torch.from_numpy(np.asarray(photo()).copy()).permute(2, 0, 1)[None, :, None].float() / 127.5 - 1
    clean = (stock["vae"].encode(pixels).latent_dist.mode() - mean) / std
    noise = torch.randn(clean.shape, generator=generator)
    scheduler = pipe.scheduler
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / STEPS, STEPS))
    levels, free = scheduler.sigmas, torch.from_numpy(inside[::8, ::8].astype(np.float32))
    latents = levels[1] * noise + (1 - levels[1]) * clean
    for index in range(1, STEPS):
        ask = {
            "hidden_states": latents,
            "timestep": levels[index : index + 1],
            "padding_mask": torch.zeros(1, 1, SIDE, SIDE),
        }
        said, unsaid = (
            stock["transformer"](encoder_hidden_states=told, **ask, return_dict=False)[0] for told in context
        )
        latents = latents + (levels[index + 1] - levels[index]) * (unsaid + 4.0 * (said - unsaid))
        latents = free * latents + (1 - free) * (levels[index + 1] * noise + (1 - levels[index + 1]) * clean)
    decoded = stock["vae"].decode(latents * std + mean, return_dict=False)[0][0, :, 0].permute(1, 2, 0)
    by_hand = ((decoded / 2 + 0.5).clamp(0, 1) * 255).round().numpy().astype(int)

    assert abs(ours - by_hand)[inside].max() <= LEVELS
    assert (ours[~inside] == np.asarray(photo()).astype(int)[~inside]).all()


def _context(pipe: Any, stock: dict[str, Any], text: str) -> torch.Tensor:
    from tests.engine.families.test_anima import their_context

    return their_context(stock, (pipe.tokenizer, pipe.t5_tokenizer), text)


def test_previews_hires_and_other_samplers_draw(darkroom: Darkroom, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webui.engine.preview.BUDGET", 1e9)
    request = Request(width=SIDE, height=SIDE, steps=STEPS, seed=SEED, model="folder", **WORDS)
    steps = [event for event in darkroom.generate(request) if isinstance(event, Step)]
    assert all(step.preview for step in steps)
    assert draw(darkroom, width=72, height=88).shape == (88, 72, 3), "sides of half patches"
    assert draw(darkroom, hires=Hires(scale=2.0, steps=2)).shape == (2 * SIDE, 2 * SIDE, 3)
    for sampler in ("DPM++ 2M", "UniPC", "Heun"):
        assert draw(darkroom, sampler=sampler).std() > 5
    with pytest.raises(RequestError, match="Euler a"):
        draw(darkroom, sampler="Euler a")


@pytest.fixture(scope="module")
def loras(data: Path, stock: dict[str, Any]) -> Path:
    """The same changes in each style, to the transformer and its adapter; a further one for the text encoder."""
    folder = data / "models/Lora"
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(4)
    targets = {
        (part, path): module
        for part in ("transformer", "text_conditioner")
        for path, module in stock[part].named_modules()
        if isinstance(module, torch.nn.Linear) and "blocks" in path
    }
    pairs = {
        place: (
            torch.randn(module.out_features, 2, generator=generator) * 0.2,
            torch.randn(2, module.in_features, generator=generator) * 0.2,
        )
        for place, module in targets.items()
    }
    for style, name in STYLES.items():
        ends = (".lora_down.weight", ".lora_up.weight") if style == "kohya" else (".lora_A.weight", ".lora_B.weight")
        state = {f"{name(*place)}{ends[0]}": down for place, (_, down) in pairs.items()}
        save_file(
            state | {f"{name(*place)}{ends[1]}": up for place, (up, _) in pairs.items()},
            folder / f"{style}.safetensors",
        )
    words = {}
    for path, module in stock["text_encoder"].named_modules():
        if isinstance(module, torch.nn.Linear):
            key = f"lora_te_{path.replace('.', '_')}"
            words[f"{key}.lora_down.weight"] = torch.randn(2, module.in_features, generator=generator) * 0.3
            words[f"{key}.lora_up.weight"] = torch.randn(module.out_features, 2, generator=generator) * 0.3
    save_file(words, folder / "words.safetensors")
    return folder


def test_loras_of_every_style_give_the_same_picture_and_come_off_again(darkroom: Darkroom, loras: Path) -> None:
    plain = draw(darkroom)
    drawn = {style: draw(darkroom, loras=f"{style}:0.8") for style in STYLES}
    assert all((drawn[style] == drawn["diffusers"]).all() for style in STYLES)
    assert abs(drawn["diffusers"] - plain).max() > LEVELS
    assert abs(draw(darkroom, loras="words:1") - plain).max() > LEVELS
    assert (draw(darkroom) == plain).all()


def test_words_and_loras_change_on_the_way(darkroom: Darkroom, loras: Path) -> None:
    plain = draw(darkroom)
    assert (draw(darkroom, prompt="[a red apple, flat style:a blue pear:1.0]") == plain).all()
    assert abs(draw(darkroom, prompt="[a red apple:a blue pear:0.5]") - plain).max() > LEVELS
    assert abs(draw(darkroom, loras="kohya:1@0;0@0.5") - plain).max() > LEVELS


def test_what_is_missing_is_said_with_where_it_goes(stock: dict[str, Any], tmp_path: Path) -> None:
    models = tmp_path / "models"
    save_apart(models, stock)
    encoder = models / "text_encoders/qwen_3_tiny.safetensors"
    encoder.unlink()
    darkroom = Darkroom(Settings(device="cpu", data_dir=tmp_path))
    wanted = r"anima-tiny.safetensors has no text encoder; it needs Qwen3 0.6B .* in models/text_encoders"
    with pytest.raises(RequestError, match=wanted):
        draw(darkroom, model="anima-tiny")
    wide = {"text_encoder": make_parts(encoder_width=48)["text_encoder"]}
    save_file(encoder_state(wide, "model."), encoder)
    darkroom.library.reload()
    with pytest.raises(RequestError, match=f"{wanted}. There is qwen_3_tiny is 48 wide, and 32 are needed"):
        draw(darkroom, model="anima-tiny")


def test_a_file_that_does_not_fit_is_refused_with_what_it_is(
    darkroom: Darkroom, data: Path, loras: Path, tmp_path: Path
) -> None:
    fine = draw(darkroom, model="whole", vae="qwen_image_tiny")
    assert (fine == draw(darkroom)).all()
    save_file({"decoder.conv_in.weight": torch.zeros(8, 4, 3, 3)}, data / "models/VAE/other.safetensors")
    key = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"
    ends = {f"{key}.lora_down.weight": torch.zeros(2, 768), f"{key}.lora_up.weight": torch.zeros(640, 2)}
    save_file(ends, loras / "foreign.safetensors")
    darkroom.library.reload()
    with pytest.raises(RequestError, match="VAE 'other' cannot be used: .*no VAE of Qwen-Image's kind"):
        draw(darkroom, vae="other")
    with pytest.raises(RequestError, match="foreign.*(SD 1|Stable Diffusion)"):
        draw(darkroom, loras="foreign:1")
    with pytest.raises(RequestError, match="kohya.*Anima"):
        draw(darkroom, model="demo", loras="kohya:1")


def test_another_text_encoder_reads_the_words_where_it_is_named(
    darkroom: Darkroom, data: Path, stock: dict[str, Any]
) -> None:
    plain = draw(darkroom, model="net")
    *_, chosen = darkroom.generate(Request(width=SIDE, height=SIDE, steps=1, model="net", text_encoder="ZZ", **WORDS))
    assert isinstance(chosen, Done) and not any("text encoder" in warning for warning in chosen.warnings)
    others = {model: draw(darkroom, model=model, text_encoder="zz") for model in ("net", "whole", "folder")}
    assert all((picture == others["net"]).all() for picture in others.values())
    assert abs(others["net"] - plain).max() > LEVELS
    assert (draw(darkroom, model="net") == plain).all() and (draw(darkroom, model="folder") == plain).all()
    wide = {"text_encoder": make_parts(encoder_width=48)["text_encoder"]}
    save_file(encoder_state(wide, "model."), data / "models/text_encoders/zzz-wide.safetensors")
    darkroom.library.reload()
    reason = "'zzz-wide' is Qwen3, 48 wide; net reads words with Qwen3, 32 wide; those that fit are qwen_3_tiny and zz"
    for name, said in {"zzz-wide": reason, "qwen_image_tiny": "no text encoder “qwen_image_tiny”"}.items():
        with pytest.raises(RequestError, match=said) as refused:
            draw(darkroom, model="net", text_encoder=name)
        assert refused.value.field == "text_encoder"
    with pytest.raises(RequestError, match="SD 1.x, as 'demo' is, has no text encoder in a file of its own"):
        draw(darkroom, model="demo", text_encoder="zz")


def test_files_of_parts_are_known_where_they_are_added(data: Path) -> None:
    from webui.core.tensor_file import read_header
    from webui.library.checkpoint import part_of, read_checkpoint

    encoder = part_of(read_header(data / "models/text_encoders/qwen_3_tiny.safetensors"))
    assert encoder and (encoder.family, encoder.parts, encoder.context_width) == ("Qwen3", ("text_encoder",), 32)
    vae = part_of(read_header(data / "models/VAE/qwen_image_tiny.safetensors"))
    assert vae and vae.parts == ("vae",)
    assert read_checkpoint(data / "models/diffusion_models/net.safetensors").missing_parts == ("text_encoder", "vae")


def test_words_are_counted_as_the_adapter_asks_for_them(darkroom: Darkroom) -> None:
    from webui.jobs.token_counts import count_tokens

    library = darkroom.library.snapshot()
    assert count_tokens("folder", "a (red:1.2) cat <lora:kohya:1>", 20, library) == (4, 511)
    assert count_tokens("demo", "a red cat", 20, library)[1] == 75


def test_the_command_line_draws_grids_and_verifies(
    data: Path, loras: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from webui.cli import main

    monkeypatch.setenv("WEBUI_DEVICE", "cpu")
    where = ["--data-dir", str(data), "--dtype", "float32", "--model", "net"]
    asked = [
        "--prompt",
        "a (red:1.2) [apple:pear:0.5]",
        "--width",
        "64",
        "--height",
        "64",
        "--steps",
        "2",
        "--seed",
        "5",
    ]
    assert main(["generate", *where, *asked, "--lora", "kohya:0.8", "--text-encoder", "zz"]) == 0
    (drawn,) = data.rglob("outputs/txt2img/*/*.png")
    recipe = read_picture(drawn)
    assert recipe and recipe.schema == 3 and set(recipe.hashes["lender"]) == {"zz", "qwen_image_tiny"}
    assert "Text encoder: zz" in recipe.infotext()
    assert main(["verify", *where[:4], str(drawn)]) == 0
    assert "identical" in capsys.readouterr().out
    assert main(["grid", *where, *asked, "--x", "guidance=1,4", "--y", "sampler=Euler,UniPC"]) == 0
    sheets = [path for path in data.rglob("outputs/**/*.png") if path != drawn]
    assert any(PilImages.open(path).width > 2 * SIDE for path in sheets)
    assert main(["generate", *where, *asked, "--clip-skip", "2"]) != 0
    assert "clip_skip: Anima, as 'net' is, has no clip skip" in capsys.readouterr().err


def test_a_part_that_is_called_as_the_model_is_the_one_it_takes(stock: dict[str, Any], tmp_path: Path) -> None:
    models = tmp_path / "models"
    save_apart(models, stock)
    darkroom = Darkroom(Settings(device="cpu", dtype="float32", data_dir=tmp_path))
    plain = draw(darkroom, model="anima-tiny")
    other = {name: tensor * 2 for name, tensor in encoder_state(stock, "model.").items()}
    save_file(other, models / "text_encoders/zz.safetensors")
    darkroom.library.reload()
    assert (draw(darkroom, model="anima-tiny") == plain).all(), "the first by name"
    (models / "text_encoders/zz.safetensors").rename(models / "text_encoders/anima-tiny.safetensors")
    darkroom.library.reload()
    assert abs(draw(darkroom, model="anima-tiny") - plain).max() > LEVELS


def test_prompts_by_area_are_drawn_and_one_over_everything_is_the_plain_prompt(darkroom: Darkroom) -> None:
    plain, other = draw(darkroom), {"box": (0.5, 0, 1, 1), "prompt": "a blue whale, swimming"}
    everywhere = draw(darkroom, prompt="a blue whale", regions=({"box": (0, 0, 1, 1), "prompt": WORDS["prompt"]},))
    assert (everywhere == plain).all()
    assert (draw(darkroom, regions=(other,)) != plain).any()
