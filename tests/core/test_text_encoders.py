"""Where text encoders are in a single file, by the names and widths of their norms."""

import pytest

from webui.core.text_encoders import find_text_encoders, has_open_clip_names

ONE, TWO = ("text_encoder",), ("text_encoder", "text_encoder_2")
OPEN_CLIP, HF = "transformer.resblocks.0.ln_1.weight", "text_model.encoder.layers.0.layer_norm1.weight"
BARE_HF = "encoder.layers.0.layer_norm1.weight"


@pytest.mark.parametrize("prefix", ["cond_stage_model.model.", "conditioner.embedders.0.model.", "te.", ""])
@pytest.mark.parametrize("name", [OPEN_CLIP, HF, BARE_HF])
def test_one_is_found_behind_any_prefix(prefix, name):
    assert find_text_encoders({prefix + name: (1024,)}, ONE, 1024) == {"text_encoder": prefix}


def test_of_two_the_wider_one_is_the_second():
    shapes = {"a." + OPEN_CLIP: (1280,), "b.transformer." + HF: (768,)}
    assert find_text_encoders(shapes, TWO, 2048) == {"text_encoder": "b.transformer.", "text_encoder_2": "a."}
    assert find_text_encoders({"a." + OPEN_CLIP: (1280,)}, TWO, 2048) == {"text_encoder_2": "a."}


def test_others_are_none_of_ours():
    shapes = {"visual." + OPEN_CLIP: (1024,), "m.vision_model." + BARE_HF: (1024,), "x." + OPEN_CLIP: (768,), "y": ()}
    assert find_text_encoders(shapes, ONE, 1024) == {}


def test_of_several_the_one_in_its_usual_place_counts():
    shapes = {"a." + HF: (768,), "cond_stage_model.transformer." + HF: (768,)}
    assert find_text_encoders(shapes, ONE, 768) == {"text_encoder": "cond_stage_model.transformer."}


def test_whose_names_they_go_by():
    assert has_open_clip_names({"a." + OPEN_CLIP: (4,)}, "a.")
    assert not has_open_clip_names({"a." + HF: (4,), OPEN_CLIP: (4,)}, "a.")
