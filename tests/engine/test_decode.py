"""Pictures from latents."""

import math

import numpy as np
import pytest
import torch

from webui.engine.decode import NotFinite, decode


def test_a_decoded_picture_has_the_size_that_was_asked_for_and_uses_the_whole_range(model):
    latents = torch.randn(1, 4, 9, 16, generator=torch.manual_seed(0))
    picture = decode(model, latents)
    assert picture.mode == "RGB" and picture.size == (16 * model.latent_scale, 9 * model.latent_scale)
    assert np.asarray(picture).std() > 1


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_one_number_that_is_none_is_an_error_instead_of_a_black_picture(model, number):
    latents = torch.zeros(1, 4, 8, 8)
    latents[0, 1, 2, 3] = number
    with pytest.raises(NotFinite, match="not-a-number"):
        decode(model, latents)


class Painter:
    """A model whose autoencoder is the identity on RGB, to see levels exactly."""

    def decode(self, latents):
        return latents


@pytest.mark.parametrize(("value", "level"), [(-1.0, 0), (1.0, 255), (0.0, 128), (-9.0, 0), (9.0, 255), (-0.5, 64)])
def test_levels_are_rounded_and_what_is_out_of_range_is_cut(value, level):
    picture = decode(Painter(), torch.full((1, 3, 2, 2), value))
    assert np.unique(np.asarray(picture)).tolist() == [level]
