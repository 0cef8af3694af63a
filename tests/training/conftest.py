"""The recipe is not installed with the product: its tests find it in the repository."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


@pytest.fixture(scope="session")
def icons():
    """A red disc with a blue bar, under every name."""
    from training import concepts, data

    y, x = np.mgrid[:200, :200] - 99.5
    disc = np.zeros((200, 200, 4), np.uint8)
    disc[x**2 + y**2 < 80**2] = (220, 40, 40, 255)
    disc[(abs(x) < 60) & (abs(y) < 12)] = (30, 60, 220, 255)
    kinds, styles = [*range(len(concepts.CONCEPTS)), *[-1] * 40, *[-2] * 20], len(concepts.STYLES)
    concept = np.repeat(kinds, styles)
    names = np.array([f"thing-{place // styles}" for place in range(len(concept))])
    pixels = np.broadcast_to(disc, (len(concept), *disc.shape))
    return data.Icons(pixels, concept, np.tile(range(styles), len(kinds)), names)
