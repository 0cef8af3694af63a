"""The recipe's parts: quick checks without downloads and without training."""

import random
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from training import captions, data, prompts, unet
from training.autoencoder import SCALING_FACTOR, build, fold_normalisation
from training.concepts import (
    COLOURS,
    CONCEPTS,
    MEDIUM,
    PLACEMENT_SHARE,
    PLACEMENTS,
    STYLES,
    held_out,
    indefinite_article,
)
from training.latents import LatentSet, Row, fit_preview, picture, plan, row_caption
from training.optim import Average, Muon, make_optimisers, orthogonalise, set_learning_rate
from training.pictures import jitter, moved
from training.progress import Budget, load_checkpoint, save_checkpoint
from webui.engine.families.clip import weigh

MODEL = Path(__file__).resolve().parents[2] / "webui" / "demo"


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


def test_no_complete_prompt_asks_for_what_was_trained(icons, rows):
    trained = {(int(icons.concept[row.icon]), int(icons.style[row.icon]), row.colour) for row in rows}
    asked = [*prompts.full_prompts(), *prompts.unseen_pair_prompts()]
    assert not trained & {(row.concept, row.style, row.colour) for row in asked}
    pairs = {(concept, style) for concept, style, _ in trained if concept >= 0}
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


def test_a_placement_moves_as_far_as_its_weight_says():
    left = PLACEMENTS[3]
    assert moved(left, 0.0)[:3] == MEDIUM[:3] and moved(left, 1.0) == left
    assert moved(left, 1.5)[:3] == (34, 16, 64)


@pytest.fixture(scope="module")
def icons() -> data.Icons:
    """Every concept in every style, and one further thing in each, as opaque squares of one colour for each style."""
    places = [(concept, style) for concept in (*range(len(CONCEPTS)), -1) for style in range(len(STYLES))]
    concept, style = np.array(places).T
    pixels = np.zeros((len(places), 8, 8, 4), np.uint8)
    pixels[..., 3], pixels[..., 0] = 255, (100 * style)[:, None, None]
    names = np.array([CONCEPTS[c].icon if c >= 0 else "garden-hose" for c in concept])
    return data.Icons(pixels, concept, style, names)


@pytest.fixture(scope="module")
def rows(icons) -> list[Row]:
    return plan(icons, random.Random(0))


def test_nothing_held_out_is_in_the_training_set(icons, rows):
    shown = [(row.icon, row.colour) for row in rows] + [(row.other, row.colour) for row in rows if row.other >= 0]
    shown = [(int(icons.concept[icon]), int(icons.style[icon]), colour) for icon, colour in shown]
    assert not any(concept >= 0 and held_out(concept, style, colour) for concept, style, colour in shown)
    assert {concept for concept, _, _ in shown} == {*range(len(CONCEPTS)), -1}


def test_the_training_set_has_weights_and_pairs_and_further_things(rows, icons):
    parts = {
        "weighted colour": [row for row in rows if row.amount != 100 and not row.placement],
        "weighted place": [row for row in rows if row.amount != 100 and row.placement],
        "pair": [row for row in rows if row.other >= 0],
        "further": [row for row in rows if icons.concept[row.icon] < 0],
    }
    assert all(parts.values())
    assert {icons.style[row.icon] == icons.style[row.other] for row in parts["pair"]} == {True}


def test_pictures_show_their_rows(icons):
    rng, blue = random.Random(0), torch.tensor(COLOURS["blue"]) / 255
    colour, icon = list(COLOURS).index("blue"), icons.find(5, 2)
    plain = picture(icons, Row(icon, colour), rng)
    assert plain.shape == (3, 128, 128) and torch.allclose(plain[:, 0, 0], blue)
    assert picture(icons, Row(icon, colour), rng, 256).shape == (3, 256, 256)
    paler, stronger = (picture(icons, Row(icon, colour, 0, amount), rng)[:, 0, 0] for amount in (50, 150))
    spread = [float(shade.max() - shade.min()) for shade in (paler, blue, stronger)]
    assert spread == sorted(spread) and spread[0] < 0.7 * spread[1]
    both = picture(icons, Row(icon, colour, 3, 100, icons.find(6, 2), 4), rng)
    assert float(both[0, 64, 32]) > 0.7 and float(both[0, 64, 96]) > 0.7 and torch.allclose(both[:, 64, 64], blue)


def test_captions_say_what_weight_their_pictures_have(icons):
    rng, colour, icon = random.Random(0), list(COLOURS).index("orange"), icons.find(5, 2)
    for row, words in (
        (Row(icon, colour, 0, 140), r"\([^()]*orange[^()]*:1\.4\)"),
        (Row(icon, colour, 3, 60), r"\(small:0\.6\)"),
    ):
        texts = [text for _ in range(60) if (text := row_caption(icons, row, rng))]
        assert all(re.search(words, text) for text in texts)
    texts = {row_caption(icons, Row(icon, colour, 3, 100, icons.find(6, 2), 4), rng) for _ in range(300)}
    assert any(" and " in text and "on the left" in text and "on the right" in text for text in texts)
    assert "garden hose" in " ".join(row_caption(icons, Row(len(icons.names) - 1, 0), rng) for _ in range(20))


