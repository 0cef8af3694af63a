"""Files and folders that are not what they say: refused with the file's name and the reason, before all is built."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.krea2_models import make_parts, save_apart, save_folder
from webui.core.files import ModelFile
from webui.engine.families.base import CannotLoad
from webui.engine.families.loading import ModelLoader
from webui.library.checkpoint import read_checkpoint, read_part

Tensors = dict[str, torch.Tensor]
DEEP = 2_999_999_999
SHAPES = "is damaged: its transformer has not the shapes of one"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models, parts = tmp_path_factory.mktemp("damaged"), make_parts()
    save_apart(models, parts)
    save_folder(models / "folder", parts)
    return models


def load(path: Path, models: Path) -> ModelLoader:
    lenders = [ModelFile(file.stem, file, read_part(file)) for file in models.glob("[tV]*/*.safetensors")]
    return ModelLoader(ModelFile(path.stem, path, read_checkpoint(path)), lenders, torch.float32)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda own: own | {"blocks.0.attn.qknorm.qnorm.scale": torch.zeros(0)},
            SHAPES,
        ),
        (lambda own: own | {"first.weight": torch.zeros(64)}, SHAPES),
        (
            lambda own: own | {"first.weight": torch.zeros(64, 0)},
            "has last.linear.weight in the shape",
        ),
        (lambda own: {key: own[key] for key in own if "attn.wk" not in key}, r"lacks blocks.0.attn.wk.weight"),
        (lambda own: own | {f"blocks.{DEEP}.attn.wq.weight": torch.zeros(1)}, "lacks blocks.2.mod.lin"),
    ],
)
def test_a_transformer_that_is_damaged_says_how(
    models: Path, tmp_path: Path, change: Callable[[Tensors], Tensors], reason: str
) -> None:
    own = change(load_file(models / "diffusion_models/krea2-tiny.safetensors"))
    save_file(own, tmp_path / "bad.safetensors")
    with pytest.raises(CannotLoad, match=rf"model 'bad' cannot be loaded: bad.safetensors .*({reason})"):
        load(tmp_path / "bad.safetensors", models)


def test_a_borrowed_part_is_called_by_its_own_file_and_no_network_is_built_without_end(
    models: Path, tmp_path: Path
) -> None:
    lent = tmp_path / "text_encoders/deep.safetensors"
    lent.parent.mkdir()
    (tmp_path / "VAE").symlink_to(models / "VAE")
    words = load_file(models / "text_encoders/qwen3vl_tiny.safetensors")
    save_file(words | {f"model.language_model.layers.{DEEP}.mlp.up_proj.weight": torch.zeros(1)}, lent)
    wanted = f"deep.safetensors is damaged: it says num_hidden_layers {DEEP + 1:,}, and has .* tensors"
    with pytest.raises(CannotLoad, match=wanted):
        load(models / "diffusion_models/krea2-tiny.safetensors", tmp_path)


@pytest.mark.parametrize(("place", "says"), [("transformer", "num_layers"), ("text_encoder", "num_hidden_layers")])
def test_nor_by_the_word_of_a_folder(models: Path, place: str, says: str) -> None:
    path = models / f"folder/{place}/config.json"
    whole = path.read_text()
    config: dict[str, Any] = json.loads(whole)
    (config.get("text_config") or config)[says] = DEEP
    path.write_text(json.dumps(config))
    try:
        with pytest.raises(CannotLoad, match=f"folder is damaged: it says {says} {DEEP:,}, and has .* tensors"):
            load(models / "folder", models)
    finally:
        path.write_text(whole)
