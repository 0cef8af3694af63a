"""What a preset sets on a page."""

import pytest

from webui.core.catalog import Catalog
from webui.core.errors import RequestError
from webui.ui.preset_values import settings_updates
from webui.ui.presets import read_styles
from webui.workspace.preset import make_preset
from webui.workspace.presets import PresetStore

CATALOG = Catalog({}, {}, {}, {}, {"DPM++ 2M": ("Default", "Karras"), "Euler": ("Default",)})


@pytest.mark.parametrize(
    ("held", "sampler", "schedule"),
    [
        ({"sampler": "DPM++ 2M Karras"}, "DPM++ 2M", "Karras"),
        ({"sampler": "dpmpp_2m", "schedule": "karras"}, "DPM++ 2M", "Karras"),
        ({"sampler": "k_euler", "schedule": "Automatic"}, "Euler", "Default"),
    ],
)
def test_samplers_are_known_by_the_names_of_other_programs(held, sampler, schedule):
    preset = make_preset(name="Other", fields=held)
    updates = settings_updates(preset, (), ("sampler", "schedule"), CATALOG)
    assert updates == {"sampler": sampler, "schedule": schedule}


def test_the_page_s_size_stays_where_that_is_asked_for():
    preset = make_preset(name="Large", fields={"width": 1024, "height": 1024, "steps": 4})
    fields = ("width", "height", "steps", "keep_size")
    assert settings_updates(preset, (), fields, CATALOG)["width"] == 1024
    assert settings_updates(preset, (), fields, CATALOG, own_size=True) == {"steps": 4}


def test_a_prompt_of_its_own_takes_the_styles_off_and_one_around_the_page_s_leaves_them():
    whole = make_preset(name="Whole", fields={"prompt": "a {thing}"}, variables={"thing": "cat"})
    around = make_preset(name="Around", fields={"prompt": "{prompt}, oil"}, variables={"prompt": ""})
    fields = ("prompt", "styles")
    assert settings_updates(whole, ("fox",), fields, CATALOG) == {"prompt": "a fox", "styles": ""}
    assert settings_updates(around, ("a fox",), fields, CATALOG) == {"prompt": "a fox, oil"}


@pytest.mark.parametrize(
    ("text", "names"),
    [("", []), (None, []), ('["By night", "3D style"]', ["By night", "3D style"]), ("style-flat", ["Flat style"])],
)
def test_the_field_of_styles_holds_their_names(text, names, tmp_path):
    assert [style.name for style in read_styles(text, PresetStore(tmp_path))] == names


@pytest.mark.parametrize("text", ["[", "[3]", '["Nothing like it"]', '["Flat sticker"]', "[" * 99_999])
def test_what_is_no_list_of_styles_is_refused(text, tmp_path):
    with pytest.raises(RequestError):
        read_styles(text, PresetStore(tmp_path))


def test_a_schedule_that_the_preset_does_not_hold_stays():
    preset = make_preset(name="Own", fields={"sampler": "Euler"})
    assert settings_updates(preset, (), ("sampler", "schedule"), CATALOG) == {"sampler": "Euler"}
