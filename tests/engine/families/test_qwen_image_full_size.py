"""Qwen-Image at full width with two blocks, in the published names, loaded and drawn with."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from tests.anima_models import write_published
from tests.qwen_image_models import published
from webui.core.events import Image
from webui.core.request import Request
from webui.core.settings import Settings
from webui.darkroom import Darkroom


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_files_of_full_width_are_loaded_and_drawn_with(tmp_path: Path) -> None:
    shapes = published(blocks=2, layers=1)
    paths = {name: write_published(tmp_path / "models" / name / "x.safetensors", own) for name, own in shapes.items()}
    try:
        darkroom = Darkroom(Settings(device="cpu", dtype="bfloat16", data_dir=tmp_path))
        request = Request(prompt="a red apple", model="x", width=264, height=256, steps=1, seed=1, guidance=1)
        *_, picture = [event.image for event in darkroom.generate(request) if isinstance(event, Image)]
        assert picture.size == (264, 256) and np.isfinite(np.asarray(picture)).all()
        modules: Any = darkroom.manager._residence.kept.active.modules  # type: ignore[union-attr]
        own = modules["backbone"].state_dict()
        assert len(own) == len(shapes["diffusion_models"])
        with safe_open(paths["diffusion_models"], "pt") as file:
            assert all(torch.equal(own[name], file.get_tensor(name).to(own[name].dtype)) for name in own)
    finally:
        for path in paths.values():
            path.unlink()
