"""The presets that ship draw what they promise."""

import hashlib

import numpy as np
import pytest
from PIL import Image as PilImages

from webui.core.presets import PresetShelf
from webui.core.settings import Settings
from webui.executors.local import LocalExecutor

MAX_LEVELS = 3  # of 255: what another processor's instructions may change in 20 steps of float32


def test_each_preset_of_the_demo_model_draws_its_picture(settings: Settings, tmp_path):
    """Exact where this processor adds up like the one they were made on, else within rounding of the kept picture.

    ``expected`` is of float32 on a CPU, but the order of sums depends on its instructions, and with them the last bits.
    The picture beside the preset is the very one that was hashed, so what cannot be equal can at least be near.
    """
    executor = LocalExecutor(settings)
    files = [file for file in PresetShelf(tmp_path).files().values() if file.preset and file.preset.expected]
    assert len(files) >= 8
    try:
        for file in files:
            assert file.preset
            kept = PilImages.open(file.thumbnail_path).convert("RGB")
            assert hashlib.sha256(kept.tobytes()).hexdigest() == file.preset.expected, file.name
            job = executor.submit(file.preset.request())
            *_, (_, end) = job.follow()
            if not job.images:
                pytest.fail(f"{file.name}: {end}")
            if job.images[0].pixels_sha256 != file.preset.expected:
                drawn = np.asarray(job.images[0].image.convert("RGB"), int)
                assert drawn.shape == np.asarray(kept).shape, file.name
                assert np.abs(drawn - np.asarray(kept)).max() <= MAX_LEVELS, file.name
    finally:
        executor.close()
