"""Names people see -> files on disk."""

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from webui.core.allowance import Allowance
from webui.core.errors import RequestError
from webui.core.files import LoraFile
from webui.core.kinds.parts import QWEN_WORDS
from webui.core.names import choose_file, choose_lora, find_file
from webui.core.request import LoraRef
from webui.core.settings import Settings
from webui.core.weight_files import stamp
from webui.library.library import DEMO_MODEL, Library, find_embeddings, find_loras, find_models, find_vaes
from webui.library.lora_info import describe

UNET = {
    "conv_in.weight": (1, 4, 1, 1),
    "down_blocks.0.attentions.0.proj_in.weight": (1, 1, 1, 1),
    "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight": (1, 768),
}


def tensor_file(shapes: dict[str, tuple[int, ...]], weights: bytes) -> bytes:
    """A safetensors file of zeros in these shapes, and one tensor more that is ``weights``."""
    header, end = {}, 0
    for name, shape in shapes.items():
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end := end + 4 * math.prod(shape)]}
    header["w"] = {"dtype": "U8", "shape": [len(weights)], "data_offsets": [end, end + len(weights)]}
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(end) + weights


def make_model(folder: Path, sample_size: object = 64, blocks: object = (1, 2, 3, 4), weights: bytes = b"w") -> Path:
    """A diffusers folder that says what it is, with weights that nobody loads."""
    configs = {"unet": {"sample_size": sample_size}, "vae": {"block_out_channels": blocks}, "text_encoder": {}}
    for part, config in configs.items():
        (folder / part).mkdir(parents=True)
        (folder / part / "config.json").write_text(json.dumps(config), "utf-8")
        file = folder / part / "diffusion_pytorch_model.safetensors"
        file.write_bytes(tensor_file(UNET if part == "unet" else {}, weights))
    (folder / "scheduler").mkdir()
    (folder / "scheduler/scheduler_config.json").write_text("{}", "utf-8")
    (folder / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}', "utf-8")
    return folder


def test_the_embedded_model_is_always_there_and_first(settings):
    models = find_models(settings)
    assert next(iter(models)) == "demo"
    assert models["demo"].path == DEMO_MODEL and models["demo"].native_px % 8 == 0


def test_a1111_and_comfyui_trees_are_both_recognised(tmp_path):
    make_model(tmp_path / "data/models/Stable-diffusion/mine")
    make_model(tmp_path / "a1111/models/Stable-diffusion/photo v1.5")
    make_model(tmp_path / "comfy/models/checkpoints/paint")
    make_model(tmp_path / "models-only/checkpoints/ink")
    make_model(tmp_path / "models-only/Stable-diffusion/chalk")
    trees = tuple(tmp_path / name for name in ("a1111", "comfy", "models-only", "not there"))
    models = find_models(Settings(data_dir=tmp_path / "data", models_dir=trees))
    assert set(models) == {"demo", "mine", "photo v1.5", "paint", "ink", "chalk"}
    assert models["paint"].path == tmp_path / "comfy/models/checkpoints/paint"


def test_of_two_with_one_name_the_first_has_it(tmp_path):
    mine = make_model(tmp_path / "data/models/Stable-diffusion/same")
    make_model(tmp_path / "other/models/checkpoints/same")
    make_model(tmp_path / "other/models/checkpoints/demo")
    models = find_models(Settings(data_dir=tmp_path / "data", models_dir=(tmp_path / "other",)))
    assert models["same"].path == mine
    assert models["demo"].path == DEMO_MODEL
    assert {"checkpoints/same", "checkpoints/demo"} < set(models), "the others are told apart by their folder"


@pytest.mark.parametrize(
    ("sample_size", "blocks", "native_px"), [(64, [1] * 4, 512), (96, [1] * 4, 768), (32, [1] * 3, 128)]
)
def test_the_native_size_is_the_unet_s_times_what_the_autoencoder_shrinks(tmp_path, sample_size, blocks, native_px):
    make_model(tmp_path / "models/checkpoints/m", sample_size, blocks)
    assert find_models(Settings(data_dir=tmp_path))["m"].native_px == native_px


