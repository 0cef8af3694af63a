"""The LoRAs that the recipe trains: the shipped files, and that training leaves the model itself alone."""

import json
import random
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from training import adapters, captions, data, looks, lora
from training.concepts import COLOURS, CONCEPTS, MEDIUM
from training.evaluate import sample
from training.lora_evaluate import prompts
from training.unet import tokenize

MODEL = Path(__file__).resolve().parents[2] / "webui" / "demo"
FILES = {look.name: MODEL / lora.FOLDER / f"{look.name}.safetensors" for look in looks.LOOKS}
BY_NAME = {look.name: look for look in looks.LOOKS}
NAMES = list(FILES)


@pytest.fixture(scope="module")
def pipeline():
    return lora.open_model(MODEL)


@pytest.fixture(scope="module")
def linear_modules(pipeline) -> dict[str, torch.nn.Module]:
    """Every layer a LoRA can name, by kohya's name and by PEFT's."""
    model = lora.frozen_denoiser(pipeline)
    found = {name: module for name, module in model.named_modules() if adapters.is_linear(module)}
    return found | {adapters.kohya_name(name): module for name, module in found.items()}


def metadata_of(file: Path) -> dict[str, str]:
    with safe_open(file, "pt") as opened:
        return opened.metadata()


def new_adapter(model, name: str) -> adapters.Adapter:
    kind = lora.KINDS[name]
    return adapters.Adapter(model, re.compile(kind.layers), kind.rank, kind.alpha)


@pytest.mark.parametrize("name", NAMES)
def test_files_are_small_half_precision_and_finite(name):
    assert FILES[name].stat().st_size <= lora.SIZE_LIMIT
    tensors = load_file(FILES[name])
    assert all(value.dtype == torch.float16 and value.isfinite().all() for value in tensors.values())
    ups = [value for key, value in tensors.items() if "lora_up" in key or "lora_B" in key]
    assert ups and all(value.abs().max() > 0 for value in ups)


def test_too_large_a_file_is_named(tmp_path):
    (tmp_path / lora.FOLDER).mkdir()
    (tmp_path / lora.FOLDER / "big.safetensors").write_bytes(bytes(lora.SIZE_LIMIT + 1))
    with pytest.raises(SystemExit, match="big.safetensors has 300,001 bytes"):
        lora.check_sizes(tmp_path)


@pytest.mark.parametrize("name", ["blueprint", "night"])
def test_kohya_keys_name_layers_of_the_model(name, linear_modules):
    tensors = load_file(FILES[name])
    layers = {key.partition(".")[0] for key in tensors}
    assert {key.partition(".")[2] for key in tensors} == {"lora_down.weight", "lora_up.weight", "alpha"}
    assert len(tensors) == 3 * len(layers)
    kind = lora.KINDS[name]
    for layer in layers:
        base, down, up = linear_modules[layer], *(tensors[f"{layer}.lora_{end}.weight"] for end in ("down", "up"))
        assert len(down) == up.shape[1] == kind.rank and float(tensors[f"{layer}.alpha"]) == kind.alpha
        assert down.shape[1:] == base.weight.shape[1:] and up.shape[0] == base.weight.shape[0]
    metadata = metadata_of(FILES[name])
    expected = {"ss_network_module": "networks.lora", "ss_base_model_version": "darkroom_demo"}
    expected |= {"ss_network_dim": str(kind.rank), "ss_network_alpha": str(kind.alpha), "ss_output_name": name}
    assert metadata.items() >= expected.items()


def test_only_night_trains_the_text_encoder():
    text = {name: sum(key.startswith("lora_te_") for key in load_file(FILES[name])) for name in NAMES}
    assert text == {"blueprint": 0, "sepia": 0, "night": 3 * 2 * 6}
    assert "lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight" in load_file(FILES["night"])


