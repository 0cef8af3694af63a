"""Variation seeds: A1111's formula bit for bit, for each task, and each picture of a batch by itself."""

import pickle

import pytest
import torch
from PIL import Image as PilImages

from webui.core.events import Image
from webui.core.groups.variation import Variation
from webui.core.verdict import prepare
from webui.engine.latents import make_draw, make_generators, slerp

SEED, OTHER = 5, 9
VARIED = Variation(seed=OTHER, strength=0.4)


def by_the_formula(share, low, high):
    """sin((1 - t) w) / sin(w) * low + sin(t w) / sin(w) * high, where w is the angle between the two columns."""
    dot = (low / torch.norm(low, dim=1, keepdim=True) * (high / torch.norm(high, dim=1, keepdim=True))).sum(1)
    omega = torch.acos(dot)
    so = torch.sin(omega)
    return (torch.sin((1.0 - share) * omega) / so).unsqueeze(1) * low + (torch.sin(share * omega) / so).unsqueeze(
        1
    ) * high


def noise(seed, shape=(4, 16, 8)):
    return torch.randn(shape, generator=torch.manual_seed(seed))


@pytest.mark.parametrize("share", [0.01, 0.3, 0.5, 1.0])
def test_the_noise_is_that_of_the_formula(share):
    assert torch.equal(slerp(noise(SEED), noise(OTHER), share), by_the_formula(share, noise(SEED), noise(OTHER)))


def test_of_noises_that_are_the_same_there_is_a_mean():
    assert torch.allclose(slerp(noise(SEED), noise(SEED), 0.3), noise(SEED))


@pytest.fixture
def start():
    """A soft mask, so that each draw counts: posterior, noise and what the mask holds."""
    mask = PilImages.linear_gradient("L").resize((64, 64))
    picture = PilImages.radial_gradient("L").resize((64, 64)).convert("RGB")
    return {
        "txt2img": {},
        "img2img": {"init": {"image": picture, "strength": 0.6}},
        "inpaint": {"init": {"image": picture, "strength": 0.8, "mask": mask, "mask_fill": "noise"}},
    }


@pytest.fixture
def shas(darkroom, request_for):
    """The pictures of a request, by their pixels."""

    def shas(**fields):
        request = request_for(**{"seed": SEED, "steps": 2, "width": 64, "height": 64, "sampler": "Euler"} | fields)
        return [picture.pixels_sha256 for picture in darkroom.draw(request)]

    return shas


@pytest.mark.parametrize("task", ["txt2img", "img2img", "inpaint"])
def test_it_goes_from_one_seed_s_picture_to_the_other_s(shas, start, task):
    def varied(strength):
        return shas(variation={"seed": OTHER, "strength": strength}, **start[task])

    ends = shas(**start[task]), shas(seed=OTHER, **start[task])
    assert (varied(0), varied(1)) == ends
    assert varied(0.4) not in ends


def test_each_picture_of_a_batch_begins_from_its_own_noise():
    shape = (1, 4, 8, 8)
    batch = make_draw(make_generators([SEED] * 3), VARIED, first=2)(shape)
    for k in range(3):
        alone = by_the_formula(0.4, noise(SEED, shape[1:]), noise(OTHER + 2 + k, shape[1:]))
        assert torch.equal(batch[k], alone)


def test_pictures_drawn_one_by_one_are_those_that_their_recipes_draw(darkroom, request_for, shas):
    varied = {"seed": OTHER, "strength": 0.4}
    fields = {"seed": SEED, "steps": 2, "width": 64, "height": 64, "count": 2, "repeat": 2, "variation": varied}
    strict = darkroom.draw(request_for(strict=True, sampler="Euler a", **fields))
    for k, picture in enumerate(strict):
        assert picture.recipe.request.variation.seed == OTHER + k and picture.seed == SEED
        assert darkroom.draw(picture.recipe.request)[0].pixels_sha256 == picture.pixels_sha256
    last = darkroom.draw(request_for(**fields))[3]
    again = darkroom.draw(prepare(last.recipe, darkroom.catalog(), lambda _: None))
    assert again[last.recipe.batch_index].pixels_sha256 == last.pixels_sha256


def test_an_order_pickles_with_it(darkroom, request_for):
    order = darkroom.plan(request_for(steps=1, variation={"strength": 0.4}, width=64, height=64, sampler="Euler"))
    seed = order.request.variation.seed
    assert seed >= 0 and order.stages[0].variation == order.request.variation
    drawn = [darkroom.manager.draw(one, lambda: False) for one in (order, pickle.loads(pickle.dumps(order)))]
    first, second = ([event.pixels_sha256 for event in events if isinstance(event, Image)] for events in drawn)
    assert first == second
