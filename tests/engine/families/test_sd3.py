"""A tiny SD 3.5, and one built as SD 3 is, drawn with as people draw, beside diffusers' pipelines."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as PilImages
from safetensors.torch import save_file
from weight_formats import as_scaled_fp8, save_gguf, save_small

from tests.anima_models import write_published
from tests.sd3_models import (
    FIRST,
    ORIGINAL,
    PUBLISHED,
    SCHEDULER,
    STYLES,
    TRANSFORMER,
    make_parts,
    published,
    save_apart,
    save_folder,
    save_whole,
    state,
    stock_tokenizers,
    text_states,
    theirs,
)
from webui.core.errors import RequestError
from webui.core.events import Done, Image, Step
from webui.core.groups.hires import Hires
from webui.core.groups.init import Init
from webui.core.request import Request
from webui.core.settings import Settings
from webui.core.tensor_file import BadFile, Header
from webui.darkroom import Darkroom
from webui.engine.families import sd3
from webui.library.checkpoint import check_header, part_of, read_checkpoint

SIDE, STEPS, SEED, GUIDANCE = 64, 3, 21, 4.5
PROMPT, NEGATIVE = "a red apple, flat style", "blurry"
LEVELS = 1


@pytest.fixture(scope="module")
def stock() -> dict[str, Any]:
    return make_parts()


@pytest.fixture(scope="module")
def first(stock: dict[str, Any]) -> dict[str, Any]:
    """With a transformer that is built as SD 3 medium's."""
    return stock | {"transformer": make_parts(FIRST)["transformer"]}