@pytest.mark.parametrize(("words", "article"), [("orange", "an"), ("octopus", "an"), ("blue", "a")])
def test_indefinite_article(words, article):
    assert indefinite_article(words) == article


@pytest.mark.parametrize("shape", [(8, 40), (40, 8), (16, 16), (3, 8, 40)])
def test_orthogonalise_evens_out_singular_values(shape):
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalise(torch.randn(shape)))
    assert values.max() < 1.3
    assert values[..., : min(shape[-2:]) - 2].min() > 0.3


def test_matrices_of_one_shape_are_updated_as_each_alone():
    torch.manual_seed(0)
    start, gradients = torch.randn(3, 6, 4, 3, 3), torch.randn(3, 6, 4, 3, 3)
    together = [torch.nn.Parameter(value.clone()) for value in start]
    alone = [torch.nn.Parameter(value.clone()) for value in start]
    for parameter, gradient in zip([*together, *alone], [*gradients, *gradients], strict=True):
        parameter.grad = gradient
    Muon(together, lr=0.1).step()
    for parameter in alone:
        Muon([parameter], lr=torch.tensor(0.1)).step()
    for one, other, before in zip(together, alone, start, strict=True):
        assert torch.allclose(one, other, atol=1e-6) and not torch.allclose(one, before)


def test_average_follows_and_lags_behind():
    module = torch.nn.BatchNorm1d(2)
    average = Average(module, 0.9)
    with torch.no_grad():
        module.weight.fill_(3.0)
    average.update(module, 100)
    assert average.values["weight"].tolist() == pytest.approx([1.2, 1.2])


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


@torch.no_grad()
def test_lifting_the_text_changes_no_prediction_and_steadies_emphasis():
    torch.manual_seed(0)
    tokenizer = unet.tokenizer_module.prepare(MODEL / "tokenizer")
    model = unet.Denoiser(len(tokenizer)).eval()
    unet.load_weights(model, tokenizer, MODEL)
    norm = model.text.final_layer_norm
    norm.bias -= norm.bias.mean()  # as from random weights
    inputs = (torch.randn(2, 4, 16, 16), torch.tensor([10, 900]), unet.tokenize(tokenizer, ["a cat", ""]))
    before = model(*inputs)
    model.lift_text()
    assert torch.allclose(model(*inputs), before, atol=1e-4)
    states = model.text(inputs[2]).last_hidden_state
    assert states.mean((1, 2)).tolist() == pytest.approx([unet.TEXT_MEAN] * 2, abs=0.05)
    weights = torch.ones(2, 77)
    weights[:, 3:6] = 1.5
    ratio = weigh(states, weights)[:, 0].norm(dim=1) / states[:, 0].norm(dim=1)
    assert ratio.tolist() == pytest.approx([1, 1], abs=0.05)


def test_batches_hold_what_the_product_reads_in_a_caption(icons, rows):
    samples = LatentSet(torch.zeros(len(rows), 1), torch.tensor(rows), torch.zeros(1))
    batches = unet.Batches(samples, icons, MODEL / "tokenizer", 200, 0)
    places, tokens, weights = next(iter(batches))
    assert tokens.shape == weights.shape == (200, 77) and len(set(places.tolist())) == 200
    weighted = [place for place, row in zip(places.tolist(), weights, strict=True) if (row != 1).any()]
    amounts = [rows[place].amount for place in places.tolist()]
    assert sum(amount != 100 for amount in amounts) <= len(weighted) + 10  # some captions are empty
    assert (
        unet.tokenize(unet.tokenizer_module.prepare(MODEL / "tokenizer"), ["a (cat:1.3)", "a cat"])
        .unique(dim=0)
        .shape[0]
        == 1
    )


def test_a_step_of_training_lowers_the_loss():
    torch.manual_seed(0)
    model = unet.Denoiser(1002)
    samples = LatentSet(torch.randn(4, 4, 16, 16), torch.zeros(4, 6), torch.zeros(1))
    stepper = unet.Stepper(model, make_optimisers([model], 1e-3, 1e-3), samples, unet.signal_levels())
    batch = torch.arange(4), torch.zeros(4, 77, dtype=torch.long), torch.ones(4, 77)
    losses = [float(stepper(*batch)) for _ in range(4)]
    assert losses[-1] < losses[0]


def test_preview_recovers_a_linear_map():
    torch.manual_seed(0)
    weight, bias = torch.rand(3, 4), torch.rand(3)
    latents = torch.randn(20, 4, 16, 16)
    colours = torch.einsum("oc,nchw->nohw", weight, latents) + bias.view(3, 1, 1)
    fitted = fit_preview(LatentSet(latents, torch.zeros(20, 6), colours))
    assert torch.allclose(torch.tensor(fitted["weight"]), weight, atol=1e-4)
    assert torch.allclose(torch.tensor(fitted["bias"]), bias, atol=1e-4)
