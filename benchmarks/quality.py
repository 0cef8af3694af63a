"""How far a picture is from the one it stands for."""

import numpy as np
from PIL.Image import Image as PilImage
from scipy.ndimage import gaussian_filter

SIGMA_PX = 1.5
STEADIERS = ((0.01 * 255) ** 2, (0.03 * 255) ** 2)


def psnr_db(picture: PilImage, reference: PilImage) -> float:
    """Peak signal to noise ratio over all channels, infinite for equal pictures."""
    error = float(np.square(_levels(picture) - _levels(reference)).mean())
    return 10 * float(np.log10(255**2 / error)) if error else float("inf")


def ssim(picture: PilImage, reference: PilImage) -> float:
    """Wang et al. 2004, "Image Quality Assessment: From Error Visibility to Structural Similarity", equation 13.

    Their Gaussian window and constants, on each channel; the mean over all places.
    """
    one, other = _levels(picture), _levels(reference)
    mean_one, mean_other = _blur(one), _blur(other)
    variance_one, variance_other = _blur(one**2) - mean_one**2, _blur(other**2) - mean_other**2
    covariance = _blur(one * other) - mean_one * mean_other
    lightness = (2 * mean_one * mean_other + STEADIERS[0]) / (mean_one**2 + mean_other**2 + STEADIERS[0])
    structure = (2 * covariance + STEADIERS[1]) / (variance_one + variance_other + STEADIERS[1])
    return float((lightness * structure).mean())


def _levels(picture: PilImage) -> np.ndarray:
    return np.asarray(picture.convert("RGB"), np.float64)


def _blur(levels: np.ndarray) -> np.ndarray:
    blurred: np.ndarray = gaussian_filter(levels, (SIGMA_PX, SIGMA_PX, 0), truncate=3.5)
    return blurred
