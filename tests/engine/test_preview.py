"""Previews: small, cheap, and ever closer to the picture."""

import io
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as PilImages

from webui.core.events import Image, Step
from webui.engine import preview as preview_module
from webui.engine.decode import decode
from webui.engine.denoise import Denoised
from webui.engine.families.base import PreviewMap
from webui.engine.preview import BUDGET, Previewer, to_jpeg

FIRST_CHANNELS = PreviewMap(torch.eye(3, 4), torch.zeros(3))  # channels 0, 1, 2 are red, green, blue


def read(jpeg: bytes) -> np.ndarray:
    """Levels of a JPEG as (height, width, 3) in 0..1."""
    with PilImages.open(io.BytesIO(jpeg)) as image:
        assert image.format == "JPEG"
        return np.asarray(image.convert("RGB")) / 255


def distance(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.sqrt(((one - other) ** 2).mean()))


def shrink(image, factor: int) -> np.ndarray:
    """A picture at one pixel a latent cell, in 0..1."""
    return np.asarray(image.reduce(factor)) / 255


def step_of(latents: torch.Tensor, index: int = 1, total: int = 20) -> Denoised:
    return Denoised(index, total, latents, latents, torch.zeros_like(latents))


class Clean:
    """No noise at all: the picture to be is the latents that are seen."""

    def original(self, seen, _output, _index):
        return seen


def test_a_preview_has_one_pixel_a_latent_cell():
    assert read(to_jpeg(torch.zeros(1, 4, 9, 16), FIRST_CHANNELS)).shape == (9, 16, 3)


@pytest.mark.parametrize(("count", "columns", "rows"), [(1, 1, 1), (2, 2, 1), (3, 2, 2), (5, 3, 2), (16, 4, 4)])
def test_the_pictures_of_a_batch_stand_side_by_side_in_reading_order(count, columns, rows):
    colours = torch.rand(count, 3, generator=torch.manual_seed(0))
    latents = torch.zeros(count, 4, 16, 24)
    latents[:, :3] = colours[:, :, None, None]
    sheet = read(to_jpeg(latents, FIRST_CHANNELS))
    assert sheet.shape == (rows * 16, columns * 24, 3)
    for k in range(rows * columns):
        row, column = divmod(k, columns)
        middle = sheet[row * 16 + 8, column * 24 + 12]
        expected = colours[k].numpy() if k < count else np.full(3, 0.5)
        assert abs(middle - expected).max() < 0.05


def test_what_is_out_of_range_or_no_number_is_cut_instead_of_failing():
    latents = torch.full((1, 4, 8, 8), 9.0)
    assert read(to_jpeg(latents, FIRST_CHANNELS)).min() > 0.97
    assert read(to_jpeg(-latents, FIRST_CHANNELS)).max() < 0.03
    assert read(to_jpeg(latents * math.nan, FIRST_CHANNELS)).shape == (8, 8, 3)


@given(
    costs_s=st.lists(st.floats(1e-5, 0.03), min_size=1, max_size=200),
    step_s=st.floats(0.001, 0.5),
)
def test_previews_never_cost_more_than_two_percent_of_the_sampling_by_more_than_one_preview(costs_s, step_s):
    clock, costs = [0.0], itertools.cycle(costs_s)

    def slow_jpeg(_latents, _map):
        clock[0] += next(costs)
        return b"jpeg"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preview_module, "to_jpeg", slow_jpeg)
        patch.setattr(preview_module.time, "perf_counter", lambda: clock[0])
        previewer, shown = Previewer(FIRST_CHANNELS, Clean()), 0
        for index in range(200):
            clock[0] += step_s
            shown += previewer.preview(step_of(torch.zeros(1, 4, 2, 2), index), clock[0]) is not None
        assert previewer.spent_s <= BUDGET * clock[0] + max(costs_s)
        assert shown, "no preview at all"
    assert BUDGET == 0.02


