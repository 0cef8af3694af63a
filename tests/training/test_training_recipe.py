"""The recipe's parts: quick checks without downloads and without training."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from training import captions, data, latents, prompts
from training.autoencoder import SCALING_FACTOR, build, fold_normalisation
from training.concepts import COLOURS, CONCEPTS, MEDIUM, PLACEMENT_SHARE, PLACEMENTS, STYLES
from training.latents import LatentSet, fit_preview
from training.optim import Muon, orthogonalise, set_learning_rate
from training.pictures import jitter
from training.progress import Budget, load_checkpoint, save_checkpoint


def test_concepts_are_distinct_and_many():
    assert len(CONCEPTS) >= 200
    assert len({concept.words for concept in CONCEPTS}) == len(CONCEPTS)
    assert len({concept.icon for concept in CONCEPTS}) == len(CONCEPTS)
    assert 12 <= len(COLOURS) <= 15
    assert sum(PLACEMENT_SHARE) == pytest.approx(1)


def test_captions_drop_parts_but_never_the_thing():
    rng = random.Random(0)
    texts = [captions.caption(CONCEPTS[0], "flat", "blue", MEDIUM, rng) for _ in range(500)]
    empty = sum(text == "" for text in texts)
    assert 25 <= empty <= 80
    assert all("apple" in text for text in texts if text)
    assert "a red apple, flat style, on a blue background" in texts
    assert any("blue" not in text for text in texts if text)


def test_article_follows_the_word():
    rng = random.Random(0)
    octopus = next(concept for concept in CONCEPTS if concept.words == "octopus")
    phrases = {captions.noun_phrase(octopus, "", rng) for _ in range(50)}
    assert phrases == {"an octopus", "octopus"}
    assert captions.background_phrase("orange", random.Random(1)).endswith(("orange", "orange background"))


def test_fixed_prompts_cover_everything():
    rows = prompts.full_prompts()
    assert len(rows) == len(set(rows)) == 300
    assert {row.concept for row in rows} == set(range(len(CONCEPTS)))
    assert {row.style for row in rows} == set(range(len(STYLES)))
    assert {row.colour for row in rows} == set(range(len(COLOURS)))
    assert rows == prompts.full_prompts()
    assert rows[0].text == "a red apple, 3d style, on a white background"
    assert {row.placement for row in prompts.placed_prompts()} == set(range(1, len(PLACEMENTS)))


def test_no_complete_prompt_asks_for_what_was_trained():
    trained = {(concept, style, colour) for concept, style, colour, _ in latents.plan(random.Random(0))}
    rows = prompts.full_prompts() + prompts.unseen_pair_prompts()
    assert not trained & {(row.concept, row.style, row.colour) for row in rows}
    pairs = {(concept, style) for concept, style, _ in trained}
    assert len(pairs) == len(CONCEPTS) * len(STYLES) - 24
    assert {(row.concept, row.style) for row in prompts.full_prompts()} <= pairs
    assert not pairs & {(row.concept, row.style) for row in prompts.unseen_pair_prompts()}


def test_svg_text_takes_the_collections_size():
    icons = {"icons": {"dot": {"body": "<path/>", "width": 20}}, "height": 32}
    assert 'viewBox="0 0 20 32"' in data.svg_text(icons, "dot")


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_composite_places_the_object(placement):
    pixels = np.full((data.RASTER_SIZE, data.RASTER_SIZE, 4), 255, np.uint8)
    colour = torch.tensor([0.0, 0.5, 1.0])
    picture = data.composite(pixels, placement, colour)
    assert picture.shape == (3, 128, 128)
    ys, xs = (picture[0] > 0.5).nonzero(as_tuple=True)
    assert abs(float(xs.float().mean()) + 0.5 - placement.centre_x) <= 1
    assert abs(float(ys.float().mean()) + 0.5 - placement.centre_y) <= 1
    assert xs.max() - xs.min() + 1 == placement.size
    if placement.size < 120:
        assert torch.allclose(picture[:, 0, 0], colour)


def test_composite_blends_premultiplied_alpha():
    pixels = np.zeros((data.RASTER_SIZE, data.RASTER_SIZE, 4), np.uint8)
    pixels[..., 0] = 128
    pixels[..., 3] = 128
    middle = data.composite(pixels, MEDIUM, torch.tensor([0.0, 1.0, 0.0]))[:, 64, 64]
    assert middle.tolist() == pytest.approx([0.5, 0.5, 0.0], abs=0.01)


def test_jitter_stays_inside():
    rng = random.Random(0)
    for _ in range(200):
        moved = jitter(PLACEMENTS[1], rng)
        assert abs(moved.centre_x - 64) <= 3 and 120 <= moved.size <= 128


@pytest.mark.parametrize("shape", [(8, 40), (40, 8), (16, 16)])
def test_orthogonalise_evens_out_singular_values(shape):
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalise(torch.randn(shape)))
    assert values.max() < 1.3
    assert values[: min(shape) - 2].min() > 0.3


def test_muon_follows_the_gradient():
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(6, 10))
    target = torch.randn(6, 10)
    optimiser = Muon([weight], lr=0.2)
    optimiser.param_groups[0]["base_lr"] = 0.2
    losses = []
    for step in range(200):
        optimiser.zero_grad()
        loss = (weight - target).square().mean()
        loss.backward()
        losses.append(float(loss.detach()))
        set_learning_rate([optimiser], step / 200, 0.0, step, warmup=1)
        optimiser.step()
    assert losses[-1] < 0.02 * losses[0]


def test_learning_rate_warms_up_holds_and_ends_at_zero():
    optimiser = Muon([torch.nn.Parameter(torch.zeros(2, 2))], lr=1.0)
    optimiser.param_groups[0]["base_lr"] = 1.0
    assert set_learning_rate([optimiser], 0.0, 0.3, 0) < 0.05
    assert set_learning_rate([optimiser], 0.3, 0.3, 1000) == pytest.approx(1)
    assert set_learning_rate([optimiser], 1.0, 0.3, 5000) == pytest.approx(0)


def test_budget_counts_the_time_spent_before():
    assert Budget(steps=100, minutes=10, spent=300).progress(0) == pytest.approx(0.5, abs=0.01)
    assert Budget(steps=100, minutes=10).progress(75) == 0.75
    assert Budget(steps=100, minutes=1, spent=600).progress(0) == 1


def test_checkpoint_round_trip(tmp_path: Path):
    file = tmp_path / "state.pt"
    assert load_checkpoint(file) is None
    save_checkpoint(file, {"step": 3, "values": torch.ones(2)})
    state = load_checkpoint(file)
    assert state is not None and state["step"] == 3
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]


@torch.no_grad()
def test_folded_normalisation_keeps_reconstructions():
    torch.manual_seed(0)
    model = build().eval()
    pictures = torch.rand(8, 3, 64, 64) * 2 - 1
    before = model.decode(model.encode(pictures).latent_dist.mode()).sample
    fold_normalisation(model, pictures)
    latents = model.encode(pictures).latent_dist.mode() * SCALING_FACTOR
    after = model.decode(latents / SCALING_FACTOR).sample
    assert torch.allclose(before, after, atol=1e-3)
    assert latents.mean((0, 2, 3)).abs().max() < 1e-3
    assert torch.allclose(latents.std((0, 2, 3)), torch.ones(4), atol=1e-3)


def test_preview_recovers_a_linear_map():
    torch.manual_seed(0)
    weight, bias = torch.rand(3, 4), torch.rand(3)
    latents = torch.randn(20, 4, 16, 16)
    colours = torch.einsum("oc,nchw->nohw", weight, latents) + bias.view(3, 1, 1)
    fitted = fit_preview(LatentSet(latents, torch.zeros(20, 4), colours))
    assert torch.allclose(torch.tensor(fitted["weight"]), weight, atol=1e-4)
    assert torch.allclose(torch.tensor(fitted["bias"]), bias, atol=1e-4)