@pytest.fixture(scope="module")
def data(stock: dict[str, Any], first: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every layout in one folder of models, and formats whose dense twins are beside them."""
    data = tmp_path_factory.mktemp("sd3")
    models = data / "models"
    save_folder(models / "Stable-diffusion/folder", stock)
    save_whole(models / "Stable-diffusion/whole.safetensors", stock)
    own = save_apart(models, stock).parent
    dense = theirs(stock["transformer"], "")
    save_file(state(stock["transformer"]), own / "bare.safetensors")
    save_file(theirs(first["transformer"], ""), own / "first.safetensors")
    _save_twin(own / "fp8-twin.safetensors", save_small(own / "fp8.safetensors", dense, as_scaled_fp8, ""))
    _save_twin(own / "Q8_0-twin.safetensors", save_gguf(own / "Q8_0.gguf", dense, "Q8_0", "sd3"))
    return data


def _save_twin(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    save_file({key: tensor.contiguous().clone() for key, tensor in tensors.items()}, path)


@pytest.fixture(scope="module")
def darkroom(data: Path) -> Darkroom:
    return Darkroom(Settings(device="cpu", dtype="float32", data_dir=data))


def events_of(darkroom: Darkroom, **fields: Any) -> list[Any]:
    quick = {"width": SIDE, "height": SIDE, "steps": STEPS, "seed": SEED, "model": "folder", "prompt": PROMPT}
    quick |= {"negative": NEGATIVE, "guidance": GUIDANCE}
    return list(darkroom.generate(Request(**(quick | fields))))


def draw(darkroom: Darkroom, **fields: Any) -> np.ndarray:
    """One picture's numbers."""
    events = events_of(darkroom, **fields)
    assert isinstance(events[-1], Done)
    *_, picture = [event.image for event in events if isinstance(event, Image)]
    return np.asarray(picture).astype(int)


@pytest.fixture(scope="module")
def plain(darkroom: Darkroom) -> np.ndarray:
    return draw(darkroom)


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return stock_tokenizers(tmp_path_factory.mktemp("tokenizers"))


def pipeline(kind: str, parts: dict[str, Any], tokenizers: dict[str, Any]) -> Any:
    import diffusers

    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(**SCHEDULER)
    made = getattr(diffusers, f"StableDiffusion3{kind}Pipeline")(scheduler=scheduler, **parts, **tokenizers)
    made.set_progress_bar_config(disable=True)
    return made


def stock_picture(pipe: Any, **options: Any) -> np.ndarray:
    given = {"prompt": PROMPT, "negative_prompt": NEGATIVE, "num_inference_steps": STEPS, "guidance_scale": GUIDANCE}
    generator = torch.Generator().manual_seed(SEED)
    given |= {"width": SIDE, "height": SIDE} | options
    (picture,) = pipe(**given, generator=generator, output_type="np").images
    return np.asarray(picture * 255).round().astype(int)


def photo() -> PilImages.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return PilImages.fromarray(pixels).resize((SIDE, SIDE), PilImages.Resampling.BICUBIC)


def test_a_picture_from_words_is_the_pipelines(
    darkroom: Darkroom, plain: np.ndarray, stock: dict[str, Any], first: dict[str, Any], tokenizers: dict[str, Any]
) -> None:
    pipe = pipeline("", stock, tokenizers)
    assert abs(plain - stock_picture(pipe)).max() <= LEVELS and plain.std() > 5
    alone = draw(darkroom, guidance=1.0, width=96)
    assert abs(alone - stock_picture(pipe, guidance_scale=1.0, width=96)).max() <= LEVELS
    skipping = draw(darkroom, clip_skip=2, guidance=1.0)
    assert abs(skipping - stock_picture(pipe, guidance_scale=1.0, clip_skip=1)).max() <= LEVELS
    older = draw(darkroom, model="first")
    assert abs(older - stock_picture(pipeline("", first, tokenizers))).max() <= LEVELS


def test_a_picture_from_a_picture_is_the_pipelines(
    darkroom: Darkroom, stock: dict[str, Any], tokenizers: dict[str, Any]
) -> None:
    """Two of its three steps."""
    pipe = pipeline("Img2Img", stock, tokenizers)
    expected = stock_picture(pipe, image=photo(), strength=2 / 3)
    assert abs(draw(darkroom, init=Init(image=photo(), strength=2 / 3)) - expected).max() <= LEVELS


def test_what_a_mask_covers_is_the_pipelines(
    darkroom: Darkroom, stock: dict[str, Any], tokenizers: dict[str, Any]
) -> None:
    """As far as its latents: it decodes them without the autoencoder's shift, unlike diffusers' two others."""
    mask = PilImages.new("L", (SIDE, SIDE), 0)
    mask.paste(255, (16, 16, 48, 40))
    inside = np.asarray(mask) == 255
    pipe = pipeline("Inpaint", stock, tokenizers)
    given = {"image": photo(), "mask_image": mask, "strength": 2 / 3, "width": SIDE, "height": SIDE}
    given |= {"prompt": PROMPT, "negative_prompt": NEGATIVE, "num_inference_steps": STEPS, "guidance_scale": GUIDANCE}
    latents = pipe(**given, generator=torch.Generator().manual_seed(SEED), output_type="latent").images
    decoded = stock["vae"].decode(latents / 1.5305 + 0.0609).sample
    (picture,) = pipe.image_processor.postprocess(decoded, output_type="np")
    expected = np.asarray(picture * 255).round().astype(int)
    ours = draw(darkroom, init=Init(image=photo(), mask=mask, strength=2 / 3, mask_blur=0))
    assert abs(ours - expected)[inside].max() <= LEVELS
    assert (ours[~inside] == np.asarray(photo()).astype(int)[~inside]).all()


def test_words_are_the_pipelines(darkroom: Darkroom, plain: np.ndarray, stock: dict[str, Any], tokenizers: dict[str, Any]) -> None:  # fmt: skip # noqa: E501
    draw(darkroom, steps=1)
    model = darkroom.manager._residence.model  # type: ignore[union-attr]

    told = model.encode_prompt(PROMPT, 1, {})
    states, _, summary, _ = pipeline("", stock, tokenizers).encode_prompt(PROMPT, PROMPT, PROMPT)
    assert told["context"].shape == states.shape == (1, 77 + 256, TRANSFORMER["joint_attention_dim"])
    assert (told["context"] - states).abs().max() < 2e-5 and (told["summary"] - summary).abs().max() < 2e-5
    longer = model.encode_prompt(", ".join([PROMPT] * 20), 1, {})
    assert longer["context"].shape[1] == 2 * 77 + 256


@pytest.mark.parametrize("layout", ["whole", "sd3-tiny", "bare"])
def test_every_layout_gives_the_same_picture(darkroom: Darkroom, plain: np.ndarray, layout: str) -> None:
    assert (draw(darkroom, model=layout) == plain).all()


def test_t5_may_be_left_out(stock: dict[str, Any], tokenizers: dict[str, Any], tmp_path: Path) -> None:
    """From a file, and from a folder, whose pipeline has none."""
    save_whole(tmp_path / "models/Stable-diffusion/x.safetensors", stock, with_t5=False)
    without = {name: part for name, part in stock.items() if name != "text_encoder_3"}
    save_folder(tmp_path / "models/Stable-diffusion/y", without)
    darkroom = Darkroom(Settings(device="cpu", dtype="float32", data_dir=tmp_path))
    events = events_of(darkroom, model="x")
    *_, drawn = [event for event in events if isinstance(event, Image)]
    said = "x has no third text encoder and draws without it; that would be T5-XXL"
    assert any(said in warning for warning in events[-1].warnings)
    pipe = pipeline("", without | {"text_encoder_3": None}, tokenizers)
    picture = np.asarray(drawn.image).astype(int)
    assert abs(picture - stock_picture(pipe)).max() <= LEVELS
    assert (draw(darkroom, model="y") == picture).all()


def test_previews_hires_weights_and_other_samplers_draw(
    darkroom: Darkroom, plain: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("webui.engine.preview.BUDGET", 1e9)
    events = events_of(darkroom, width=72, height=88, steps=2)
    assert all(event.preview for event in events if isinstance(event, Step))
    assert [event.image.size for event in events if isinstance(event, Image)] == [(72, 88)], "sides of half patches"
    assert draw(darkroom, hires=Hires(scale=1.5, steps=2, upscaler="Latent")).shape == (96, 96, 3)
    assert (draw(darkroom, prompt="a (red:1.0) apple, flat style") == plain).all()
    for other in ({"prompt": "a (red:1.4) apple, flat style"}, {"sampler": "DPM++ 2M"}, {"negative": ""}):
        assert (draw(darkroom, **other) != plain).any()
    assert (draw(darkroom, prompt=f"[{PROMPT}:a pear:0.5]") != plain).any()
    assert (draw(darkroom, form="Turbo") == plain).all(), "both forms have one schedule"
    with pytest.raises(RequestError, match="this model draws up to 192 px a side, not 200"):
        draw(darkroom, width=200)


@pytest.fixture(scope="module")
def loras(data: Path, stock: dict[str, Any]) -> Path:
    """The same changes in each style; what Stability's names have in one is one pair of matrices there."""
    folder = data / "models/Lora"
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(4)
    downs: dict[str, torch.Tensor] = {}
    ours: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    pieces: dict[str, dict[int, torch.Tensor]] = {}
    for path, module in stock["transformer"].named_modules():
        if not isinstance(module, torch.nn.Linear):
            continue
        original, third = sd3.original_name(path)
        down = downs.setdefault(original, torch.randn(2, module.in_features, generator=generator) * 0.1)
        up = torch.randn(module.out_features, 2, generator=generator) * 0.1
        ours[path] = up, down
        swapped = sd3.is_swapped(path, stock["transformer"])
        pieces.setdefault(original, {})[third or 0] = torch.cat(up.chunk(2)[::-1]) if swapped else up
    fused = {
        name: (torch.cat([found[third] for third in sorted(found)]), downs[name]) for name, found in pieces.items()
    }
    for style, name in STYLES.items():
        ends = (".lora_down.weight", ".lora_up.weight") if "_" in name("") else (".lora_A.weight", ".lora_B.weight")
        pairs = fused if style in ORIGINAL else ours
        tensors = {f"{name(path)}{ends[0]}": down for path, (_, down) in pairs.items()}
        tensors |= {f"{name(path)}{ends[1]}": up for path, (up, _) in pairs.items()}
        _save_twin(folder / f"{style}.safetensors", tensors)
    words = {}
    for module, width in (
        ("lora_te1_text_model_encoder_layers_0_mlp_fc1", 24),
        ("lora_te2_text_model_encoder_layers_0_mlp_fc1", 40),
        ("lora_te3_encoder_block_0_layer_0_SelfAttention_q", 96),
    ):
        rows = 32 if "te3" in module else 96
        both = {"down": torch.randn(2, width) * 0.5, "up": torch.randn(rows, 2)}
        words = {f"{module}.lora_{half}.weight": tensor for half, tensor in both.items()}
        save_file(words, folder / f"{module[5:8]}.safetensors")
    return folder


def test_loras_of_every_style_give_the_same_picture_and_come_off_again(
    darkroom: Darkroom, loras: Path, plain: np.ndarray
) -> None:
    drawn = {style: draw(darkroom, loras=f"{style}:0.8") for style in STYLES}
    assert all((drawn[style] == drawn["diffusers"]).all() for style in STYLES)
    assert abs(drawn["diffusers"] - plain).max() > LEVELS
    for words in ("te1", "te2", "te3"):
        assert (draw(darkroom, loras=f"{words}:1") != plain).any(), words
    assert (draw(darkroom, loras="kohya:1@0;0@0.5") != plain).any()
    assert (draw(darkroom) == plain).all()


@pytest.mark.parametrize("model", ["fp8", "Q8_0"])
def test_weights_that_stay_small_draw_as_the_dense_ones(darkroom: Darkroom, loras: Path, model: str) -> None:
    own = draw(darkroom, model=model)
    assert (own == draw(darkroom, model=f"{model}-twin")).all()
    beside = draw(darkroom, model=model, loras="kohya:0.8")
    assert abs(beside - own).max() > LEVELS
    assert abs(beside - draw(darkroom, model=f"{model}-twin", loras="kohya:0.8")).max() <= LEVELS


@pytest.mark.parametrize(
    ("name", "numbers"),
    [("3 medium", 2_028_328_000), ("3.5 medium", 2_243_171_520), ("3.5 large", 8_056_627_520)],
)
def test_published_headers_are_known_and_diffusers_converts_the_same(name: str, numbers: int) -> None:
    from diffusers import SD3Transformer2DModel
    from diffusers.loaders.single_file_utils import convert_sd3_transformer_checkpoint_to_diffusers

    from webui.engine.weights import build_empty

    shapes = published(name)
    known = check_header(Header({}, shapes))
    assert (known.family, known.context_width, known.form) == ("SD 3.x", 4096, "")
    assert known.missing_parts == ("text_encoder", "text_encoder_2", "text_encoder_3", "vae")
    assert dict(known.widths) == {"text_encoder": 768, "text_encoder_2": 1280}
    config = sd3.TRANSFORMER.config(known, shapes, "")
    assert {key: PUBLISHED[name][key] for key in ("num_layers", "dual_attention_layers", "qk_norm")}.items() <= config.items()  # fmt: skip # noqa: E501
    whole = build_empty(lambda: SD3Transformer2DModel.from_config(dict(config))).state_dict()
    empty = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    converted = convert_sd3_transformer_checkpoint_to_diffusers(empty)
    assert {key: part.shape for key, part in converted.items()} == {key: part.shape for key, part in whole.items()}
    assert sum(part.numel() for key, part in converted.items() if key != "pos_embed.pos_embed") == numbers


def test_names_are_those_that_diffusers_converts_from(stock: dict[str, Any], first: dict[str, Any]) -> None:
    from diffusers.loaders.single_file_utils import convert_sd3_transformer_checkpoint_to_diffusers

    for parts in (stock, first):
        own = theirs(parts["transformer"], "")
        converted = convert_sd3_transformer_checkpoint_to_diffusers(dict(own))
        assert all((converted[name] == tensor).all() for name, tensor in state(parts["transformer"]).items())
        shapes = {name: tuple(tensor.shape) for name, tensor in own.items()}
        config = sd3.TRANSFORMER.config(SimpleNamespace(names="sd3"), shapes, "")  # type: ignore[arg-type]
        assert {**config, "sample_size": 16} == (TRANSFORMER if parts is stock else FIRST) | {"patch_size": 2}
    with pytest.raises(BadFile, match="is an SD 3 model that is shown a picture besides"):
        check_header(Header({}, shapes | {"x_embedder.proj.weight": (64, 33, 2, 2)}))


def test_forms_and_parts_are_told_by_files(stock: dict[str, Any], data: Path, tmp_path: Path) -> None:
    turbo = published("3.5 large", blocks=1)
    path = write_published(tmp_path / "x.safetensors", turbo, sparse=True)
    known = read_checkpoint(path)
    assert (known.form, known.defaults.steps, known.defaults.guidance) == ("", 28, 4.5)
    said = check_header(Header({"modelspec.title": "SD 3.5 Large Turbo"}, turbo))
    assert (said.form, said.defaults.steps, said.defaults.guidance) == ("Turbo", 4, 1.0)
    whole = read_checkpoint(data / "models/Stable-diffusion/whole.safetensors")
    assert whole.prefix_of("text_encoder_2") == "text_encoders.clip_g.transformer."
    assert whole.prefix_of("vae") == "first_stage_model." and not whole.missing_parts
    assert not whole.lends("vae", replace_family(whole, "FLUX.1")), "FLUX.1's has other numbers"
    clip_l, clip_g, _ = text_states(stock, ("", "", ""))
    wide = {"text_model.embeddings.token_embedding.weight": (49_408, 1280)}
    lone = part_of(Header({}, {name: tuple(tensor.shape) for name, tensor in clip_g.items()} | wide))
    assert lone and (lone.family, lone.context_width) == ("CLIP", 1280)


def replace_family(checkpoint: Any, family: str) -> Any:
    from dataclasses import replace

    return replace(checkpoint, family=family)


@pytest.mark.parametrize("memory", ["blocks", pytest.param("sequential", marks=pytest.mark.slow)])
def test_it_draws_the_same_where_its_layers_come_to_the_device(data: Path, plain: np.ndarray, memory: Any) -> None:
    assert (draw(Darkroom(Settings(device="cpu", dtype="float32", data_dir=data, memory=memory))) == plain).all()


def test_what_is_missing_or_does_not_fit_is_said(stock: dict[str, Any], tmp_path: Path, darkroom: Darkroom, loras: Path) -> None:  # fmt: skip # noqa: E501
    models = tmp_path / "models"
    path = save_apart(models, stock)
    write_published(path, published("3.5 large", blocks=1), sparse=True)
    bare = Darkroom(Settings(device="cpu", data_dir=tmp_path))
    with pytest.raises(RequestError, match=r"no text encoder; it needs CLIP-L \(clip_l.safetensors\) in models/text_enc"):  # fmt: skip # noqa: E501
        draw(bare, model="sd3-tiny")
    save_apart(models, stock)
    for file, wanted in (
        ("text_encoders/clip_g", "no second text encoder; it needs CLIP"),
        ("VAE/sd3_vae", r"no VAE; it needs SD 3's VAE \(sd3_vae.safetensors\) in models/VAE"),
    ):
        part = models / f"{file}.safetensors"
        part.rename(part.with_suffix(".off"))
        bare.library.reload()
        with pytest.raises(RequestError, match=f"sd3-tiny.safetensors has {wanted}"):
            draw(bare, model="sd3-tiny")
        part.with_suffix(".off").rename(part)
    bare.library.reload()
    warnings = events_of(bare, model="sd3-tiny", steps=1)[-1].warnings
    assert any("sd3_vae may be SD 3's VAE or FLUX.1's VAE, which look alike" in warning for warning in warnings)
    save_whole(models / "Stable-diffusion/whole.safetensors", stock)
    bare.library.reload()
    warnings = events_of(bare, model="sd3-tiny", steps=1)[-1].warnings
    assert "sd3-tiny has no VAE; the one of whole is used." in warnings, "it is surely SD 3's"
    with pytest.raises(RequestError, match="refiner"):
        draw(darkroom, refiner="whole")


def test_the_command_line_draws_and_verifies(
    data: Path, darkroom: Darkroom, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from webui.cli import main

    monkeypatch.setenv("WEBUI_DEVICE", "cpu")
    where = ["--data-dir", str(data), "--dtype", "float32"]
    asked = ["--prompt", "a (red:1.2) apple", "--width", "64", "--height", "64", "--steps", "2", "--form", "Turbo"]
    assert main(["generate", *where, *asked, "--model", "bare", "--seed", "5"]) == 0
    (drawn,) = data.rglob("outputs/txt2img/*/*.png")
    assert main(["verify", *where, str(drawn)]) == 0
    assert "identical" in capsys.readouterr().out
