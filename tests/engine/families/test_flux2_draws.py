"""A tiny FLUX.2 Klein, drawn with as people draw: every layout of files, every task, beside diffusers' pipeline."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as PilImages
from safetensors.torch import save_file
from weight_formats import as_scaled_fp8, save_gguf, save_small

from tests.engine.families.test_flux2 import stock_tokenizer
from tests.flux2_models import (
    ORIGINAL,
    SCHEDULER,
    STYLES,
    encoder_state,
    make_parts,
    save_apart,
    save_folder,
    save_whole,
    theirs,
)
from webui.core.errors import RequestError
from webui.core.events import Done, Image, Step
from webui.core.groups.hires import Hires
from webui.core.groups.init import Init
from webui.core.request import Request
from webui.core.settings import Settings
from webui.darkroom import Darkroom
from webui.engine.families.flux2 import original_name
from webui.library.checkpoint import read_checkpoint

SIDE, STEPS, SEED = 64, 3, 21
PROMPT = "a red apple, flat style"
LEVELS = 1
Drawn = tuple[np.ndarray, Done]


@pytest.fixture(scope="module")
def stock() -> dict[str, Any]:
    return make_parts()


@pytest.fixture(scope="module")
def data(stock: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every layout in one folder of models, and formats whose dense twins are beside them."""
    data = tmp_path_factory.mktemp("flux2")
    models = data / "models"
    save_folder(models / "Stable-diffusion/folder", stock)
    save_whole(models / "Stable-diffusion/whole.safetensors", stock)
    own = save_apart(models, stock).parent
    save_file(theirs(stock, "model.diffusion_model."), own / "wrapped.safetensors")
    save_file({name: tensor.contiguous() for name, tensor in stock["transformer"].state_dict().items()}, own / "bare.safetensors")  # fmt: skip # noqa: E501
    _save_twin(own / "fp8-twin.safetensors", save_small(own / "fp8.safetensors", theirs(stock, ""), as_scaled_fp8, ""))
    _save_twin(own / "Q8_0-twin.safetensors", save_gguf(own / "Q8_0.gguf", theirs(stock, ""), "Q8_0", "flux"))
    return data


