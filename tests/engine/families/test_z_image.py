"""A tiny Z-Image, drawn with as people draw: every layout of files, every task, beside diffusers' own pipelines."""

import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as PilImages
from safetensors.torch import load_file, save_file
from weight_formats import as_scaled_fp8, save_gguf, save_small

from tests.anima_models import save_folder, write_published
from tests.engine.families.test_anima import stock_tokenizers
from tests.z_image_models import STYLES, make_parts, make_pipe, published, save_apart, save_whole, theirs
from webui.core.errors import RequestError
from webui.core.events import Done, Image, Step
from webui.core.files import ModelFile
from webui.core.groups.hires import Hires
from webui.core.groups.init import Init
from webui.core.request import Request
from webui.core.settings import Settings
from webui.darkroom import Darkroom
from webui.engine.families import z_image
from webui.engine.families.base import CannotLoad
from webui.engine.families.family import EncodeOptions, Parts
from webui.engine.families.loading import ModelLoader
from webui.engine.text import qwen
from webui.engine.weights import keeps_small
from webui.library.checkpoint import read_checkpoint, read_part

SIDE, STEPS, SEED, LEVELS = 64, 4, 21, 1
WORDS = {"prompt": "a red apple, flat style", "negative": "green"}
LAYOUTS = ("folder", "whole", "bare", "wrapped", "named")


