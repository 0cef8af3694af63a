"""What a preset sets on a page."""

import pytest

from webui.core.catalog import Catalog
from webui.ui.preset_values import settings_updates
from webui.workspace.preset import make_preset

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


def test_a_schedule_that_the_preset_does_not_hold_stays():
    preset = make_preset(name="Own", fields={"sampler": "Euler"})
    assert settings_updates(preset, (), ("sampler", "schedule"), CATALOG) == {"sampler": "Euler"}
