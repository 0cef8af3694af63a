"""The control that draws like a picture: its files, what it is trained on, and how it is measured."""

import json
import random
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from training import data, reference, reference_evaluate, references
from training.concepts import held_out, pair_held_out
from training.latents import Row
from webui.core.clip_vision_file import SERVES, read_clip_vision
from webui.core.ip_adapter_file import look
from webui.core.tensor_file import read_header

FOLDER = Path(__file__).resolve().parents[2] / "webui" / "demo" / reference.FOLDER
ADAPTER, ENCODER = FOLDER / f"{reference.NAME}.safetensors", FOLDER / reference.ENCODER


def test_the_files_are_small_and_transformers_reads_the_encoder():
    weights = ENCODER / "model.safetensors"
    assert ADAPTER.stat().st_size + weights.stat().st_size <= reference.SIZE_LIMIT
    for file in (ADAPTER, weights):
        assert all(value.dtype == torch.float16 and value.isfinite().all() for value in load_file(file).values())
        with safe_open(file, "pt") as opened:
            assert opened.metadata()[SERVES] == reference.NAME
    config = json.loads((ENCODER / "config.json").read_text("utf-8"))
    network = CLIPVisionModelWithProjection(CLIPVisionConfig.from_dict(config))
    network.load_state_dict({name: value.float() for name, value in load_file(weights).items()})
    adapter, encoder = look(read_header(ADAPTER).shapes), read_clip_vision(ENCODER)
    assert adapter and adapter.sees == encoder.projected == config["projection_dim"]


def test_what_is_held_out_is_never_shown(icons: data.Icons):
    rows = references.choose_rows(icons, 3000)
    assert len(rows) > 2500
    for row in rows:
        concept, style = int(icons.concept[row.icon]), int(icons.style[row.icon])
        assert concept != -2 and not (concept >= 0 and held_out(concept, style, row.colour))


def test_a_picture_stands_for_the_words_of_its_caption(icons: data.Icons):
    class Spaced:
        """A tokenizer with a token a word."""

        pad_token_id = eos_token_id = 1

        def __init__(self) -> None:
            self.ids = {"": 0, "<end>": 1}

        def convert_tokens_to_ids(self, token: str) -> int:
            return self.ids.setdefault(token.removesuffix("</w>"), len(self.ids))

    tokenizer = Spaced()
    said = reference.Words(torch.nn.Module(), tokenizer, icons)
    icon = icons.find(0, 1)
    text = references.full_caption(icons, Row(icon, 8))
    assert text == "a red apple, flat style, on a blue background"
    tokens = ["", *text.replace(",", " ,").split(), "<end>", "<end>"]
    places = said._places(Row(icon, 8), [tokenizer.convert_tokens_to_ids(token) for token in tokens])
    assert [tokens[place] for place in places] == ["red", "apple", ",", "flat", "style", "blue", "background", "<end>"]


def test_the_hundred_references_are_the_same_each_time_and_none_was_trained_on(icons: data.Icons):
    first, second = (reference_evaluate.cases(icons) for _ in range(2))
    assert len(first) == 100
    assert all(
        one.prompt == other.prompt and one.picture.equal(other.picture)
        for one, other in zip(first, second, strict=True)
    )
    for case in first:
        concept, style, colour = case.prompt.concept, case.prompt.style, case.prompt.colour
        assert (concept == -1) == (case.kind == "things")
        assert case.kind != "combinations" or held_out(concept, style, colour)
        assert case.kind != "pairs" or pair_held_out(concept, style)


def test_small_icons_look_the_same(icons: data.Icons):
    few = replace(icons, pixels=icons.pixels[:3])
    whole, small = (reference.seen(one, [Row(0, 8)], random.Random(3)) for one in (few, references.small(few)))
    assert whole.shape == (1, 3, reference.SIDE, reference.SIDE)
    assert (whole - small).abs().mean() < 0.01
