"""Which field was refused, and the one plain way to make it good."""

from pathlib import Path

import pytest

from webui.core import samplers
from webui.core.errors import Mend, RequestError
from webui.core.files import LoraFile
from webui.core.names import choose, choose_lora
from webui.core.request import MAX_SEED, Request
from webui.core.wildcards import Wildcards


@pytest.mark.parametrize(
    ("asked", "field", "mend"),
    [
        ({"width": 65}, "width", Mend("use", 64)),
        ({"height": 5000}, "height", Mend("use", 2048)),
        ({"steps": 200}, "steps", Mend("use", 150)),
        ({"steps": 0}, "steps", Mend("use", 1)),
        ({"steps": "many"}, "steps", None),
        ({"seed": MAX_SEED, "count": 4}, "seed", Mend("use", MAX_SEED - 3)),
        ({"hires": {"strength": 1.5}}, "hires.strength", Mend("use", 1.0)),
        ({"detail": [{}, {"padding": 9999}]}, "detail.2.padding", Mend("use", 512)),
        ({"loras": [{"name": "ink", "weight": 40}]}, "loras.1.weight", Mend("use", 10.0)),
    ],
)
def test_bounds_say_the_nearest_value(asked, field, mend):
    with pytest.raises(RequestError) as refused:
        Request.parse(asked)
    assert (refused.value.field, refused.value.mend) == (field, mend)


@pytest.mark.parametrize(
    ("choosing", "mend"),
    [
        (lambda: choose("sampler", "Eular", samplers.SAMPLERS), Mend("use", "Euler")),
        (lambda: choose("sampler", "xyz", samplers.SAMPLERS), None),
        (lambda: samplers.resolve("LCM", "Karras"), Mend("use", "Default")),
        (lambda: choose_lora("nowhere", {}), Mend("remove", "nowhere")),
        (lambda: choose_lora("nigth", {"night": LoraFile("night", Path("night.bin"))}), Mend("use", "night", "nigth")),
        (lambda: Wildcards({}).find("nowhere"), Mend("remove", "nowhere")),
    ],
)
def test_names_that_are_not_there_say_what_can_be_had_instead(choosing, mend):
    with pytest.raises(RequestError) as refused:
        choosing()
    assert refused.value.mend == mend