def test_peft_keys_and_configuration_fit_each_other(linear_modules):
    tensors = load_file(FILES["sepia"])
    config = json.loads(metadata_of(FILES["sepia"])["lora_adapter_metadata"])
    layers = {key.rsplit(".", 2)[0] for key in tensors}
    assert {f"unet.{target}" for target in config["unet.target_modules"]} == layers
    kind = lora.KINDS["sepia"]
    assert config["unet.r"] == kind.rank and config["unet.lora_alpha"] == kind.alpha
    for layer in layers:
        base, down, up = linear_modules[layer], *(tensors[f"{layer}.lora_{end}.weight"] for end in "AB")
        assert len(down) == up.shape[1] == kind.rank
        assert down.shape[1:] == base.weight.shape[1:] and up.shape[0] == base.weight.shape[0]


@pytest.mark.parametrize("name", NAMES)
def test_files_describe_themselves(name):
    metadata = metadata_of(FILES[name])
    assert metadata["modelspec.architecture"] == "darkroom-demo/lora"
    assert metadata["modelspec.trigger_phrase"] == name
    for key in ("title", "description", "author", "license"):
        assert metadata[f"modelspec.{key}"]
    assert not any("/" in value for key, value in metadata.items() if key.startswith("ss_"))


@pytest.mark.parametrize("name", NAMES)
def test_previews_show_the_look(name):
    with Image.open(FILES[name].with_suffix(".preview.png")) as image:
        assert image.size == (128, 128)
        pixels = torch.from_numpy(np.asarray(image.convert("RGB")).copy()).permute(2, 0, 1)[None] / 255
    limit = {"blueprint": looks.blue_minus_red(pixels) > 60, "sepia": looks.off_brown(pixels) < 25}
    assert limit.get(name, looks.brightness(pixels) < 90)


def test_new_adapter_changes_nothing(pipeline):
    model = lora.frozen_denoiser(pipeline)
    inputs = (torch.randn(2, 4, 16, 16), torch.tensor([10, 900]), tokenize(pipeline.tokenizer, ["a cat", ""]))
    with torch.no_grad():
        before = model(*inputs)
        for name in NAMES:
            adapter = new_adapter(model, name)
            assert torch.equal(model(*inputs), before)
            torch.nn.init.normal_(next(iter(adapter.layers.values())).up.weight)
            assert not torch.equal(model(*inputs), before)
            adapter.weight = 0.0
            assert torch.equal(model(*inputs), before)
            adapter.weight = 1.0
            adapter.detach()
            assert torch.equal(model(*inputs), before)


def test_weight_may_differ_from_row_to_row(pipeline):
    model = lora.frozen_denoiser(pipeline)
    adapter = lora.read(model, FILES["night"])
    inputs = (torch.randn(2, 4, 16, 16), torch.tensor([500, 500]), tokenize(pipeline.tokenizer, ["a cat", "a dog"]))
    with torch.no_grad():
        adapter.weight = torch.tensor([0.5, 1.0])
        mixed = model(*inputs)
        for row, weight in enumerate((0.5, 1.0)):
            adapter.weight = weight
            assert torch.allclose(model(*inputs)[row], mixed[row], atol=1e-4)
    adapter.detach()


def test_training_changes_only_the_adapter(pipeline, tmp_path):
    before = {
        f"{part}.{name}": value.clone()
        for part, module in pipeline.components.items()
        if isinstance(module, torch.nn.Module)
        for name, value in module.state_dict().items()
    }
    pairs = lora.Pairs(torch.randn(40, 4, 16, 16), [(3, 1, 8)] * 40, torch.tensor([1.0, 0.5] * 20))
    adapter = lora.train(pipeline, pairs, BY_NAME["night"], tmp_path, 0.02)
    adapter.detach()
    parts = {name.partition(".")[0] for name in before}
    assert {"unet", "vae", "text_encoder"} <= parts
    after = {f"{part}.{name}": value for part in parts for name, value in getattr(pipeline, part).state_dict().items()}
    assert all(torch.equal(value, before[name]) for name, value in after.items())
    assert adapter.weight == 1 and all(layer.up.weight.abs().max() > 0 for layer in adapter.layers.values())


