"""Lists of groups on a page: what the frame tells of their fields, and the field's text."""

import json

import gradio as gr
import pytest
from PIL import Image as PilImages

from webui.core.catalog import Catalog
from webui.core.errors import RequestError
from webui.core.groups.control import Control
from webui.core.groups.detail import Detail
from webui.core.groups.region import Region
from webui.core.images import pixels_sha256
from webui.core.recipe import Recipe
from webui.core.request import Request
from webui.ui import fills, rows
from webui.ui.workbench import settings_of
from webui.workspace import preset_making
from webui.workspace.preset import make_preset

NOTHING = Catalog({}, {}, {}, {}, {})


def test_the_frame_tells_the_fields_with_their_bounds():
    with gr.Blocks():
        fields = rows.build_lists("txt2img")
    groups = ("controls", "regions", "detail")
    assert [fields[group].elem_id for group in groups] == [f"txt2img-{group}" for group in groups]
    assert [info["name"] for info in rows._fields("regions", Region)] == ["box", "weight", "feather", "prompt"]
    told = {info["name"]: info for info in rows._fields("detail", Detail)}
    assert [*told] == ["finder", "prompt", "negative", "strength", "padding", "dilate", "threshold", "at_most"]
    assert (told["finder"]["kind"], told["prompt"]["kind"]) == ("choice", "text")
    assert told["strength"] | {"description": ""} == {
        **{"name": "strength", "title": "Strength", "description": "", "default": 0.4, "kind": "number"},
        **{"least": 0.0, "most": 1.0, "step": 0.05, "always": False},
    }
    told = {info["name"]: info for info in rows._fields("controls", Control)}
    assert [*told] == ["model", "weight", "start", "end", "preprocessor", "mode", "resize", "kind"]
    assert told["model"]["always"] and told["model"]["of_model"] and told["model"]["default"] is None
    assert told["mode"]["choices"] == ("auto", "balanced", "prompt", "control")


def test_the_field_s_text_reads_as_the_same_list_with_loras_as_tags_and_templates_where_words_are_drawn_anew():
    details = (Detail(finder="face", strength=0.3), Detail())
    assert Request.parse({"detail": rows.to_text(details)}).detail == details and rows.to_text(()) == ""
    drawn = Detail(prompt="red", template="{red|blue} <lora:a:1>", loras=({"name": "a", "weight": 1},))
    assert json.loads(rows.to_text([drawn])) == [{"finder": "demo-subject", "prompt": "red <lora:a:1>"}]
    assert json.loads(rows.to_text([drawn], anew=True))[0]["prompt"] == "{red|blue} <lora:a:1>"


def test_a_picture_s_settings_set_the_list_and_those_of_one_without_clear_it():
    def filled(**values):
        return fills.from_picture({"steps": 8} | values, ["detail"], NOTHING, with_seed=True)["detail"]

    assert filled() == "" and json.loads(filled(detail=(Detail(),))) == [{"finder": "demo-subject"}]


def test_pictures_of_rows_are_named_by_their_hashes_and_found_again():
    red = PilImages.new("RGB", (16, 16), "red")
    named = {"controls": json.dumps([{"model": "a", "image": {"sha256": "ab" * 32}}, {"model": "b"}])}
    found = rows.with_pictures(named, {"ab" * 32: red}.get)["controls"]
    request = Request.parse({"controls": found})
    assert [control.image for control in request.controls] == [red, None]
    with pytest.raises(RequestError, match="control 1: its picture is no longer here") as error:
        rows.with_pictures(named, lambda _: None)
    assert error.value.field == "controls.1.image"
    assert rows.with_pictures({"controls": ""}, lambda _: None) == {}
    with pytest.raises(RequestError, match="controls must be JSON"):
        rows.with_pictures({"controls": "[{"}, lambda _: None)
    told = settings_of(Recipe(request))["controls"]
    assert json.loads(rows.to_text(told)) == [{"model": "a", "image": {"sha256": pixels_sha256(red)}}, {"model": "b"}]


def test_a_preset_of_the_page_has_no_picture():
    listed = json.dumps([{"model": "a", "image": {"sha256": "ab" * 32}, "weight": 0.5}])
    held = preset_making.of_page({"prompt": "x", "controls": listed})
    assert make_preset(name="y", **held).fields["controls"] == [{"model": "a", "weight": 0.5}]
