"""A tiny FLUX.1, dev and schnell, drawn with as people draw, beside diffusers' pipeline and its parts."""

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
from tests.flux1_models import (
    ORIGINAL,
    SCHEDULER,
    STYLES,
    T5,
    TRANSFORMER,
    make_parts,
    published,
    save_apart,
    save_folder,
    save_whole,
    stock_clip,
    stock_t5,
    text_states,
    theirs,
)
from webui.core.errors import RequestError
from webui.core.events import Done, Image, Step
from webui.core.gguf_names import transformers_names
from webui.core.groups.hires import Hires
from webui.core.groups.init import Init
from webui.core.request import Request
from webui.core.settings import Settings
from webui.core.tensor_file import BadFile, Header
from webui.darkroom import Darkroom
from webui.engine.families import flux1
from webui.engine.text import t5
from webui.engine.weights import build_empty
from webui.library.checkpoint import check_header, part_of, read_checkpoint

SIDE, STEPS, SEED = 64, 3, 21
PROMPT = "a red apple, flat style"
LEVELS = 1


@pytest.fixture(scope="module")
def stock() -> dict[str, Any]:
    return make_parts()


def schnell_parts(stock: dict[str, Any]) -> dict[str, Any]:
    return stock | {"transformer": make_parts(guided=False)["transformer"]}


