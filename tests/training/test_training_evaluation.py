"""What the evaluation measures, on pictures whose answers are known, and the card that tells of it."""

import json
import re

import numpy as np
import pytest
import torch

from training import card, data, few_steps, judges, lora, measures
from training.adapters import Adapter
from training.concepts import COLOURS, MEDIUM, PLACEMENTS
from training.evaluate import shares
from training.prompts import Prompt
from training.unet import signal_levels, tokenize
from webui.core.samplers import SAMPLERS


def square(placement=MEDIUM, colour="yellow") -> torch.Tensor:
    pixels = np.zeros((data.RASTER_SIZE, data.RASTER_SIZE, 4), np.uint8)
    pixels[4:-4, 4:-4] = (30, 60, 160, 255)
    return data.composite(pixels, placement, torch.tensor(COLOURS[colour]) / 255)


@pytest.mark.parametrize("asked", range(1, len(PLACEMENTS)))
def test_size_and_place_are_seen(asked):
    right = [measures.placement_right(Prompt("", 0, placement=asked), square(place)) for place in PLACEMENTS]
    assert [index for index, answer in enumerate(right) if answer] == [asked]


def test_background_is_the_colour_of_the_border():
    pictures = torch.stack([square(colour=name) for name in COLOURS])
    assert measures.nearest_colour(measures.border_colour(pictures)).tolist() == list(range(len(COLOURS)))
    assert measures.border_unevenness(pictures) < 0.01


def test_spread_is_nothing_for_one_picture_and_much_for_others():
    one = square()
    assert measures.spread(torch.stack([one, one, one])) == pytest.approx(0, abs=1e-3)
    assert measures.spread(torch.stack([one, square(colour="black")])) > 50


def test_nearest_training_picture_is_the_same_thing_whatever_its_background():
    pixels = np.random.default_rng(0).integers(0, 255, (3, data.RASTER_SIZE, data.RASTER_SIZE, 4), np.uint8)
    pixels[..., 3] = 255
    icons = data.Icons(pixels, np.array([4, 7, -1]), np.array([0, 0, 0]), np.array(["avocado", "donut", "hose"]))
    references = measures.References(icons)
    for index, concept in ((0, 4), (1, 7)):
        picture = data.composite(pixels[index], MEDIUM, torch.tensor(COLOURS["pink"]) / 255)
        assert references.nearest_concept(picture) == concept


@pytest.mark.slow
def test_classifier_learns_from_pictures(monkeypatch):
    monkeypatch.setitem(judges.STEPS, "style", 30)
    known = torch.full((6, 3, judges.SIDE, judges.SIDE), 20, dtype=torch.uint8)
    labels = torch.arange(6) % 3
    known[torch.arange(6), labels, 16:48, 16:48] = 230
    judge = judges.train_judge(known, labels, "style")
    pictures = torch.zeros(3, 3, 128, 128)
    pictures[torch.arange(3), torch.arange(3), 32:96, 32:96] = 1
    assert judges.verdicts(judge, pictures).tolist() == [0, 1, 2]


def test_augmented_pictures_are_the_same_pictures_moved():
    torch.manual_seed(0)
    pictures = torch.zeros(9, 3, judges.SIDE, judges.SIDE)
    pictures[:, 1, 20:30, 40:50] = 1
    changed = judges.augmented(pictures)
    assert changed.shape == pictures.shape and changed.min() >= 0 and changed.max() <= 1
    bright = changed[:, 1].clamp(min=0.5) - 0.5
    rows, columns = torch.arange(64.0), torch.arange(64.0)
    total = bright.sum((1, 2))
    y, x = (bright.sum(2) @ rows) / total - 24.5, (bright.sum(1) @ columns) / total - 44.5
    assert max(y.abs().max(), x.abs().max()) < 3.5 and len(set(y.round().tolist())) > 2
    assert float(changed[:, (0, 2)].max()) < 0.4


@pytest.fixture(scope="module")
def pipeline(repository):
    return lora.open_model(repository / "webui/demo")


def test_guided_paths_end_where_their_last_step_leads(pipeline):
    torch.manual_seed(0)
    model = lora.frozen_denoiser(pipeline)
    scheduler = few_steps.DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=False)
    scheduler.set_timesteps(4)
    tokens, empty = tokenize(pipeline.tokenizer, ["a cat", "a dog"]), tokenize(pipeline.tokenizer, [""])
    points = few_steps.walk(model, torch.randn(2, 4, 16, 16), tokens, empty, scheduler)
    count = len(points.steps)
    assert 2 <= count <= 8 and points.latents.shape == points.ends.shape == (count, 4, 16, 16)
    assert set(points.steps.tolist()) <= set(scheduler.timesteps.tolist())
    for text in tokens:
        ends = points.ends[(points.tokens == text).all(1)]
        assert len(ends) and (ends == ends[0]).all()


