"""Other programs' names of samplers and schedules: ours for them, or why there is none."""

import pytest

from webui.interop.sampler_names import translate

KNOWN = {"Euler a": ("Default", "Karras", "Trailing"), "PNDM": ("Default", "Trailing"), "LCM": ("Default",)}


@pytest.mark.parametrize(
    ("sampler", "schedule", "ours"),
    [
        ("Euler a", "Karras", ("Euler a", "Karras")),
        ("k_euler_ancestral", "karras", ("Euler a", "Karras")),
        ("euler_ancestral", "sgm_uniform", ("Euler a", "Trailing")),
        ("Euler a Karras", None, ("Euler a", "Karras")),
        ("plms", "Automatic", ("PNDM", "Default")),
        ("lcm", None, ("LCM", "Default")),
    ],
)
def test_names_are_ours(sampler, schedule, ours):
    values, lines = translate(sampler, schedule, KNOWN)
    assert ((values["sampler"], values["schedule"]), lines) == (ours, [])


@pytest.mark.parametrize(
    ("sampler", "schedule", "line"),
    [
        ("PLMS", "karras", "schedule: “karras” does not go with PNDM; Default and Trailing do"),
        ("lcm", "sgm_uniform", "schedule: “sgm_uniform” does not go with LCM; Default does"),
        ("LCM Karras", None, "schedule: “Karras” does not go with LCM; Default does"),
        ("Euler a", "Beta", "schedule: “Beta” is not known here"),
    ],
)
def test_a_schedule_that_cannot_be_taken_is_said_and_why(sampler, schedule, line):
    values, lines = translate(sampler, schedule, KNOWN)
    assert (list(values), lines) == (["sampler"], [line])


def test_an_unknown_sampler_is_said_with_its_schedule():
    assert translate("Restart", "Karras", KNOWN) == (
        {},
        ["sampler: “Restart” with schedule “Karras” is not known here"],
    )
