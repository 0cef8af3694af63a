"""The control that follows outlines: the outlines that it is trained on, and how it is measured."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.models import T2IAdapter
from safetensors import safe_open
from safetensors.torch import load_file

from training import edges, edges_evaluate, outlines
from training.concepts import COLOURS, held_out, pair_held_out

FILE = Path(__file__).resolve().parents[2] / "webui" / "demo" / edges.FOLDER / f"{edges.NAME}.safetensors"


def test_the_file_is_small_and_what_its_header_says():
    assert FILE.stat().st_size <= edges.SIZE_LIMIT
    tensors = load_file(FILE)
    assert all(value.dtype == torch.float16 and value.isfinite().all() for value in tensors.values())
    with safe_open(FILE, "pt") as opened:
        config = json.loads(opened.metadata()["config"])
    assert config.pop("_class_name") == "T2IAdapter"
    adapter = T2IAdapter(**config)
    adapter.load_state_dict({name: value.float() for name, value in tensors.items()})
    with torch.no_grad():
        shapes = [tuple(feature.shape) for feature in adapter(torch.zeros(1, 1, 128, 128))]
    assert shapes == [(1, 64, 8, 8), (1, 160, 8, 8), (1, 224, 4, 4)]


def test_it_is_made_stronger_all_at_once():
    torch.manual_seed(0)
    adapter, lines = edges.new_adapter(), torch.rand(1, 1, 128, 128)
    with torch.no_grad():
        before = adapter(lines)
        edges.strengthen(adapter, 2.0)
        after = adapter(lines)
    assert all(torch.allclose(2 * one, other, atol=1e-5) for one, other in zip(before, after, strict=True))


def test_what_is_held_out_is_never_drawn(icons):
    rng = random.Random(3)
    for _ in range(60):
        shown = outlines.draw(icons, rng).label
        for place in (shown.icon, shown.other):
            concept, style = int(icons.concept[place]), int(icons.style[place])
            assert place < 0 or concept != -2 and not (concept >= 0 and pair_held_out(concept, style))
        concept = int(icons.concept[shown.icon])
        assert concept < 0 or not held_out(concept, int(icons.style[shown.icon]), shown.colour)
    assert not any(pair_held_out(int(icons.concept[p]), int(icons.style[p])) for p in outlines.allowed(icons, True))


def test_both_outlines_are_where_the_picture_changes(icons):
    drawn = outlines.draw(icons, random.Random(5))
    assert drawn.picture.shape == (3, 128, 128) and drawn.picture.min() >= 0 and drawn.picture.max() <= 1
    assert drawn.outlines.shape == (2, 128, 128) and drawn.outlines.any((1, 2)).all()
    assert edges_evaluate.f1(drawn.outlines[1], drawn.outlines[0]) > 0.6


def test_a_hand_draws_thicker_leaves_out_and_stays_near(icons):
    rng = random.Random(7)
    lines = edges_evaluate.outlined(icons, 0, list(COLOURS).index("white"), rng, 0.0)
    hands = [outlines.by_hand(lines, rng) for _ in range(40)]
    assert all(hand.shape == (128, 128) and hand.min() >= 0 and hand.max() <= 1 for hand in hands)
    plain = sum(np.array_equal(hand, lines) for hand in hands)
    assert 8 <= plain <= 26
    assert max(hand.sum() for hand in hands) > 2 * lines.sum() > 2.2 * min(hand.sum() for hand in hands)
    assert all(edges_evaluate.f1(hand > 0.4, lines) > 0.5 for hand in hands)


def test_f1_counts_edges_within_two_pixels():
    one, near, far = (np.zeros((32, 32), bool) for _ in range(3))
    one[8], near[10], far[20] = True, True, True
    assert edges_evaluate.f1(one, one) == edges_evaluate.f1(near, one) == 1
    assert edges_evaluate.f1(far, one) == 0
    assert edges_evaluate.f1(one | far, one) == pytest.approx(2 / 3)
    assert edges_evaluate.f1(np.zeros_like(one), one) == 0


def test_the_hundred_outlines_are_the_same_each_time_and_none_was_trained_on(icons):
    first, second = (edges_evaluate.cases(icons) for _ in range(2))
    assert len(first) == 100
    assert all(np.array_equal(a.drawn, b.drawn) and a.prompt == b.prompt for a, b in zip(first, second, strict=True))
    pairs = [row.prompt for row in first if row.kind == "pairs"]
    assert all(pair_held_out(prompt.concept, prompt.style) for prompt in pairs)
    assert all(row.prompt.concept == -1 for row in first if row.kind == "things")
    by_hand = [row.prompt for row in first if row.kind == "by_hand"]
    assert all(held_out(prompt.concept, prompt.style, prompt.colour) for prompt in by_hand)