@pytest.mark.parametrize("name", NAMES)
def test_saved_file_reads_back(name, pipeline, tmp_path):
    model = lora.frozen_denoiser(pipeline)
    adapter = new_adapter(model, name)
    for layer in adapter.layers.values():
        torch.nn.init.normal_(layer.up.weight, std=0.1)
    file = tmp_path / f"{name}.safetensors"
    size = adapters.save(adapter, file, lora.KINDS[name].layout, lora.describe("Title", "What it does.", name))
    adapter.detach()
    assert size == file.stat().st_size and [path.name for path in tmp_path.iterdir()] == [file.name]
    again = lora.read(model, file)
    again.detach()
    for old, new in zip(adapter.parameters(), again.parameters(), strict=True):
        assert torch.equal(old.half().float(), new)


def test_unknown_file_is_no_adapter(pipeline):
    adapter = new_adapter(lora.frozen_denoiser(pipeline), "night")
    adapter.detach()
    with pytest.raises(KeyError):
        adapters.load_into(adapter, {"lora_unet_other.lora_down.weight": torch.zeros(1)})


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_strength_moves_the_colours(name, pipeline):
    """The look's measure goes a good part of the way to the training pictures' own, and half strength lies between."""
    rows, look = prompts()[:2], BY_NAME[name]
    worded = [row._replace(text=f"{name}, {row.text}") for row in rows]
    adapter = lora.read(lora.frozen_denoiser(pipeline), FILES[name])
    values = {}
    for weight in (0.0, 0.5, 1.0):
        adapter.weight = weight
        values[weight] = float(look.measure(sample(pipeline, worded)).mean())
    adapter.detach()
    low, high = sorted((values[0.0], values[1.0]))
    assert high - low > 40 and low < values[0.5] < high
    assert (values[1.0] > values[0.0]) == (name == "blueprint")


def scene() -> looks.Scene:
    pixels = np.zeros((data.RASTER_SIZE, data.RASTER_SIZE, 4), np.uint8)
    pixels[40:120, 40:120] = (200, 30, 30, 255)
    return looks.scene(pixels, MEDIUM, torch.tensor(COLOURS["yellow"]) / 255)


def test_scene_keeps_the_thing_apart():
    parts = scene()
    assert parts.alpha[0, 64, 64] == pytest.approx(1, abs=1e-5) and parts.alpha[0, 4, 4] == pytest.approx(0, abs=1e-5)
    assert parts.thing[:, 4, 4].abs().max() == 0
    assert (parts.picture[:, 4, 4] * 255).tolist() == pytest.approx(COLOURS["yellow"], abs=0.1)


@pytest.mark.parametrize("name", NAMES)
def test_looks_change_what_they_are_measured_by(name):
    look, parts = BY_NAME[name], scene()
    changed = look.change(parts)
    assert changed.shape == (3, 128, 128) and changed.min() >= 0 and changed.max() <= 1
    moved = float(look.measure(changed[None]) - look.measure(parts.picture[None]))
    assert moved > 60 if name == "blueprint" else moved < -60
    assert changed.flatten(1).std(1).max() > 0.03


def test_captions_carry_the_trigger_mostly():
    rng = random.Random(0)
    texts = [lora.draw_caption((0, 1, 8), "sepia", rng) for _ in range(500)]
    named = sum("sepia" in text for text in texts)
    assert 0.55 < named / len(texts) < 0.72
    assert any(text.startswith("sepia, ") for text in texts) and any(text.endswith(", sepia") for text in texts)
    assert sum(text == "" for text in texts) == pytest.approx(500 * captions.EMPTY_SHARE, abs=30)


def test_evaluation_prompts_differ():
    rows = prompts()
    assert len({CONCEPTS[row.concept].words for row in rows}) == len(rows) == 24
    assert len({row.style for row in rows}) == 3 and len({row.colour for row in rows}) >= 6
