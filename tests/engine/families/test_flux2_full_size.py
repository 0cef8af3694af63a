"""FLUX.2 Klein 4B at full width with a block of each kind, in the published names, loaded and drawn with."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.anima_models import write_published
from tests.flux2_models import published
from webui.core.events import Image
from webui.core.request import Request
from webui.core.settings import Settings
from webui.core.tensor_file import read_header
from webui.darkroom import Darkroom


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_files_of_full_width_are_loaded_and_drawn_with(tmp_path: Path) -> None:
    found = published("4B", blocks=(1, 1), narrow_encoder=True)
    paths = [write_published(tmp_path / "models" / folder / "x.safetensors", found[folder]) for folder in found]
    with paths[-1].open("r+b") as vae:  # a variance is above zero
        vae.seek(read_header(paths[-1]).places["bn.running_var"].offset)
        vae.write(torch.ones(128, dtype=torch.bfloat16).view(torch.uint8).numpy().tobytes())
    try:
        darkroom = Darkroom(Settings(device="cpu", dtype="bfloat16", data_dir=tmp_path))
        request = Request(prompt="a red apple", model="x", width=264, height=256, steps=1, seed=1)
        *_, picture = [event.image for event in darkroom.generate(request) if isinstance(event, Image)]
        assert picture.size == (264, 256) and np.isfinite(np.asarray(picture)).all()
    finally:
        for path in paths:
            path.unlink()
