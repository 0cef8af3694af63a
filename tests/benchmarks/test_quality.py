"""How far pictures are apart: known values, and what SSIM is for."""

import numpy as np
import pytest
from PIL import Image

from benchmarks.quality import psnr_db, ssim


def flat(level: int) -> Image.Image:
    return Image.new("RGB", (32, 32), (level, level, level))


def test_equal_pictures():
    assert psnr_db(flat(9), flat(9)) == float("inf")
    assert ssim(flat(9), flat(9)) == pytest.approx(1.0)


def test_one_level_off_everywhere():
    assert psnr_db(flat(100), flat(101)) == pytest.approx(20 * np.log10(255))


def test_flat_pictures_differ_in_lightness_alone():
    """Equation 6 of the paper: without structure, 2 * a * b + C over a^2 + b^2 + C."""
    steadier = (0.01 * 255) ** 2
    assert ssim(flat(50), flat(150)) == pytest.approx((2 * 50 * 150 + steadier) / (50**2 + 150**2 + steadier))


def test_lost_structure_counts_more_than_another_brightness_of_the_same_error():
    levels = np.random.default_rng(0).integers(60, 190, (64, 64, 3)).astype(float)
    noise = np.where(np.random.default_rng(1).random(levels.shape) < 0.5, -20, 20)
    exact, brighter, noisy = (Image.fromarray(part.astype(np.uint8)) for part in (levels, levels + 20, levels + noise))
    assert psnr_db(brighter, exact) == pytest.approx(psnr_db(noisy, exact))
    assert ssim(brighter, exact) > ssim(noisy, exact)