def test_hidden_folders_and_loose_files_are_no_models(tmp_path):
    checkpoints = tmp_path / "models/checkpoints"
    make_model(checkpoints / ".downloading")
    make_model(checkpoints / "good")
    (checkpoints / "empty").mkdir()
    (checkpoints / "notes.txt").write_text("x")
    (checkpoints / "half").mkdir()
    (checkpoints / "half/model_index.json").write_text("{}")
    models = find_models(Settings(data_dir=tmp_path))
    assert set(models) == {"demo", "good", "half"}
    assert models["half"].checkpoint is None
    assert models["half"].problem == "has no unet/config.json that can be read"


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '"x"', "{}", '{"sample_size": null}', '{"sample_size": "big"}', '{"sample_size": [64, 64]}']
    + ['{"sample_size": 1e999}', '{"sample_size": NaN}', '{"sample_size": 0}', '{"sample_size": -8}', "\xff\xfe"],
)
def test_a_model_whose_config_is_broken_says_so_and_hides_no_other(tmp_path, text):
    broken = make_model(tmp_path / "models/checkpoints/broken")
    (broken / "unet/config.json").write_bytes(text.encode("latin-1"))
    make_model(tmp_path / "models/checkpoints/good")
    models = find_models(Settings(data_dir=tmp_path))
    assert set(models) == {"demo", "good", "broken"}
    assert models["good"].checkpoint and models["broken"].checkpoint is None
    assert models["broken"].problem in (
        "has no unet/config.json that can be read",
        "does not say its native size",
    )


def test_models_on_disk_now_are_found_without_a_restart(settings):
    assert set(find_models(settings)) == {"demo"}
    make_model(settings.data_dir / "models/Stable-diffusion/new")
    assert set(find_models(settings)) == {"demo", "new"}


def test_the_embedded_model_is_read_again_when_it_was_replaced(settings, tmp_path, monkeypatch):
    folder = make_model(tmp_path / "demo")
    monkeypatch.setattr("webui.library.library.DEMO_MODEL", folder)
    library = Library(settings)
    before = library.snapshot(max_age_s=0).models["demo"].stamp
    (folder / "vae/diffusion_pytorch_model.safetensors").write_bytes(tensor_file({}, b"others"))
    assert before != library.snapshot(max_age_s=0).models["demo"].stamp == stamp(folder)


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "demo/../demo", "demo\0", "C:\\x"])
def test_a_model_name_is_never_a_path(settings, name):
    with pytest.raises(RequestError, match="There is no "):
        choose_file("model", name, find_models(settings))


# ---- LoRAs ----