@pytest.fixture(scope="module")
def stock() -> dict[str, Any]:
    return make_parts()


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """transformers' own, with Qwen3's form of a talk, as far as a prompt needs it."""
    found, _ = stock_tokenizers(tmp_path_factory.mktemp("tokenizers"))
    found.chat_template = (
        "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    return found


@pytest.fixture(scope="module")
def data(stock: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every layout in one folder of models."""
    data = tmp_path_factory.mktemp("z-image")
    models = data / "models"
    save_folder(models / "Stable-diffusion/folder", stock)
    save_folder(models / "Stable-diffusion/base", stock, shift=6.0)
    save_folder(models / "Stable-diffusion/odd", stock, shift=4.5)
    save_whole(models / "Stable-diffusion/whole.safetensors", stock)
    save_apart(models, stock).rename(models / "diffusion_models/bare.safetensors")
    folder = models / "diffusion_models"
    save_file(theirs(stock, "model.diffusion_model."), folder / "wrapped.safetensors", {"modelspec.title": "Z Turbo"})
    save_file({k: t.contiguous() for k, t in stock["transformer"].state_dict().items()}, folder / "named.safetensors")
    save_small(folder / "fp8.safetensors", theirs(stock, ""), partial(as_scaled_fp8, by_row=True), "")
    save_gguf(folder / "Q8_0.gguf", theirs(stock, ""), "Q8_0", "lumina2")
    return data


@pytest.fixture(scope="module")
def darkroom(data: Path) -> Darkroom:
    return Darkroom(Settings(device="cpu", dtype="float32", data_dir=data))


def draw(darkroom: Darkroom, **fields: Any) -> np.ndarray:
    """One picture's numbers."""
    quick = {"width": SIDE, "height": SIDE, "steps": STEPS, "seed": SEED, "model": "folder", "guidance": 4.0, **WORDS}
    events = list(darkroom.generate(Request(**(quick | fields))))
    assert isinstance(events[-1], Done)
    *_, picture = [event.image for event in events if isinstance(event, Image)]
    return np.asarray(picture).astype(int)


def stock_picture(pipe: Any, **options: Any) -> np.ndarray:
    """Its guidance counts from 0 where ours counts from 1."""
    given = {"prompt": WORDS["prompt"], "negative_prompt": WORDS["negative"], "num_inference_steps": STEPS}
    given |= {"generator": torch.Generator().manual_seed(SEED), "output_type": "np", "width": SIDE, "height": SIDE}
    return np.asarray(pipe(**given | {"guidance_scale": 3.0} | options).images[0] * 255).round().astype(int)


def photo() -> PilImages.Image:
    numbers = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return PilImages.fromarray(numbers).resize((SIDE, SIDE), PilImages.Resampling.BICUBIC)


@pytest.mark.parametrize("prompt", ["a red (apple:1.5), flat style", "Ein Füchslein — im Wald 東京, 😀  ", ""])
def test_words_become_what_diffusers_makes_of_them(stock: dict[str, Any], tokenizer: Any, prompt: str) -> None:
    encoder = z_image.TEXT_ENCODER.make(stock["text_encoder"].config.to_dict())
    encoder.load_state_dict(stock["text_encoder"].state_dict(), strict=False)
    parts = Parts(
        SimpleNamespace(),  # type: ignore[arg-type]
        {"text_encoder": encoder.eval(), "backbone": stock["transformer"]},
        torch.device("cpu"),
        {"text_encoder": qwen.tokenizer(None, SimpleNamespace(), {"vocab_size": 151_936})},  # type: ignore[arg-type]
    )
    with torch.inference_mode():
        own = z_image.encode(parts, prompt, EncodeOptions())["context"]
        (their,), _ = make_pipe(stock, tokenizer).encode_prompt(prompt, do_classifier_free_guidance=False)
    assert own.shape[1:] == their.shape and torch.allclose(own[0], their, atol=2e-5)
    with pytest.raises(RequestError, match="tokens; 4,096 are the most"):
        z_image.encode(parts, "cat " * 5000, EncodeOptions())


def test_a_picture_from_words_is_diffusers_in_both_forms(
    darkroom: Darkroom, stock: dict[str, Any], tokenizer: Any
) -> None:
    turbo, base = make_pipe(stock, tokenizer), make_pipe(stock, tokenizer, shift=6.0)
    ours = draw(darkroom)
    assert abs(ours - stock_picture(turbo)).max() <= LEVELS
    assert ours.std() > 5, "it is a picture"
    assert abs(draw(darkroom, guidance=1.0) - stock_picture(turbo, guidance_scale=0.0)).max() <= LEVELS
    shifted = draw(darkroom, model="base")
    assert abs(shifted - stock_picture(base)).max() <= LEVELS and abs(shifted - ours).max() > LEVELS
    assert (draw(darkroom, model="whole", form="base") == shifted).all()
    assert (draw(darkroom, model="base", form="Turbo") == ours).all()


def test_pictures_from_pictures_are_diffusers(darkroom: Darkroom, stock: dict[str, Any], tokenizer: Any) -> None:
    pipe = make_pipe(stock, tokenizer, kind="ZImageImg2ImgPipeline")
    theirs_ = stock_picture(pipe, image=photo(), strength=0.5)
    assert abs(draw(darkroom, init=Init(image=photo(), strength=0.5)) - theirs_).max() <= LEVELS

    mask = PilImages.new("L", (SIDE, SIDE), 0)
    mask.paste(255, (16, 16, 48, 48))
    inside = np.asarray(mask) == 255
    pipe = make_pipe(stock, tokenizer, kind="ZImageInpaintPipeline")
    theirs_ = stock_picture(pipe, image=photo(), mask_image=mask, strength=0.75)
    ours = draw(darkroom, init=Init(image=photo(), mask=mask, strength=0.75, mask_blur=0))
    assert abs(ours - theirs_)[inside].max() <= LEVELS
    assert (ours[~inside] == np.asarray(photo()).astype(int)[~inside]).all()


@pytest.mark.parametrize("layout", LAYOUTS[1:])
def test_every_layout_gives_the_same_picture(darkroom: Darkroom, layout: str) -> None:
    assert (draw(darkroom, model=layout) == draw(darkroom)).all()


@pytest.mark.parametrize("small", ["fp8", "Q8_0"])
def test_small_weights_stay_small_and_draw(darkroom: Darkroom, small: str) -> None:
    drawn = draw(darkroom, model=small)
    modules: Any = darkroom.manager._residence.kept.active.modules  # type: ignore[union-attr]
    assert keeps_small(modules["backbone"])
    assert drawn.std() > 5 and abs(drawn - draw(darkroom)).mean() < 10


@pytest.mark.parametrize("memory", ["blocks", pytest.param("sequential", marks=pytest.mark.slow)])
def test_it_draws_the_same_where_its_weights_come_to_the_device_as_they_are_needed(
    darkroom: Darkroom, data: Path, memory: str
) -> None:
    settings = Settings(device="cpu", dtype="float32", data_dir=data, memory=memory)
    assert (draw(Darkroom(settings)) == draw(darkroom)).all()


@pytest.mark.parametrize(
    "change",
    [
        {"layers.0.attention.q_norm.weight": torch.ones(20)},
        {"layers.0.attention.q_norm.weight": torch.ones(0)},
        {"x_embedder.weight": torch.ones(64)},
        {"layers.2999999999.attention_norm1.weight": torch.ones(64)},
    ],
)
def test_a_damaged_file_is_refused_by_its_name(data: Path, tmp_path: Path, change: dict[str, torch.Tensor]) -> None:
    own = load_file(data / "models/diffusion_models/bare.safetensors")
    save_file(own | change, tmp_path / "bad.safetensors")
    file = ModelFile("bad", tmp_path / "bad.safetensors", read_checkpoint(tmp_path / "bad.safetensors"))
    whole = data / "models/Stable-diffusion/whole.safetensors"
    with pytest.raises(CannotLoad, match="model 'bad' cannot be loaded: bad.safetensors (lacks|has|is damaged)"):
        ModelLoader(file, [ModelFile("whole", whole, read_checkpoint(whole))], torch.float32)


def test_a_folder_whose_configuration_is_none_is_refused_by_its_name(stock: dict[str, Any], tmp_path: Path) -> None:
    folder = save_folder(tmp_path / "bad", stock)
    said = folder / "transformer/config.json"
    said.write_text(json.dumps(json.loads(said.read_text()) | {"axes_dims": [8, 8, 8]}))
    with pytest.raises(CannotLoad, match="model 'bad' cannot be loaded: bad has a configuration whose numbers do not"):
        ModelLoader(ModelFile("bad", folder, read_checkpoint(folder)), [], torch.float32)


def test_files_say_their_form_or_it_is_asked_for(darkroom: Darkroom) -> None:
    models = darkroom.library.snapshot().models
    forms = {name: models[name].checkpoint.form for name in ("folder", "base", "wrapped", "bare")}  # type: ignore[union-attr]
    assert forms == {"folder": "Turbo", "base": "Base", "wrapped": "Turbo", "bare": ""}
    suited = {name: (models[name].defaults.steps, models[name].defaults.guidance) for name in ("bare", "base")}
    assert suited == {"bare": (8, 1.0), "base": (30, 5.0)}

    def recipe(**fields: Any) -> Request:
        request = Request(prompt="a", width=SIDE, height=SIDE, **fields)
        return next(event for event in darkroom.generate(request) if isinstance(event, Image)).recipe.request

    asked = recipe(model="bare", form="base", steps=2)
    assert (asked.form, asked.guidance, asked.sampler) == ("Base", 5.0, "Euler")
    assert recipe(model="bare", steps=2).form == "Turbo"
    assert recipe(model="odd", steps=2).form == "auto"
    assert darkroom.manager._residence.model.scheduler_config["shift"] == 4.5, "as its folder says"  # type: ignore[union-attr]
    with pytest.raises(RequestError, match="form: Z-Image, as 'bare' is, has no form 'x'; there is auto, Turbo, Base"):
        draw(darkroom, model="bare", form="x")
    with pytest.raises(RequestError, match="form: SD 1.x, as 'demo' is, has no form 'Base'; there is auto"):
        draw(darkroom, model="demo", form="Base")


def test_previews_hires_and_other_samplers_draw(darkroom: Darkroom, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webui.engine.preview.BUDGET", 1e9)
    request = Request(width=SIDE, height=SIDE, steps=STEPS, seed=SEED, model="folder", **WORDS)
    steps = [event for event in darkroom.generate(request) if isinstance(event, Step)]
    assert all(step.preview for step in steps)
    assert draw(darkroom, width=72, height=88).shape == (88, 72, 3), "sides of half patches"
    assert draw(darkroom, hires=Hires(scale=1.5, steps=2)).shape == (96, 96, 3)
    for sampler in ("DPM++ 2M", "UniPC"):
        assert draw(darkroom, sampler=sampler).std() > 5
    together, alone = draw(darkroom, count=2), draw(darkroom, seed=SEED + 1)
    assert abs(together - alone).max() <= LEVELS


@pytest.fixture(scope="module")
def loras(data: Path, stock: dict[str, Any]) -> Path:
    """The same changes in each style; in ``fused`` attention's projections are one, and in ``words`` it is Qwen3's."""
    folder = data / "models/Lora"
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(4)

    def pair(out: int, into: int) -> tuple[torch.Tensor, torch.Tensor]:
        down, up = (torch.randn(side, generator=generator) * 0.15 for side in ((2, into), (out, 2)))
        return down, up

    linears = {
        path: module
        for path, module in stock["transformer"].named_modules()
        if isinstance(module, torch.nn.Linear) and ".attention." in path
    }
    downs = {path.rpartition(".")[0]: pair(64, 64)[0] for path in linears if path.endswith("to_q")}
    pairs = {path: pair(module.out_features, module.in_features) for path, module in linears.items()}
    for path in pairs:  # the three of one attention have what goes in in common, so that they can be one
        if (block := path.rpartition(".")[0]) in downs:
            pairs[path] = downs[block], pairs[path][1]
    for style, name in STYLES.items():
        ends = (".lora_down.weight", ".lora_up.weight") if style == "kohya" else (".lora_A.weight", ".lora_B.weight")
        state = {
            name(path) + end: part.clone()
            for path, parts in pairs.items()
            for end, part in zip(ends, parts, strict=True)
        }
        save_file(state, folder / f"{style}.safetensors")
    ups: dict[str, list[torch.Tensor]] = {}
    into: dict[str, torch.Tensor] = {}
    for path, (down, up) in pairs.items():
        ups.setdefault(z_image.own_name(path), []).append(up)
        into[z_image.own_name(path)] = down
    for style, (prefix, dot) in {"fused": ("diffusion_model.", "."), "fused kohya": ("lora_unet_", "_")}.items():
        state = {f"{prefix}{path.replace('.', dot)}.lora_up.weight": torch.cat(parts) for path, parts in ups.items()}
        state |= {f"{prefix}{path.replace('.', dot)}.lora_down.weight": down.clone() for path, down in into.items()}
        save_file(state, folder / f"{style}.safetensors")
    words = {}
    for path, module in stock["text_encoder"].named_modules():
        if isinstance(module, torch.nn.Linear):
            key = f"lora_te_{path.replace('.', '_')}"
            words[f"{key}.lora_down.weight"], words[f"{key}.lora_up.weight"] = pair(
                module.out_features, module.in_features
            )
    save_file(words, folder / "words.safetensors")
    return folder


def test_loras_of_every_style_give_the_same_picture_and_come_off_again(darkroom: Darkroom, loras: Path) -> None:
    plain = draw(darkroom)
    styles = (*STYLES, "fused", "fused kohya")
    drawn = {style: draw(darkroom, loras=f"{style}:0.8") for style in styles}
    assert all((drawn[style] == drawn["diffusers"]).all() for style in styles)
    assert abs(drawn["diffusers"] - plain).max() > LEVELS
    assert abs(draw(darkroom, loras="words:2") - plain).max() > LEVELS
    assert abs(draw(darkroom, loras="kohya:1@0;0@0.5") - plain).max() > LEVELS
    assert (draw(darkroom, prompt="[a red apple, flat style:a blue pear:1.0]") == plain).all()
    assert abs(draw(darkroom, prompt="[a red apple:a blue pear:0.5]") - plain).max() > LEVELS
    with pytest.raises(RequestError, match="fused.*(Z-Image|place)"):
        draw(darkroom, model="demo", loras="fused:1")


def test_what_is_missing_is_said_with_where_it_goes(stock: dict[str, Any], tmp_path: Path) -> None:
    models = tmp_path / "models"
    save_apart(models, stock)
    (models / "text_encoders/qwen_3_tiny.safetensors").unlink()
    (models / "VAE/ae-tiny.safetensors").rename(tmp_path / "ae.safetensors")
    darkroom = Darkroom(Settings(device="cpu", data_dir=tmp_path))
    with pytest.raises(RequestError, match=r"has no text encoder; it needs Qwen3 .* in models/text_encoders"):
        draw(darkroom, model="z-image-tiny")
    save_whole(models / "Stable-diffusion/another.safetensors", {**stock})
    darkroom.library.reload()
    assert draw(darkroom, model="z-image-tiny").std() > 5, "a whole model of its kind lends both"
    header = {"noise_refiner.0.attention_norm1.weight": torch.ones(8), "cap_embedder.1.weight": torch.ones(8, 8)}
    save_file(header, models / "Stable-diffusion/lumina.safetensors")
    darkroom.library.reload()
    with pytest.raises(RequestError, match="is Lumina 2"):
        draw(darkroom, model="lumina")


def test_anima_and_z_image_lend_each_other_the_network_that_reads_words(
    stock: dict[str, Any], data: Path, tmp_path: Path
) -> None:
    from tests import anima_models

    models = tmp_path / "models"
    parts = anima_models.make_parts()
    anima_models.save_apart(models, parts)
    (models / "text_encoders/qwen_3_tiny.safetensors").unlink()
    anima_models.save_whole(models / "Stable-diffusion/whole.safetensors", parts)
    save_file(theirs(stock, ""), models / "diffusion_models/z.safetensors")
    save_apart(tmp_path / "other", stock)
    (tmp_path / "other/VAE/ae-tiny.safetensors").rename(models / "VAE/ae.safetensors")
    darkroom = Darkroom(Settings(device="cpu", dtype="float32", data_dir=tmp_path))
    lent = [file.name for file in (darkroom.library.snapshot().models["whole"],)]
    assert draw(darkroom, model="z").std() > 5
    assert {file.name for file in darkroom.manager._residence.lenders} == {*lent, "ae"}


def test_the_published_files_are_known_and_all_of_them_is_found(tmp_path: Path) -> None:
    paths = {
        folder: write_published(tmp_path / folder / "published.safetensors", shapes, sparse=True)
        for folder, shapes in published().items()
    }
    checkpoint = read_checkpoint(paths["diffusion_models"])
    assert (checkpoint.family, checkpoint.native_px, checkpoint.context_width) == ("Z-Image", 1024, 2560)
    assert (checkpoint.prediction, checkpoint.missing_parts) == ("flow", ("text_encoder", "vae"))
    lenders = [ModelFile(folder, paths[folder], read_part(paths[folder])) for folder in ("text_encoders", "VAE")]
    loader = ModelLoader(ModelFile("whole", paths["diffusion_models"], checkpoint), lenders, torch.bfloat16)
    sizes = {role: nbytes // 2 for role, nbytes in loader.part_bytes.items()}
    assert sizes == {"text_encoder": 4_022_468_096 - 100_930_816 - 2560, "backbone": 6_154_908_736, "vae": 83_819_683}
    assert loader.scheduler_config["shift"] == 3.0 and not [line for line in loader.warnings if "nothing" in line]


def test_the_command_line_draws_in_a_form_and_verifies(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from webui.cli import main

    monkeypatch.setenv("WEBUI_DEVICE", "cpu")
    where = ["--data-dir", str(data), "--dtype", "float32"]
    size = ["--width", "64", "--height", "64", "--steps", "2", "--seed", "5"]
    asked = ["--model", "bare", "--form", "Base", "--prompt", "apple", *size]
    assert main(["generate", *where, *asked]) == 0
    (drawn,) = data.rglob("outputs/txt2img/*/*.png")
    with PilImages.open(drawn) as picture:
        texts: Any = picture.text  # type: ignore[attr-defined]
    assert "Form: Base" in texts["parameters"] and json.loads(texts["darkroom"])["request"]["form"] == "Base"
    assert main(["verify", *where, str(drawn)]) == 0
    assert "identical" in capsys.readouterr().out
    assert main(["grid", *where, "--model", "bare", "--prompt", "apple", *size, "--x", "form=Turbo,Base"]) == 0
    sheets = [path for path in data.rglob("outputs/**/*.png") if path != drawn]
    assert any(PilImages.open(path).width > 2 * SIDE for path in sheets)
