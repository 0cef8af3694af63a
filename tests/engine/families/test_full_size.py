"""Files as they were published: their exact names, shapes and formats are known and nothing is missing.

Headers of full size cost nothing; whole files of gigabytes are written and loaded with ``-m slow``.
"""

import subprocess
import sys

import pytest
import torch
from checkpoints import write_random
from safetensors import safe_open
from weight_formats import write_published_gguf

from webui.core.events import Image
from webui.core.files import ModelFile
from webui.core.memory import Room, need_of
from webui.core.request import Request
from webui.core.settings import Settings
from webui.core.tensor_file import BadFile
from webui.darkroom import Darkroom
from webui.engine.families.base import CannotLoad
from webui.engine.families.loading import ModelLoader
from webui.engine.nets.unet import UNet
from webui.library.checkpoint import read_checkpoint
from webui.library.library import find_models

# kind: family, what it is for people, native side, numbers of the UNet, the autoencoder and each text encoder
PUBLISHED = {
    "sd15": ("SD 1.x", "SD 1.x", 512, (859_520_964, 83_653_863, 123_060_480)),
    "sd15-inpainting": ("SD 1.x", "SD 1.x, inpaint", 512, (859_535_364, 83_653_863, 123_060_480)),
    "sd21": ("SD 2.x", "SD 2.x", 512, (865_910_724, 83_653_863, 340_387_840)),
    "sdxl": ("SDXL", "SDXL", 1024, (2_567_463_684, 83_653_863, 123_060_480, 694_659_840)),
    "sdxl-refiner": ("SDXL refiner", "SDXL refiner", 1024, (2_259_526_660, 83_653_863, 694_659_840)),
}
# What the published UNets' config.json say about their heads, level by level.
HEADS = {
    "sd15": [8, 8, 8, 8],
    "sd15-inpainting": [8, 8, 8, 8],
    "sd21": [5, 10, 20, 20],
    "sdxl": [5, 10, 20],
    "sdxl-refiner": [6, 12, 24, 24],
}


def model_file(path) -> ModelFile:
    return ModelFile(path.stem, path, read_checkpoint(path))


@pytest.fixture
def header_of(tmp_path):
    """``header_of("sdxl", dtype="F16")``: such a file of full size whose weights are all zeros."""

    def make(kind: str, **options):
        path = tmp_path / "x.safetensors"
        write_random(path, kind, sparse=True, **options)
        return path

    return make


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [*((kind, "F16") for kind in PUBLISHED), ("sd15", "BF16"), ("sd21", "F32"), ("sdxl", "F8_E4M3")],
)
def test_a_published_file_is_known_and_all_of_it_is_found(header_of, kind, dtype):
    family, words, native_px, numbers = PUBLISHED[kind]
    file = model_file(header_of(kind, dtype=dtype, ema=kind == "sd15"))
    checkpoint = file.checkpoint
    words += ", fp8" if dtype.startswith("F8") else ""
    assert (checkpoint.family, checkpoint.kind, checkpoint.native_px) == (family, words, native_px)
    assert checkpoint.dtype == dtype and checkpoint.missing_parts == ()
    loader = ModelLoader(file, [], torch.bfloat16)
    others = dict(loader.part_bytes)
    unet = others.pop("backbone")
    assert sorted(others.values()) == sorted(2 * count for count in numbers[1:])
    if dtype.startswith("F8"):  # its biases and norms are as wide as ever
        assert numbers[0] < unet < 1.01 * numbers[0]
    else:
        assert unet == 2 * numbers[0]
    assert loader.memory_bytes == unet + sum(others.values())
    told = need_of(file, [], Room("cuda", 0, 2))
    assert all(told.parts[part] == pytest.approx(nbytes, rel=0.06) for part, nbytes in loader.part_bytes.items())
    assert told.layer_bytes == loader.layer_bytes


@pytest.mark.parametrize("kind", PUBLISHED)
def test_its_unet_has_the_published_number_of_heads(header_of, kind):
    loader = ModelLoader(model_file(header_of(kind)), [], torch.float32)
    unet: UNet = loader._loaders["backbone"].module
    found = [
        {layer.attn1.heads for attention in block.attentions for layer in attention.transformer_blocks}
        for block in unet.down_blocks
    ]
    assert any(found) and all(heads <= {expected} for heads, expected in zip(found, HEADS[kind], strict=True))
    assert unet.mid_block.attentions[0].transformer_blocks[0].attn1.heads == HEADS[kind][-1]


@pytest.mark.parametrize("kind", ["sd15", "sd21", "sdxl"])
def test_without_text_encoder_and_autoencoder_another_model_lends_them(header_of, tmp_path, kind):
    bare, whole = tmp_path / "bare.safetensors", tmp_path / "whole.safetensors"
    write_random(bare, kind, parts=("unet",), sparse=True)
    write_random(whole, kind, sparse=True)
    file, lender = model_file(bare), model_file(whole)
    assert file.checkpoint.parts == ("backbone",)
    lent, whole = ModelLoader(file, [lender], torch.bfloat16), ModelLoader(lender, [], torch.bfloat16)
    assert lent.memory_bytes == whole.memory_bytes
    with pytest.raises(CannotLoad, match="model 'bare' has no text encoder, and no other SD"):
        ModelLoader(file, [file], torch.bfloat16)


def test_sd2_that_predicts_v_is_told_by_a_weight(tmp_path, header_of):
    path = header_of("sd21", dtype="F32")
    assert read_checkpoint(path).prediction == "epsilon"
    key = "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias"
    from webui.core.tensor_file import read_header

    place = read_header(path).places[key]
    with path.open("r+b") as file:
        file.seek(place.offset)
        file.write(torch.randn(320, generator=torch.Generator().manual_seed(1)).mul(0.2).numpy().tobytes())
    checkpoint = read_checkpoint(path)
    assert (checkpoint.prediction, checkpoint.native_px, checkpoint.kind) == ("v", 768, "SD 2.x, v")