def make_lora(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    return path


@pytest.fixture
def own_loras(tmp_path):
    """``own_loras()``: the LoRAs found in a data folder and two trees, without the embedded ones."""
    settings = Settings(data_dir=tmp_path / "data", models_dir=(tmp_path / "a1111", tmp_path / "comfy"))

    def find() -> dict[str, Path]:
        found = find_loras(settings)
        assert all(found[name].name == name for name in found)
        return {name: file.path for name, file in found.items() if DEMO_MODEL not in file.path.parents}

    return find


def test_loras_are_found_in_both_layouts_and_below(tmp_path, own_loras):
    files = [
        "data/models/Lora/mine.safetensors",
        "a1111/models/Lora/chalk.safetensors",
        "a1111/models/Lora/styles/old/ink v1.5.safetensors",
        "a1111/models/LyCORIS/loha.safetensors",
        "comfy/models/loras/paint.SAFETENSORS",
        "comfy/loras/sub/oil.safetensors",
        "comfy/models/loras/old.ckpt",
    ]
    expected = {Path(file).stem: make_lora(tmp_path / file) for file in files}
    assert own_loras() == expected


def test_hidden_half_downloaded_and_other_files_are_no_loras(tmp_path, own_loras):
    folder = tmp_path / "comfy/models/loras"
    good = make_lora(folder / "good.safetensors")
    for name in (".hidden.safetensors", ".cache/x.safetensors", "x.safetensors.part", "x.part", "x.png", "x.json"):
        make_lora(folder / name)
    make_lora(folder / "folder.safetensors/inside.txt")
    make_lora(tmp_path / "comfy/models/vae/vae.safetensors")
    assert own_loras() == {"good": good}


def test_further_loras_of_one_name_are_called_by_their_folder_too(tmp_path, own_loras):
    first = make_lora(tmp_path / "a1111/models/Lora/same.safetensors")
    second = make_lora(tmp_path / "a1111/models/Lora/sub/same.safetensors")
    third = make_lora(tmp_path / "comfy/models/loras/same.safetensors")
    fourth = make_lora(tmp_path / "comfy/models/loras/sub/same.safetensors")
    assert own_loras() == {"same": first, "sub/same": second, "loras/same": third, "loras/sub/same": fourth}


@pytest.mark.parametrize(
    ("find", "folder", "first"),
    [
        (find_loras, "Lora", "inkx"),
        (find_vaes, "VAE", "inkx"),
        (find_embeddings, "embeddings", "inkx"),
        (find_models, "Stable-diffusion", "inkx"),
    ],
)
def test_every_file_has_a_name_and_is_found_by_where_it_lies(tmp_path, find, folder, first):
    top = tmp_path / ("" if folder == "embeddings" else "models") / folder
    paths = [make_lora(top / f"{name}/styles/inkx.safetensors") for name in ("Pony", "SD15", "SDXL")]
    files = find(Settings(data_dir=tmp_path))
    names = ["inkx", "styles/inkx", "SDXL/styles/inkx"]
    assert [files[name].path for name in names] == paths
    forms = ("{}/styles/inkx", "{}\\styles\\INKX", "{}/styles/inkx.safetensors", folder + "/{}/styles/inkx")
    for name, place in zip(names, ("Pony", "SD15", "SDXL"), strict=True):
        assert {find_file(form.format(place), files) for form in forms} == {name}


def test_a_name_that_several_files_could_have_is_told_with_the_file_that_has_it(tmp_path):
    for name in ("Pony", "SD15", "SDXL"):
        make_lora(tmp_path / f"models/Lora/{name}/styles/inkx.safetensors")
    make_lora(tmp_path / "models/Lora/only.safetensors")
    files = find_loras(Settings(data_dir=tmp_path))
    assert files["inkx"].ambiguity == (
        "3 files are called “inkx”: Lora/Pony/styles/inkx was used, not styles/inkx and SDXL/styles/inkx."
    )
    assert "SD15/styles/inkx was used" in files["styles/inkx"].ambiguity
    assert files["SDXL/styles/inkx"].ambiguity == files["only"].ambiguity == ""


def test_a_pickle_leaves_its_name_to_a_file_that_can_be_used(tmp_path):
    folder = tmp_path / "embeddings"
    paths = [make_lora(folder / name) for name in ("both.bin", "both.safetensors", "sub/both.pt", "old.pt")]
    files = find_embeddings(Settings(data_dir=tmp_path))
    assert {name: file.path for name, file in files.items()} == {
        "both": paths[1],
        "both.bin": paths[0],
        "sub/both": paths[2],
        "old": paths[3],
    }
    assert files["both"].ambiguity == ""


def test_a_model_that_cannot_be_used_leaves_its_name_to_one_that_can(tmp_path):
    make_lora(tmp_path / "models/Stable-diffusion/a/same.safetensors")
    good = make_model(tmp_path / "models/Stable-diffusion/b/same")
    models = find_models(Settings(data_dir=tmp_path))
    assert models["same"].path == good and models["a/same"].problem


def test_a_folder_under_two_names_is_walked_once(tmp_path, own_loras):
    """As on disks that do not tell ``vae`` from ``VAE``, or where one tree links to another's folder."""
    lora = make_lora(tmp_path / "a1111/models/Lora/x.safetensors")
    (tmp_path / "comfy/models").mkdir(parents=True)
    (tmp_path / "comfy/models/loras").symlink_to(lora.parent)
    assert own_loras() == {"x": lora}


def test_links_are_followed_and_loops_end(tmp_path, own_loras):
    elsewhere = make_lora(tmp_path / "disk/linked.safetensors")
    folder = tmp_path / "a1111/models/Lora"
    own = make_lora(folder / "own.safetensors")
    (folder / "disk").symlink_to(elsewhere.parent)
    (folder / "up").symlink_to(folder)
    (elsewhere.parent / "back").symlink_to(folder)
    (folder / "alone.safetensors").symlink_to(elsewhere)
    assert own_loras() == {
        "own": own,
        "linked": folder / "disk/linked.safetensors",
        "alone": folder / "alone.safetensors",
    }


@pytest.mark.parametrize(
    "name",
    ["a b", "💥", "<script>alert(1)<%2Fscript>", "'\"`$(id)", "-rf", "a:b", "x\ny", "C:\\x", "%00", "..\\x", "ä" * 100],
)
def test_a_lora_of_any_name_is_found_chosen_and_described(tmp_path, own_loras, name):
    path = make_lora(tmp_path / "a1111/models/Lora/x" / f"_{name}.safetensors")
    found = own_loras()
    assert found == {f"_{name}": path}
    files = {f"_{name}": LoraFile(f"_{name}", path, place=f"x/_{name}")}
    assert choose_lora(LoraRef.model_validate({"name": f"_{name}"}).name, files) == f"_{name}"
    assert "is not a safetensors file, whatever its name says" in describe(LoraFile(name, path)).problem


@pytest.mark.parametrize(
    "name",
    ["../secret", "../../secret", "/secret", "Lora/../../secret", "good/../../secret", "secret\0", "./good", "~"],
)
def test_a_lora_s_name_is_never_a_path(tmp_path, own_loras, name):
    make_lora(tmp_path / "a1111/models/Lora/good.safetensors")
    make_lora(tmp_path / "a1111/models/secret.safetensors")
    make_lora(tmp_path / "secret.safetensors")
    with pytest.raises(RequestError, match="There is no "):
        choose_lora(LoraRef.model_validate({"name": name}).name, {n: LoraFile(n, p) for n, p in own_loras().items()})


def test_a_tiny_vae_is_known_by_its_tensors(tmp_path):
    folder = tmp_path / "models/VAE"
    folder.mkdir(parents=True)
    kinds = {"diffusers": "decoder.layers.0.weight", "author": "1.weight", "taesd by name": "decoder.conv_in.weight"}
    for name, key in kinds.items():
        (folder / f"{name}.safetensors").write_bytes(tensor_file({key: (1,)}, b"w"))
    (folder / "old.pt").write_bytes(b"pickle")
    vaes = find_vaes(Settings(data_dir=tmp_path))
    assert {name for name, file in vaes.items() if file.is_tiny} == {"diffusers", "author"}


def test_text_encoders_go_with_the_models_that_guests_may_use_and_are_lent_all_the_same(tmp_path):
    folder = tmp_path / "models" / "text_encoders"
    folder.mkdir(parents=True)
    words = {"embed_tokens.weight": torch.zeros(QWEN_WORDS, 1), "layers.0.self_attn.q_norm.weight": torch.zeros(1)}
    for name in ("qwen", "secret"):
        save_file(words, folder / f"{name}.safetensors")
    (folder / "broken.safetensors").write_bytes(b"no header")
    library = Library(Settings(data_dir=tmp_path))
    assert {"qwen", "secret", "broken"} <= library.snapshot().text_encoders.keys()
    guests = library.snapshot(allowed=Allowance(models=("demo", "qwen", "broken"), usable=True))
    assert list(guests.text_encoders) == ["qwen"]
    assert {"qwen", "secret"} <= guests.parts.keys()
