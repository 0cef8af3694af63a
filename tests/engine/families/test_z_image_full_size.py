"""Z-Image at full width with two blocks, in the published names, loaded and drawn with."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.anima_models import write_published
from tests.z_image_models import published
from webui.core.events import Image
from webui.core.request import Request
from webui.core.settings import Settings
from webui.darkroom import Darkroom


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_files_of_full_width_are_loaded_and_drawn_with(tmp_path: Path) -> None:
    from diffusers.loaders.single_file_utils import convert_z_image_transformer_checkpoint_to_diffusers

    shapes = published(layers=2, refiners=1, words_layers=3)
    paths = {
        name: write_published(tmp_path / "models" / name / "wide.safetensors", own) for name, own in shapes.items()
    }
    try:
        darkroom = Darkroom(Settings(device="cpu", dtype="bfloat16", data_dir=tmp_path))
        request = Request(prompt="a red apple", model="wide", width=256, height=256, steps=1, seed=1)
        *_, picture = [event.image for event in darkroom.generate(request) if isinstance(event, Image)]
        assert picture.size == (256, 256) and np.isfinite(np.asarray(picture)).all()
        modules: Any = darkroom.manager._residence.kept.active.modules  # type: ignore[union-attr]
        stock = convert_z_image_transformer_checkpoint_to_diffusers(load_file(paths["diffusion_models"]))
        own = modules["backbone"].state_dict()
        assert own.keys() == stock.keys()
        assert all(torch.equal(own[name], tensor.view_as(own[name])) for name, tensor in stock.items())
    finally:
        for path in paths.values():
            path.unlink()