def test_cheap_previews_come_at_every_step_once_there_is_time_for_one(monkeypatch):
    clock = itertools.count(0, 0.0001)  # each look at the clock takes a tenth of a millisecond: so does a preview
    monkeypatch.setattr(preview_module.time, "perf_counter", lambda: next(clock))
    previewer = Previewer(FIRST_CHANNELS, Clean())
    latents = torch.zeros(1, 4, 2, 2)
    shown = [previewer.preview(step_of(latents, index), index * 0.1) is not None for index in range(1, 21)]
    assert shown == [True] * 20


def test_previews_change_nothing_about_the_picture(run, monkeypatch, request):
    with_some = [event.pixels_sha256 for event in run(count=2, sampler="Euler a") if isinstance(event, Image)]
    request.getfixturevalue("preview_each_step")
    events = run(count=2, sampler="Euler a")
    assert all(event.preview for event in events if isinstance(event, Step))
    assert [event.pixels_sha256 for event in events if isinstance(event, Image)] == with_some
    request.getfixturevalue("no_previews")
    events = run(count=2, sampler="Euler a")
    assert not any(event.preview for event in events if isinstance(event, Step))
    assert [event.pixels_sha256 for event in events if isinstance(event, Image)] == with_some


@pytest.fixture
def fitted_map(model) -> PreviewMap:
    """The linear map that shows this very autoencoder best, fitted here to a few pictures of noise."""
    latents = torch.randn(4, 4, 24, 24, generator=torch.manual_seed(0))
    latents = torch.nn.functional.avg_pool2d(latents, 3, stride=1, padding=1) * 2
    pictures = [shrink(decode(model, one[None]), model.latent_scale) for one in latents]
    inputs = torch.cat([latents.permute(0, 2, 3, 1).reshape(-1, 4), torch.ones(4 * 24 * 24, 1)], dim=1)
    targets = torch.tensor(np.stack(pictures)).reshape(-1, 3).float()
    solution = torch.linalg.lstsq(inputs.double(), targets.double()).solution.float()
    return PreviewMap(solution[:4].T.contiguous(), solution[4])


@pytest.mark.parametrize("sampler", ["DPM++ 2M", "Euler a", "DDIM", "Heun"])
def test_previews_come_closer_to_the_finished_picture_as_steps_pass(
    run, model, monkeypatch, preview_each_step, fitted_map, sampler
):
    monkeypatch.setattr(model, "preview_map", fitted_map)
    events = run(sampler=sampler, steps=12, width=128, height=128)
    previews = [read(event.preview) for event in events if isinstance(event, Step)]
    (picture,) = [event.image for event in events if isinstance(event, Image)]
    target = shrink(picture, model.latent_scale)
    away = [distance(preview, target) for preview in previews]
    third = len(away) // 3
    first, middle, last = (np.mean(part) for part in (away[:third], away[third : 2 * third], away[2 * third :]))
    assert first > middle > last
    assert away[-1] < 0.6 * away[0]


@pytest.mark.parametrize("sampler", ["Euler", "DPM++ 2M", "UniPC", "DDPM", "LCM"])
def test_the_last_preview_shows_the_latents_that_are_decoded(run, model, monkeypatch, preview_each_step, sampler):
    decoded, original = [], model.decode
    monkeypatch.setattr(model, "decode", lambda latents: decoded.append(latents) or original(latents))
    last = [event.preview for event in run(sampler=sampler) if isinstance(event, Step)][-1]
    assert distance(read(last), read(to_jpeg(decoded[0], model.preview_map))) < 0.01


def test_the_embedded_model_s_own_map_shows_the_picture_s_colours(run, model, preview_each_step):
    away, flat = [], []
    for seed in (1, 2, 3):
        events = run(steps=10, seed=seed, width=128, height=128)
        (picture,) = [event.image for event in events if isinstance(event, Image)]
        target = shrink(picture, model.latent_scale)
        last = [event.preview for event in events if isinstance(event, Step)][-1]
        away.append(distance(read(last), target))
        flat.append(distance(np.broadcast_to(target.mean(axis=(0, 1)), target.shape), target))
    assert np.mean(away) < 0.5 * np.mean(flat), "the preview is hardly better than one flat colour"
