"""Anima's three files as they were published, written in full size, loaded and drawn with."""

import time
from pathlib import Path

import numpy as np
import pytest

from tests.anima_models import write_all
from webui.core.events import Image
from webui.core.request import Request
from webui.core.settings import Settings
from webui.darkroom import Darkroom


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_files_of_full_size_are_loaded_and_drawn_with(tmp_path: Path) -> None:
    paths = write_all(tmp_path / "models", sparse=False)
    try:
        darkroom = Darkroom(Settings(device="cpu", dtype="bfloat16", data_dir=tmp_path))
        started = time.perf_counter()
        request = Request(prompt="a red apple", model="published", width=256, height=256, steps=1, seed=1)
        *_, picture = [event.image for event in darkroom.generate(request) if isinstance(event, Image)]
        print(f"loaded and drawn in {time.perf_counter() - started:.1f} s")
        assert picture.size == (256, 256) and np.isfinite(np.asarray(picture)).all()
    finally:
        for path in paths.values():
            path.unlink()