def _save_twin(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    save_file({key: tensor.contiguous().clone() for key, tensor in tensors.items()}, path)


@pytest.fixture(scope="module")
def darkroom(data: Path) -> Darkroom:
    return Darkroom(Settings(device="cpu", dtype="float32", data_dir=data))


def draw(darkroom: Darkroom, **fields: Any) -> np.ndarray:
    """One picture's numbers."""
    quick = {"width": SIDE, "height": SIDE, "steps": STEPS, "seed": SEED, "model": "folder", "prompt": PROMPT}
    events = list(darkroom.generate(Request(**(quick | fields))))
    assert isinstance(events[-1], Done)
    *_, picture = [event.image for event in events if isinstance(event, Image)]
    return np.asarray(picture).astype(int)


@pytest.fixture(scope="module")
def plain(darkroom: Darkroom) -> np.ndarray:
    return draw(darkroom)


@pytest.fixture(scope="module")
def pipe(stock: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, Flux2KleinPipeline

    tokenizer = stock_tokenizer(tmp_path_factory.mktemp("tokenizer"))
    made = Flux2KleinPipeline(FlowMatchEulerDiscreteScheduler(**SCHEDULER), tokenizer=tokenizer, **stock)
    made.set_progress_bar_config(disable=True)
    return made


def photo() -> PilImages.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return PilImages.fromarray(pixels).resize((SIDE, SIDE), PilImages.Resampling.BICUBIC)


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_a_picture_from_words_is_the_pipelines(darkroom: Darkroom, pipe: Any, guidance: float) -> None:
    """The distilled and the base model's way, of one seed: noise is drawn as the pipeline draws it."""
    given = {"num_inference_steps": STEPS, "guidance_scale": guidance, "width": SIDE, "height": SIDE}
    generator = torch.Generator().manual_seed(SEED)
    (picture,) = pipe(prompt=PROMPT, **given, generator=generator, output_type="np").images
    ours = draw(darkroom, guidance=guidance)
    assert abs(ours - (picture * 255).round().astype(int)).max() <= LEVELS
    assert ours.std() > 5, "it is a picture"


@pytest.mark.parametrize("layout", ["whole", "klein-tiny", "wrapped", "bare"])
def test_every_layout_gives_the_same_picture(darkroom: Darkroom, plain: np.ndarray, layout: str) -> None:
    assert (draw(darkroom, model=layout) == plain).all()


@torch.no_grad()
def test_what_a_mask_covers_is_a_loop_by_hand_over_diffusers_parts(darkroom: Darkroom, pipe: Any) -> None:
    from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu

    mask = PilImages.new("L", (SIDE, SIDE), 0)
    mask.paste(255, (16, 16, 48, 40))  # its lower edge goes through patches
    inside = np.asarray(mask) == 255
    ours = draw(darkroom, init=Init(image=photo(), mask=mask, strength=0.7, mask_blur=0))

    generator, vae, transformer = torch.Generator().manual_seed(SEED), pipe.vae, pipe.transformer
    context, words = pipe.encode_prompt(PROMPT)
    pixels = torch.from_numpy(np.asarray(photo()).copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
    clean = pipe._encode_vae_image(pixels, generator)
    noise = torch.randn(clean.shape, generator=generator)
    places = pipe._prepare_latent_ids(clean)
    pipe.scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / STEPS, STEPS), mu=compute_empirical_mu(16, STEPS))
    levels = pipe.scheduler.sigmas
    free = pipe._patchify_latents(torch.from_numpy(inside[::8, ::8].astype(np.float32))[None, None].repeat(1, 32, 1, 1))
    latents = levels[1] * noise + (1 - levels[1]) * clean
    for index in range(1, STEPS):
        said = transformer(
            hidden_states=pipe._pack_latents(latents),
            encoder_hidden_states=context,
            timestep=levels[index : index + 1],
            img_ids=places,
            txt_ids=words,
            return_dict=False,
        )[0]
        said = pipe._unpack_latents_with_ids(said, places)
        latents = latents + (levels[index + 1] - levels[index]) * said
        latents = free * latents + (1 - free) * (levels[index + 1] * noise + (1 - levels[index + 1]) * clean)
    spread = torch.sqrt(vae.bn.running_var.view(1, -1, 1, 1) + vae.config.batch_norm_eps)
    latents = pipe._unpatchify_latents(latents * spread + vae.bn.running_mean.view(1, -1, 1, 1))
    decoded = vae.decode(latents, return_dict=False)[0][0].permute(1, 2, 0)
    by_hand = ((decoded / 2 + 0.5).clamp(0, 1) * 255).round().numpy().astype(int)

    assert abs(ours - by_hand)[inside].max() <= LEVELS
    assert (ours[~inside] == np.asarray(photo()).astype(int)[~inside]).all()


def test_previews_hires_half_patches_and_other_samplers_draw(
    darkroom: Darkroom, plain: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("webui.engine.preview.BUDGET", 1e9)
    request = Request(width=72, height=88, steps=2, seed=SEED, model="folder", prompt=PROMPT)
    events = list(darkroom.generate(request))
    assert all(event.preview for event in events if isinstance(event, Step))
    assert [event.image.size for event in events if isinstance(event, Image)] == [(72, 88)], "sides of half patches"
    larger = draw(darkroom, hires=Hires(scale=1.5, steps=2, upscaler="Latent"))
    assert larger.shape == (96, 96, 3) and larger.std() > 5
    for sampler in ("DPM++ 2M", "UniPC"):
        assert abs(draw(darkroom, sampler=sampler) - plain).max() > LEVELS


@pytest.mark.parametrize("model", ["fp8", "Q8_0"])
def test_weights_that_stay_small_draw_as_the_dense_ones(darkroom: Darkroom, loras: Path, model: str) -> None:
    own = draw(darkroom, model=model)
    assert (own == draw(darkroom, model=f"{model}-twin")).all()
    beside = draw(darkroom, model=model, loras="kohya:0.8")
    assert abs(beside - own).max() > LEVELS
    assert abs(beside - draw(darkroom, model=f"{model}-twin", loras="kohya:0.8")).max() <= LEVELS


@pytest.fixture(scope="module")
def loras(data: Path, stock: dict[str, Any]) -> Path:
    """The same changes in each style; what the original names have in one is one pair of matrices there."""
    folder = data / "models/Lora"
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(4)
    shared: dict[str, torch.Tensor] = {}
    ours: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    fused: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    for path, module in stock["transformer"].named_modules():
        if not isinstance(module, torch.nn.Linear):
            continue
        original, third = original_name(path)
        down = shared.setdefault(original, torch.randn(2, module.in_features, generator=generator) * 0.2)
        up = torch.randn(module.out_features, 2, generator=generator) * 0.2
        ours[path] = up, down
        up = torch.cat(up.chunk(2)[::-1]) if path == "norm_out.linear" else up
        fused[original] = (up if not third else torch.cat([fused[original][0], up]), down)
    for style, name in STYLES.items():
        ends = (".lora_down.weight", ".lora_up.weight") if style == "kohya" else (".lora_A.weight", ".lora_B.weight")
        pairs = fused if style in ORIGINAL else ours
        state = {f"{name(path)}{ends[0]}": down for path, (_, down) in pairs.items()}
        state |= {f"{name(path)}{ends[1]}": up for path, (up, _) in pairs.items()}
        save_file({key: tensor.contiguous().clone() for key, tensor in state.items()}, folder / f"{style}.safetensors")
    key = "diffusion_model.double_blocks.0.img_attn.qkv"
    kronecker = {f"{key}.lokr_w1": torch.randn(4, 4), f"{key}.lokr_w2": torch.randn(24, 8) * 0.2}
    save_file(kronecker, folder / "kronecker.safetensors")
    whole = torch.kron(kronecker[f"{key}.lokr_w1"], kronecker[f"{key}.lokr_w2"])
    save_file({f"{key}.diff": whole}, folder / "kronecker-whole.safetensors")
    return folder


def test_loras_of_every_style_give_the_same_picture_and_come_off_again(
    darkroom: Darkroom, loras: Path, plain: np.ndarray
) -> None:
    drawn = {style: draw(darkroom, loras=f"{style}:0.8") for style in STYLES}
    assert all((drawn[style] == drawn["diffusers"]).all() for style in STYLES)
    assert abs(drawn["diffusers"] - plain).max() > LEVELS
    whole, parts = (draw(darkroom, loras=f"{name}:1") for name in ("kronecker-whole", "kronecker"))
    assert abs(whole - plain).max() > LEVELS and abs(whole - parts).max() <= LEVELS
    assert (draw(darkroom) == plain).all()


def test_words_and_loras_change_on_the_way(darkroom: Darkroom, loras: Path, plain: np.ndarray) -> None:
    assert abs(draw(darkroom, prompt=f"[{PROMPT}:a pear:0.5]") - plain).max() > LEVELS
    assert abs(draw(darkroom, loras="kohya:1@0;0@0.5") - plain).max() > LEVELS


def test_what_is_missing_or_does_not_fit_is_said(stock: dict[str, Any], tmp_path: Path, loras: Path) -> None:
    models = tmp_path / "models"
    save_apart(models, stock)
    encoder, vae = models / "text_encoders/qwen_3_tiny.safetensors", models / "VAE/flux2-vae-tiny.safetensors"
    encoder.unlink()
    darkroom = Darkroom(Settings(device="cpu", data_dir=tmp_path))
    wanted = r"klein-tiny.safetensors has no text encoder; it needs Qwen3 .* in models/text_encoders"
    with pytest.raises(RequestError, match=wanted):
        draw(darkroom, model="klein-tiny")
    save_file(encoder_state({"text_encoder": make_parts(48)["text_encoder"]}, "model."), encoder)
    darkroom.library.reload()
    with pytest.raises(RequestError, match=f"{wanted}. There is qwen_3_tiny is 48 wide, and 32 are needed"):
        draw(darkroom, model="klein-tiny")
    save_file(encoder_state(stock, "model."), encoder)
    vae.unlink()
    darkroom.library.reload()
    with pytest.raises(RequestError, match="no VAE; it needs FLUX.2's VAE .* in models/VAE"):
        draw(darkroom, model="klein-tiny")
    save_file({"decoder.conv_in.weight": torch.zeros(8, 4, 3, 3)}, models / "VAE/other.safetensors")


def test_a_lora_of_another_kind_is_refused_with_what_it_is_for(darkroom: Darkroom, loras: Path) -> None:
    ends = ("lora_down.weight", "lora_up.weight")
    first = {f"lora_unet_double_blocks_18_img_attn_qkv.{end}": torch.zeros(2, 2) for end in ends}
    save_file(first, loras / "flux1.safetensors")
    darkroom.library.reload()
    with pytest.raises(RequestError, match="flux1.* is made for FLUX.1, but this model is FLUX.2 Klein"):
        draw(darkroom, loras="flux1:1")
    with pytest.raises(RequestError, match="kohya.*FLUX.2 Klein"):
        draw(darkroom, model="demo", loras="kohya:1")


def test_it_draws_the_same_where_its_layers_come_to_the_device_one_by_one(data: Path, plain: np.ndarray) -> None:
    settings = Settings(device="cpu", dtype="float32", data_dir=data, memory="sequential")
    assert (draw(Darkroom(settings)) == plain).all()


def test_words_are_counted_with_their_brackets(darkroom: Darkroom) -> None:
    from webui.jobs.token_counts import count_tokens

    library = darkroom.library.snapshot()
    brackets, none = (count_tokens("folder", text, 20, library) for text in ("a (red:1.2) cat", "a red cat"))
    assert none == (3, 512) and brackets[0] > 6


def test_a_form_is_told_by_the_folder_or_asked_for(darkroom: Darkroom, stock: dict[str, Any], tmp_path: Path) -> None:
    models = darkroom.library.snapshot().models
    told, silent = models["folder"].checkpoint, models["bare"].checkpoint
    assert told and silent and (told.form, silent.form) == ("Distilled", "")
    assert (told.formed.defaults.steps, told.formed.defaults.guidance) == (4, 1.0)  # type: ignore[union-attr]
    base = read_checkpoint(save_folder(tmp_path / "base", stock, distilled=False))
    assert (base.form, base.defaults.steps, base.defaults.guidance) == ("Base", 50, 4.0)
    assert (draw(darkroom, model="bare", form="Base", guidance=4.0) == draw(darkroom, guidance=4.0)).all()


@pytest.mark.slow
def test_the_command_line_draws_grids_and_verifies(
    data: Path, loras: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from webui.cli import main

    monkeypatch.setenv("WEBUI_DEVICE", "cpu")
    where = ["--data-dir", str(data), "--dtype", "float32", "--model", "klein-tiny"]
    asked = ["--prompt", "a red [apple:pear:0.5]", "--width", "64", "--height", "64", "--steps", "2", "--seed", "5"]
    assert main(["generate", *where, *asked, "--lora", "kohya:0.8"]) == 0
    (drawn,) = data.rglob("outputs/txt2img/*/*.png")
    assert main(["verify", *where[:4], str(drawn)]) == 0
    assert "identical" in capsys.readouterr().out
    assert main(["grid", *where, *asked, "--x", "guidance=1,4"]) == 0
    assert main(["generate", *where, *asked, "--clip-skip", "2"]) != 0
    assert "clip_skip: FLUX.2 Klein, as 'klein-tiny' is, has no clip skip" in capsys.readouterr().err


def test_prompts_by_area_are_drawn_and_one_over_everything_is_the_plain_prompt(darkroom: Darkroom) -> None:
    plain, other = draw(darkroom), {"box": (0.5, 0, 1, 1), "prompt": "a blue whale, swimming"}
    everywhere = draw(darkroom, prompt="a blue whale", regions=({"box": (0, 0, 1, 1), "prompt": PROMPT},))
    assert (everywhere == plain).all()
    assert (draw(darkroom, regions=(other,)) != plain).any()
