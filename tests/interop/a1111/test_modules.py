"""Forge's additional modules, in requests and in the text of pictures."""

from dataclasses import replace
from pathlib import Path

import pytest

from webui.core.catalog import Catalog
from webui.core.checkpoint import Checkpoint
from webui.core.errors import RequestError
from webui.core.files import ModelFile, VaeFile
from webui.interop.a1111.requests import Options, read_options
from webui.interop.picture_info import read_text


@pytest.fixture
def catalog() -> Catalog:
    reads = Checkpoint("Qwen3", "", ("text_encoder",), 0, 1024, 0)
    parts = {"qwen_3": ModelFile("qwen_3", Path("models/text_encoders/qwen_3.safetensors"), reads)}
    parts["vae"] = ModelFile("vae", Path("models/VAE/vae.safetensors"), replace(reads, parts=("vae",)))
    return Catalog({}, {}, {"vae": VaeFile("vae", Path("models/VAE/vae.safetensors"))}, {}, {}, text_encoders=parts)


def test_a_list_of_modules_chooses_text_encoder_and_vae_and_comes_back(catalog: Catalog) -> None:
    names = ["C:\\forge\\models\\VAE\\vae.safetensors", "/forge/models/text_encoder/qwen_3.safetensors"]
    options = read_options({"forge_additional_modules": names}, catalog, Options())
    assert options == Options(vae="vae", text_encoder="qwen_3")
    assert read_options({**options.to_json(catalog), "sd_model_checkpoint": ""}, catalog, Options()) == options
    assert read_options({"forge_additional_modules": []}, catalog, options).text_encoder == ""
    for wrong, reason in ((["gone"], "“gone” is not here"), ("qwen_3", "must be a list")):
        with pytest.raises(RequestError, match=f"forge_additional_modules.*{reason}"):
            read_options({"forge_additional_modules": wrong}, catalog, Options())


def test_modules_in_the_text_of_a_picture_are_what_is_here(catalog: Catalog) -> None:
    text = "a fox\nSteps: 20, Sampler: Euler, Seed: 5, Size: 64x64, Module 1: vae, Module 2: qwen_3, Version: f2.0"
    found = read_text(text, catalog)
    assert (found.values["vae"], found.values["text_encoder"]) == ("vae", "qwen_3")
    gone = read_text(text.replace("qwen_3", "t5xxl"), catalog)
    assert "text_encoder" not in gone.values and any("“t5xxl” is not here" in line for line in gone.unmapped)