@pytest.fixture(scope="module")
def data(stock: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every layout in one folder of models, schnell, and formats whose dense twins are beside them."""
    data = tmp_path_factory.mktemp("flux1")
    models = data / "models"
    save_folder(models / "Stable-diffusion/folder", stock)
    save_whole(models / "Stable-diffusion/whole.safetensors", stock)
    own = save_apart(models, stock).parent
    save_file({name: tensor.contiguous() for name, tensor in stock["transformer"].state_dict().items()}, own / "bare.safetensors")  # fmt: skip # noqa: E501
    save_file(theirs(schnell_parts(stock), ""), own / "schnell.safetensors")
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
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("tokenizers")
    return {"tokenizer": stock_clip(folder / "clip"), "tokenizer_2": stock_t5(folder / "t5")}


def pipeline(kind: str, parts: dict[str, Any], tokenizers: dict[str, Any]) -> Any:
    import diffusers

    guided = parts["transformer"].config.guidance_embeds
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(**SCHEDULER[guided])
    made = getattr(diffusers, kind)(scheduler=scheduler, **parts, **tokenizers)
    made.set_progress_bar_config(disable=True)
    return made


def stock_picture(pipe: Any, guidance: float = 3.5, **options: Any) -> np.ndarray:
    given = {"prompt": PROMPT, "num_inference_steps": STEPS, "width": SIDE, "height": SIDE, "guidance_scale": guidance}
    generator = torch.Generator().manual_seed(SEED)
    (picture,) = pipe(**given | options, generator=generator, output_type="np").images
    return np.asarray(picture * 255).round().astype(int)


def photo() -> PilImages.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return PilImages.fromarray(pixels).resize((SIDE, SIDE), PilImages.Resampling.BICUBIC)


def test_a_picture_from_words_is_the_pipelines(
    darkroom: Darkroom, plain: np.ndarray, stock: dict[str, Any], tokenizers: dict[str, Any]
) -> None:
    pipe = pipeline("FluxPipeline", stock, tokenizers)
    assert abs(plain - stock_picture(pipe)).max() <= LEVELS and plain.std() > 5
    told = draw(darkroom, guidance=7.0)
    assert abs(told - stock_picture(pipe, 7.0)).max() <= LEVELS and abs(told - plain).max() > LEVELS


def test_schnell_is_told_no_guidance_and_fewer_words(
    darkroom: Darkroom, stock: dict[str, Any], tokenizers: dict[str, Any]
) -> None:
    pipe = pipeline("FluxPipeline", schnell_parts(stock), tokenizers)
    assert abs(draw(darkroom, model="schnell") - stock_picture(pipe, max_sequence_length=256)).max() <= LEVELS


def test_a_picture_from_a_picture_is_the_pipelines(
    darkroom: Darkroom, stock: dict[str, Any], tokenizers: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of its three steps."""
    pipe = pipeline("FluxImg2ImgPipeline", stock, tokenizers)
    expected = stock_picture(pipe, image=photo(), strength=2 / 3)
    assert abs(draw(darkroom, init=Init(image=photo(), strength=2 / 3)) - expected).max() <= LEVELS


def test_what_a_mask_covers_is_the_pipelines(
    darkroom: Darkroom, stock: dict[str, Any], tokenizers: dict[str, Any]
) -> None:
    mask = PilImages.new("L", (SIDE, SIDE), 0)
    mask.paste(255, (16, 16, 48, 40))
    inside = np.asarray(mask) == 255
    pipe = pipeline("FluxInpaintPipeline", stock, tokenizers)
    expected = stock_picture(pipe, image=photo(), mask_image=mask, strength=2 / 3)
    ours = draw(darkroom, init=Init(image=photo(), mask=mask, strength=2 / 3, mask_blur=0))
    assert abs(ours - expected)[inside].max() <= LEVELS
    assert (ours[~inside] == np.asarray(photo()).astype(int)[~inside]).all()


@pytest.mark.parametrize("layout", ["whole", "flux1-tiny", "bare"])
def test_every_layout_gives_the_same_picture(darkroom: Darkroom, plain: np.ndarray, layout: str) -> None:
    assert (draw(darkroom, model=layout) == plain).all()


def test_previews_hires_weights_and_other_samplers_draw(
    darkroom: Darkroom, plain: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("webui.engine.preview.BUDGET", 1e9)
    events = list(darkroom.generate(Request(width=72, height=88, steps=2, seed=1, model="folder", prompt=PROMPT)))
    assert all(event.preview for event in events if isinstance(event, Step))
    assert [event.image.size for event in events if isinstance(event, Image)] == [(72, 88)], "sides of half patches"
    assert draw(darkroom, hires=Hires(scale=1.5, steps=2, upscaler="Latent")).shape == (96, 96, 3)
    assert (draw(darkroom, prompt="a (red:1.0) apple, flat style") == plain).all()
    assert (draw(darkroom, prompt="a (red:1.4) apple, flat style") != plain).any()
    assert (draw(darkroom, sampler="DPM++ 2M") != plain).any()
    assert (draw(darkroom, prompt=f"[{PROMPT}:a pear:0.5]") != plain).any()


@pytest.fixture(scope="module")
def loras(data: Path, stock: dict[str, Any]) -> Path:
    """The same changes in each style; what the original names have in one is one pair of matrices there."""
    folder = data / "models/Lora"
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(4)
    downs: dict[str, torch.Tensor] = {}
    ours: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    pieces: dict[str, list[tuple[int, torch.Tensor]]] = {}
    for path, module in stock["transformer"].named_modules():
        if not isinstance(module, torch.nn.Linear):
            continue
        original, share = flux1.original_name(path)
        down = downs.setdefault(original, torch.randn(2, module.in_features, generator=generator) * 0.1)
        up = torch.randn(module.out_features, 2, generator=generator) * 0.1
        ours[path] = up, down
        up = torch.cat(up.chunk(2)[::-1]) if path == "norm_out.linear" else up
        pieces.setdefault(original, []).append((share[0] if share else 0, up))
    fused = {
        name: (torch.cat([up for _, up in sorted(found, key=lambda row: row[0])]), downs[name])
        for name, found in pieces.items()
    }
    for style, name in STYLES.items():
        ends = (".lora_down.weight", ".lora_up.weight") if style == "kohya" else (".lora_A.weight", ".lora_B.weight")
        pairs = fused if style in ORIGINAL else ours
        state = {f"{name(path)}{ends[0]}": down for path, (_, down) in pairs.items()}
        state |= {f"{name(path)}{ends[1]}": up for path, (up, _) in pairs.items()}
        save_file({key: tensor.contiguous().clone() for key, tensor in state.items()}, folder / f"{style}.safetensors")
    _save_xlabs(folder, ours)
    words = {
        "lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": torch.randn(2, 64) * 0.5,
        "lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_up.weight": torch.randn(96, 2),
        "lora_te3_encoder_block_0_layer_0_SelfAttention_q.lora_down.weight": torch.randn(2, 32) * 0.5,
        "lora_te3_encoder_block_0_layer_0_SelfAttention_q.lora_up.weight": torch.randn(32, 2),
    }
    save_file(words, folder / "words.safetensors")
    return folder


def _save_xlabs(folder: Path, pairs: dict[str, tuple[torch.Tensor, torch.Tensor]]) -> None:
    """Attention's layers as XLabs' first LoRAs have them, and as diffusers has the same."""
    first, single = "transformer_blocks.0.attn", "single_transformer_blocks.0"
    layers = {
        "double_blocks.0.processor.qkv_lora1": [f"{first}.to_{letter}" for letter in "qkv"],
        "double_blocks.0.processor.proj_lora2": [f"{first}.to_add_out"],
        "single_blocks.0.processor.qkv_lora": [f"{single}.attn.to_{letter}" for letter in "qkv"],
        "single_blocks.0.processor.proj_lora": [f"{single}.proj_out"],
    }
    theirs_, own = {}, {}
    for name, paths in layers.items():
        theirs_[f"{name}.down.weight"] = pairs[paths[0]][1].clone()
        theirs_[f"{name}.up.weight"] = torch.cat([pairs[path][0] for path in paths])
        own |= {f"transformer.{path}.lora_A.weight": pairs[path][1].clone() for path in paths}
        own |= {f"transformer.{path}.lora_B.weight": pairs[path][0].clone() for path in paths}
    save_file(theirs_, folder / "xlabs.safetensors")
    save_file(own, folder / "attention.safetensors")


def test_loras_of_every_style_give_the_same_picture_and_come_off_again(
    darkroom: Darkroom, loras: Path, plain: np.ndarray
) -> None:
    drawn = {style: draw(darkroom, loras=f"{style}:0.8") for style in STYLES}
    assert all((drawn[style] == drawn["diffusers"]).all() for style in STYLES)
    assert abs(drawn["diffusers"] - plain).max() > LEVELS
    assert (draw(darkroom, loras="words:1") != plain).any()
    xlabs = draw(darkroom, loras="xlabs:1")
    assert (xlabs == draw(darkroom, loras="attention:1")).all() and (xlabs != plain).any()
    assert (draw(darkroom, loras="kohya:1@0;0@0.5") != plain).any()
    assert (draw(darkroom) == plain).all()


@pytest.mark.parametrize("model", ["fp8", "Q8_0"])
def test_weights_that_stay_small_draw_as_the_dense_ones(darkroom: Darkroom, loras: Path, model: str) -> None:
    own = draw(darkroom, model=model)
    assert (own == draw(darkroom, model=f"{model}-twin")).all()
    beside = draw(darkroom, model=model, loras="kohya:0.8")
    assert abs(beside - own).max() > LEVELS
    assert abs(beside - draw(darkroom, model=f"{model}-twin", loras="kohya:0.8")).max() <= LEVELS


def test_t5s_configuration_and_its_names_of_gguf(stock: dict[str, Any], darkroom: Darkroom, data: Path, plain: np.ndarray) -> None:  # fmt: skip # noqa: E501
    own = {key: value for key, value in text_states(stock, "", "").items() if not key.startswith("text_")}
    found = t5.config({key: tuple(value.shape) for key, value in own.items()}, "")
    known = stock["text_encoder_2"].config
    assert T5.keys() - {"tie_word_embeddings"} <= found.keys()
    assert all(getattr(known, name) == value for name, value in found.items())
    (data / "models/text_encoders/t5xxl.safetensors").unlink()
    inner = ("attn_norm", "attn_q", "attn_k", "attn_v", "attn_o", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down")
    theirs = [f"enc.blk.{number}.{name}.weight" for number in range(T5["num_layers"]) for name in inner]
    theirs += ["token_embd.weight", "enc.output_norm.weight", "enc.blk.0.attn_rel_b.weight"]
    renamed = {name: own[ours] for name, ours in transformers_names("t5encoder", theirs).items()}
    assert len(renamed) == len(own)
    save_gguf(data / "models/text_encoders/t5xxl.gguf", renamed, "F32", "t5encoder")
    darkroom.library.reload()
    assert (draw(darkroom, model="flux1-tiny") == plain).all()


def test_names_are_those_that_diffusers_converts_from_and_files_known(stock: dict[str, Any], tmp_path: Path) -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in theirs(stock, "").items()}
    own: Any = SimpleNamespace(names="flux", guides_itself=True)
    assert flux1.TRANSFORMER.config(own, shapes, "") == TRANSFORMER
    with pytest.raises(BadFile, match="is a FLUX.1 model that is shown a picture besides"):
        check_header(Header({}, shapes | {"img_in.weight": (64, 384)}))
    from diffusers.loaders.single_file_utils import convert_flux_transformer_checkpoint_to_diffusers

    whole = published()
    empty = {name: torch.empty(shape, device="meta") for name, shape in whole.items()}
    converted = convert_flux_transformer_checkpoint_to_diffusers(empty)
    known = read_checkpoint(write_published(tmp_path / "x.safetensors", whole, sparse=True))
    assert (known.family, known.context_width, known.guides_itself) == ("FLUX.1", 4096, True)
    assert known.missing_parts == ("text_encoder", "text_encoder_2", "vae")
    assert sum(tensor.numel() for tensor in converted.values()) == 11_901_408_320


@pytest.mark.slow
def test_it_draws_the_same_where_its_blocks_come_to_the_device_one_by_one(data: Path, plain: np.ndarray) -> None:
    settings = Settings(device="cpu", dtype="float32", data_dir=data, memory="blocks")
    assert (draw(Darkroom(settings)) == plain).all()


def test_published_text_encoders_are_known_by_their_headers() -> None:
    wide = T5 | {"d_model": 4096, "d_kv": 64, "d_ff": 10_240, "num_layers": 24, "num_heads": 64}
    own = {name: tuple(part.shape) for name, part in build_empty(lambda: t5.make(wide)).named_parameters()}
    xxl = {f"encoder.{name}".replace("encoder.embed_tokens", "shared"): shape for name, shape in own.items()}
    for shapes in (xxl, {f"text_encoders.t5xxl.transformer.{name}": shape for name, shape in xxl.items()}):
        found = part_of(Header({}, shapes))
        assert found and (found.family, found.parts, found.context_width) == ("T5", ("text_encoder_2",), 4096)
        config = t5.config(shapes, found.prefix_of("text_encoder_2"))
        assert {name: config[name] for name in wide.keys() & config.keys()} == {
            name: wide[name] for name in wide.keys() & config.keys()
        }
    umt5 = xxl | {"shared.weight": (256_384, 4096)}
    assert part_of(Header({}, umt5)) is None


def test_what_is_missing_or_does_not_fit_is_said(stock: dict[str, Any], tmp_path: Path, darkroom: Darkroom, loras: Path) -> None:  # fmt: skip # noqa: E501
    models = tmp_path / "models"
    save_apart(models, stock)
    bare = Darkroom(Settings(device="cpu", data_dir=tmp_path))
    for file, wanted in (
        ("text_encoders/clip_l", r"no text encoder; it needs CLIP-L \(clip_l.safetensors\) in models/text_encoders"),
        ("text_encoders/t5xxl", r"no second text encoder; it needs T5-XXL .* in models/text_encoders"),
        ("VAE/ae", r"no VAE; it needs FLUX.1's .*ae.safetensors\) in models/VAE"),
    ):
        path = models / f"{file}.safetensors"
        path.rename(path.with_suffix(".off"))
        bare.library.reload()
        with pytest.raises(RequestError, match=f"flux1-tiny.safetensors has {wanted}"):
            draw(bare, model="flux1-tiny")
        path.with_suffix(".off").rename(path)
    key = "lora_unet_single_blocks_0_linear1"
    ends = {f"{key}.lora_down.weight": torch.zeros(2, 64), f"{key}.lora_up.weight": torch.zeros(9 * 64, 2)}
    save_file(ends, loras / "flux2.safetensors")
    darkroom.library.reload()
    with pytest.raises(RequestError, match="flux2.* changes 576 rows of several layers in one, where .* have 448"):
        draw(darkroom, loras="flux2:1")
    with pytest.raises(RequestError, match="clip_skip: FLUX.1, as 'folder' is, has no clip skip"):
        draw(darkroom, clip_skip=2)


def test_the_command_line_draws_and_verifies(
    data: Path, darkroom: Darkroom, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from webui.cli import main

    monkeypatch.setenv("WEBUI_DEVICE", "cpu")
    where = ["--data-dir", str(data), "--dtype", "float32"]
    asked = ["--prompt", "a (red:1.2) apple", "--width", "64", "--height", "64", "--steps", "2", "--guidance", "5"]
    assert main(["generate", *where, *asked, "--model", "bare", "--seed", "5"]) == 0
    (drawn,) = data.rglob("outputs/txt2img/*/*.png")
    assert main(["verify", *where, str(drawn)]) == 0
    assert "identical" in capsys.readouterr().out
