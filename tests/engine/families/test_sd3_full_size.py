"""SD 3.5 large at full width with two blocks, in the published names, loaded and drawn with."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import save_file

from tests.anima_models import write_published
from tests.sd3_models import TRANSFORMER, make_parts, published, text_states, vae_state
from webui.core.events import Image
from webui.core.request import Request
from webui.core.settings import Settings
from webui.darkroom import Darkroom


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_file_of_full_width_is_loaded_and_drawn_with(tmp_path: Path) -> None:
    """Its text encoders are as wide as they are, and small within."""
    models = tmp_path / "models"
    path = write_published(models / "diffusion_models/x.safetensors", published("3.5 large", blocks=2))
    try:
        parts = make_parts(TRANSFORMER | {"joint_attention_dim": 4096}, clips=(768, 1280))
        clip_l, clip_g, t5 = text_states(parts, ("", "", ""))
        files = {"text_encoders/clip_l": clip_l, "text_encoders/clip_g": clip_g, "text_encoders/t5xxl": t5}
        for place, state in (files | {"VAE/x": vae_state(parts, "")}).items():
            (models / place).parent.mkdir(parents=True, exist_ok=True)
            save_file(state, models / f"{place}.safetensors")
        darkroom = Darkroom(Settings(device="cpu", dtype="bfloat16", data_dir=tmp_path))
        request = Request(prompt="a red apple", model="x", width=264, height=256, steps=1, seed=1)
        *_, picture = [event.image for event in darkroom.generate(request) if isinstance(event, Image)]
        assert picture.size == (264, 256) and np.isfinite(np.asarray(picture)).all()
    finally:
        path.unlink()