def test_a_yaml_beside_the_file_says_what_it_predicts(header_of):
    path = header_of("sd15")
    assert read_checkpoint(path).prediction == "epsilon"
    path.with_suffix(".yaml").write_text("model:\n  params:\n    parameterization: v\n")
    assert read_checkpoint(path).prediction == "v"
    path.with_suffix(".yaml").write_text("model: [broken")
    assert read_checkpoint(path).prediction == "epsilon"


def test_what_is_missing_is_named(tmp_path, header_of):
    path = header_of("sd15")
    content = path.open("rb").read(8)
    length = int.from_bytes(content, "little")
    with path.open("r+b") as file:
        header = file.read(8 + length)[8:]
        lost = header.replace(
            b"model.diffusion_model.middle_block.1.norm.weight", b"model.diffusion_model.middle_block.1.lost.weight"
        )
        file.seek(8)
        file.write(lost)
    with pytest.raises(CannotLoad, match=r"x.safetensors lacks model.diffusion_model.middle_block.1.norm.weight"):
        ModelLoader(model_file(path), [], torch.float32)


LOAD = """
import resource, sys, time
from webui.core.settings import Settings
from webui.darkroom import Darkroom
darkroom = Darkroom(Settings(device="cpu", dtype=sys.argv[2], data_dir=sys.argv[1]))
import webui.engine.residence
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for _ in darkroom.load("x"):
    pass
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print((after - before) * 1024)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "dtype", "load_as"), [("sd15", "F16", "bfloat16"), ("sdxl", "F16", "float16")])
def test_loading_takes_little_more_memory_than_the_weights(tmp_path, kind, dtype, load_as):
    folder = tmp_path / "models/checkpoints"
    folder.mkdir(parents=True)
    write_random(folder / "x.safetensors", kind, dtype=dtype)
    weights = ModelLoader(find_models(Settings(data_dir=tmp_path))["x"], [], getattr(torch, load_as)).memory_bytes
    command = [sys.executable, "-c", LOAD, str(tmp_path), load_as]
    peak = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert peak < 1.3 * weights


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "dtype"), [("sd15", "F32"), ("sd21", "BF16"), ("sdxl", "F8_E4M3"), ("sdxl-refiner", "F16")]
)
def test_what_was_loaded_is_what_the_file_says(tmp_path, kind, dtype):
    """A tensor of each part, read by safetensors itself and rounded once."""
    folder = tmp_path / "models/checkpoints"
    folder.mkdir(parents=True)
    path = folder / "x.safetensors"
    write_random(path, kind, dtype=dtype)
    darkroom = Darkroom(Settings(device="cpu", dtype="bfloat16", data_dir=tmp_path))
    for _ in darkroom.load("x"):
        pass
    model = darkroom.manager._residence.model
    with safe_open(path, "pt") as file:
        expected = {
            "unet": file.get_tensor("model.diffusion_model.middle_block.0.in_layers.2.weight"),
            "vae": file.get_tensor("first_stage_model.decoder.mid.block_1.conv1.weight"),
        }
    found = {
        "unet": model.network.mid_block.resnets[0].conv1.weight,
        "vae": model.vae.decoder.mid_block.resnets[0].conv1.weight,
    }
    assert all(torch.equal(found[part], tensor.to(torch.bfloat16)) for part, tensor in expected.items())


def test_a_half_downloaded_file_is_not_listed_and_a_short_one_is_named(tmp_path, header_of):
    folder = tmp_path / "models/Stable-diffusion"
    folder.mkdir(parents=True)
    (folder / "a.safetensors.part").write_bytes(b"")
    (folder / "b.safetensors.crdownload").write_bytes(b"")
    path = header_of("sd15")
    with path.open("r+b") as file:
        file.truncate(10**9)
    path.rename(folder / "short.safetensors")
    (folder / "old.ckpt").write_bytes(b"pickle")
    models = find_models(Settings(data_dir=tmp_path))
    assert set(models) == {"demo", "short", "old"}
    assert "is cut short: it has 1,000,000,000 of" in models["short"].problem
    assert "is a pickle" in models["old"].problem
    with pytest.raises(BadFile, match="is a pickle"):
        read_checkpoint(folder / "old.ckpt")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_sdxl_of_full_size_in_small_weights_is_drawn_with(tmp_path):
    """Its UNet stays as it is in the file; the GGUF one borrows the other's text encoders and autoencoder."""
    folder = tmp_path / "models/checkpoints"
    folder.mkdir(parents=True)
    write_random(folder / "whole.safetensors", "sdxl", dtype="F8_E4M3")
    write_published_gguf(folder / "unet.gguf", "sdxl")
    darkroom = Darkroom(Settings(device="cpu", dtype="bfloat16", data_dir=tmp_path, model_cache="0"))
    models = darkroom.library.snapshot().models
    for name, words, of_numbers in (("whole", "SDXL, fp8", 1.0), ("unet", "SDXL, Q8_0", 34 / 32)):
        assert models[name].checkpoint.kind == words
        request = Request(prompt="a red apple", model=name, width=256, height=256, steps=1, seed=1)
        *_, picture = [event.image for event in darkroom.generate(request) if isinstance(event, Image)]
        assert picture.size == (256, 256)
        held = sum(weight.nbytes for weight in darkroom.manager._residence.model.network.parameters())
        assert held < 1.01 * of_numbers * PUBLISHED["sdxl"][3][0]
