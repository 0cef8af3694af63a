"""Lists of groups on a page: what the frame tells of their fields, and the field's text."""

import json

import gradio as gr

from webui.core.catalog import Catalog
from webui.core.groups.detail import Detail
from webui.core.request import Request
from webui.ui import fills, rows

NOTHING = Catalog({}, {}, {}, {}, {})


def test_the_frame_tells_the_fields_with_their_bounds():
    with gr.Blocks():
        (field,) = rows.build_lists("txt2img").values()
    assert field.elem_id == "txt2img-detail"
    told = {info["name"]: info for info in rows._fields(Detail)}
    assert [*told] == ["finder", "prompt", "negative", "strength", "padding", "dilate", "threshold", "at_most"]
    assert (told["finder"]["kind"], told["prompt"]["kind"]) == ("choice", "text")
    assert told["strength"] | {"description": ""} == {
        **{"name": "strength", "title": "Strength", "description": "", "default": 0.4, "kind": "number"},
        **{"least": 0.0, "most": 1.0, "step": 0.05},
    }


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
