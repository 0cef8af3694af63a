"""Controls come from the fields alone: one that the request learns later needs nothing here."""

import gradio as gr
import pytest
from pydantic import Field

from webui.core.catalog import Catalog
from webui.core.request import Request
from webui.ui import form

NOTHING = Catalog({}, {}, {}, {}, {})


class Later(Request):
    boost: float = Field(default=1.5, ge=0.5, le=2.5, title="Boost", description="How much more")


@pytest.fixture
def boost(monkeypatch):
    monkeypatch.setitem(form.FIELDS, "boost", Later.model_fields["boost"])
    return form.make_control("txt2img", "boost", NOTHING)


def test_a_fraction_is_a_slider_between_its_bounds(boost):
    assert isinstance(boost, gr.Slider) and boost.elem_id == "txt2img-boost"
    assert (boost.minimum, boost.maximum, boost.step, boost.value) == (0.5, 2.5, 0.05, 1.5)
    assert (boost.label, boost.info) == ("Boost", "How much more")


def test_a_group_s_control_has_the_group_in_its_id_and_parameter():
    seed, strength = (form.make_control("inpaint", f"variation.{field}", NOTHING) for field in ("seed", "strength"))
    assert (seed.elem_id, seed.value, seed.precision) == ("inpaint-variation-seed", -1, 0)
    assert (strength.elem_id, strength.value, strength.step) == ("inpaint-variation-strength", 0.0, 0.01)
    assert [*form.signature(["steps", "variation.seed"]).parameters] == ["steps", "variation_seed"]


@pytest.mark.parametrize(
    ("field", "step"), [("guidance", 0.5), ("strength", 0.05), ("token_merging", 0.05), ("steps", 1), ("padding", 8)]
)
def test_sliders_go_in_steps_that_suit_them(field, step):
    assert form.make_control("img2img", field, NOTHING).step == step