def test_learning_brings_the_seen_end_nearer(pipeline):
    torch.manual_seed(0)
    model = lora.frozen_denoiser(pipeline)
    adapter = Adapter(model, re.compile(few_steps.KIND.layers), few_steps.KIND.rank, few_steps.KIND.alpha)
    tokens = tokenize(pipeline.tokenizer, ["a cat"] * 4)
    ends = torch.full((4, 4, 16, 16), 0.5)
    points = few_steps.Points(torch.randn(4, 4, 16, 16), torch.tensor([999, 799, 599, 399]), tokens, ends)
    optimiser, losses = torch.optim.AdamW(adapter.parameters(), 1e-2), []
    for _ in range(12):
        loss = few_steps.loss_of(model, points, torch.arange(4), signal_levels())
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(float(loss.detach()))
    adapter.detach()
    assert losses[-1] < 0.8 * losses[0]


ROW = {"background": 1.0, "concept": 0.95, "concept_classified": 0.9, "style": 0.875}
NUMBERS = {
    "judges": {"concept": 1.0, "style": 0.9, "unseen_pair_concept": 0.7, "unseen_pair_style": 0.6},
    "prompts": {"full": 300, "unseen-pairs": 72, "placed": 48},
    "full": ROW,
    "unseen_pairs": ROW,
    "placement": 0.98,
    "samplers": {name: ROW | {"unseen_pair_style": 0.5, "placement": 1.0} for name in SAMPLERS},
    "few_steps": {"4": ROW | {"unseen_pair_style": 0.25, "placement": 0.5}},
    "background_unevenness": 3.9,
    "spread": {"least": 9.4, "median": 13.2, "floor": 4.0},
    "milliseconds": 476.5,
    "milliseconds_best": 455.8,
    "threads": 2,
}


def test_shares_count_right_answers():
    rows = [dict.fromkeys(ROW, True), dict.fromkeys(ROW, False) | {"background": True}]
    assert shares(rows) == {"background": 1.0, "concept": 0.5, "concept_classified": 0.5, "style": 0.5}


def test_card_tells_every_figure(tmp_path):
    model, evaluation = tmp_path / "model", tmp_path / "evaluation"
    for part in ("unet", "vae", "text_encoder", "tokenizer", "scheduler"):
        (model / part).mkdir(parents=True)
        (model / part / "file").write_bytes(bytes(500_000))
    card.write(model, evaluation)
    assert "Not measured yet." in (model / "README.md").read_text("utf-8")
    evaluation.mkdir()
    (evaluation / "evaluation.json").write_text(json.dumps({"numbers": NUMBERS}))
    keys = ("off", "half", "full", "full_no_trigger", "right_off", "right_half", "right_full")
    look = dict.fromkeys(keys, 3) | {"prompts": 24, "bytes": 150_400, "measure": "mean brightness"}
    (evaluation / "loras.json").write_text(json.dumps({"night": look}))
    kinds = dict.fromkeys(("all", "pairs", "things", "by_hand"), 34)
    edges = {mode: dict.fromkeys((*kinds, "background"), 0.25) for mode in ("control", "balanced", "without")}
    whole = {"background": 1.0, "concept": 0.9, "style": 0.5, "f1": 0.75}
    complete = {"prompts": 43, "control": whole, "without": whole}
    (evaluation / "edges.json").write_text(json.dumps({**edges, "outlines": kinds, "complete_prompts": complete}))
    card.write(model, evaluation)
    text = (model / "README.md").read_text("utf-8")
    assert not re.search(r"@[A-Z_]+@", text) and "2.5 MB without the LoRAs" in text
    assert "| style: classifier | 87.5% | 87.5% |" in text
    assert "| LoRA `few-steps`, LCM, 4 steps | 100% | 95% | 90% | 88% | 25% | 50% |" in text
    assert all(f"| {name}, 20 steps |" in text for name in SAMPLERS)
    assert "| `night` | 150 kB | mean brightness | 3 | 3 | 3 | 3 | 3 of 24 | 3 of 24 | 3 of 24 |" in text
    assert "| drawn as by a hand | 34 | 0.25 | 0.25 | 0.25 |" in text and "| thing | 90% | 90% |" in text
