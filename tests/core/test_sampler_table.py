"""The table of samplers: which sampler and schedule a name means, and which of them go together."""

import pytest

from webui.core.errors import RequestError
from webui.core.samplers import SAMPLERS, SCHEDULES, resolve

EVERY_PAIR = [(name, schedule) for name, row in SAMPLERS.items() for schedule in row.schedules]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (("euler A", "default"), ("Euler a", "Default")),
        (("DPM++ 2M Karras", "Default"), ("DPM++ 2M", "Karras")),
        (("dpm++ 2m sde exponential", "Default"), ("DPM++ 2M SDE", "Exponential")),
        (("Euler", "Automatic"), ("Euler", "Default")),
        (("LMS", "KARRAS"), ("LMS", "Karras")),
    ],
)
def test_names_are_understood_as_people_paste_them(asked, found):
    assert resolve(*asked) == found


@pytest.mark.parametrize(("name", "schedule"), EVERY_PAIR)
def test_every_offered_pair_resolves_to_itself(name, schedule):
    assert resolve(name, schedule) == (name, schedule)
    assert resolve(f"{name} {schedule}", "Default") == (name, schedule)
    assert schedule in SCHEDULES


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (("Eulr", "Default"), ("sampler", "“Eulr”", "Euler")),
        (("", "Default"), ("sampler", "“”")),
        (("Karras", "Default"), ("sampler", "“Karras”")),
        (("Euler", "Karas"), ("schedule", "“Karas”", "Karras")),
        (("PNDM", "karras"), ("schedule", "schedule “Karras” does not go with PNDM; Default and Trailing do")),
        (("DPM++ SDE", "Trailing"), ("schedule", "does not go with DPM++ SDE; Default, Karras and Exponential do")),
        (("LCM Karras", "Default"), ("schedule", "schedule “Karras” does not go with LCM; Default does")),
    ],
)
def test_an_unknown_or_impossible_name_is_refused_with_near_ones(asked, words):
    with pytest.raises(RequestError) as caught:
        resolve(*asked)
    assert all(word in str(caught.value) for word in words), caught.value
    assert caught.value.field == words[0]
