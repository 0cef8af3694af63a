"""What a pass is told in which of its steps."""

from pathlib import Path

import pytest

from webui.core.files import LoraFile, ModelFile
from webui.core.schedule import read_points
from webui.core.spans import Span, Term, spans
from webui.core.stages import LoraSchedule, LoraUse, Pass

LORA, OTHER = (LoraFile(name, Path(f"{name}.safetensors")) for name in ("night", "sepia"))


def make_pass(prompt="", **fields) -> Pass:
    file = ModelFile("demo", Path("demo"))
    plain = {"steps": 20, "sampler": "Euler", "schedule": "Default", "negative": "", "guidance": 5.0}
    return Pass(file, (64, 64), prompt=prompt, **(plain | fields))


def told(prompt, **fields):
    """Until which step what is said, a term of weight 1 as its text alone."""
    return [
        (span.stop, *(term.text if term.weight == 1 else (term.text, term.weight) for term in span.terms))
        for span in spans(make_pass(prompt, **fields))
    ]


def worn(*schedules, prompt="x", **fields):
    stage = make_pass(prompt, lora_schedules=schedules, **fields)
    return [(span.stop, [(use.file.name, use.unet, use.text) for use in span.loras]) for span in spans(stage)]


@pytest.mark.parametrize("prompt", ["a red apple", " a  [less] (more:1.2) a:0.5 ", "[a:b", ""])
def test_a_prompt_is_one_span_of_one_term(prompt):
    use = LoraUse(LORA, 0.5)
    (span,) = spans(make_pass(prompt, negative=" ugly", loras=(use,)))
    assert span == Span(20, (Term(prompt, 1.0),), " ugly", (use,))


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("a [cat:dog:0.5], flat", [(10, "a cat, flat"), (20, "a dog, flat")]),
        ("[a:b:0.25] [x::10] [:y:15]", [(5, "a x"), (10, "b x"), (15, "b"), (20, "b  y")]),
        ("a cat AND a dog :0.6", [(20, "a cat", ("a dog", 0.6))]),
        ("[a:b:2] AND c:-1", [(2, "a", ("c", -1)), (20, "b", ("c", -1))]),
        ("x AND y:0", [(20, "x")]),  # the very same as x
        ("x:0 AND y:0", [(20, ("x", 0))]),
        ("x AND [y:z:3]:0", [(20, "x")]),
        ("[a:a:3]", [(20, "a")]),
    ],
)
def test_terms_over_the_steps(prompt, said):
    assert told(prompt) == said


def test_words_that_take_turns_are_a_span_each_step():
    assert told("a [cow|horse]", steps=3) == [(1, "a cow"), (2, "a horse"), (3, "a cow")]


@pytest.mark.parametrize(("strength", "said"), [(0.5, [(5, "a"), (10, "b")]), (0.01, [(1, "b")]), (0.0, [(0, "b")])])
def test_half_of_the_steps_is_half_of_those_that_are_taken(strength, said):
    assert told("[a:b:0.5]", strength=strength, begin="picture") == said


def test_the_negative_prompt_changes_too_and_has_no_terms():
    found = spans(make_pass("x", negative="[a:b AND c:5]"))
    assert [(span.stop, span.negative) for span in found] == [(5, "a"), (20, "b AND c")]


def test_loras_change_over_the_steps():
    points = read_points("1@0,1@0.5,0.5@0.5")
    assert worn(LoraSchedule(LORA, points, 1.0)) == [(10, [("night", 1, 1)]), (20, [("night", 0.5, 1)])]
    until = read_points("1@0,1@0.5,0@0.5")
    assert worn(LoraSchedule(LORA, until, until)) == [(10, [("night", 1, 1)]), (20, [])]
    ramp = worn(LoraSchedule(LORA, read_points("0@0,1@1"), 0.0))
    assert len(ramp) == 8 and ramp[0] == (2, []) and ramp[-1] == (20, [("night", 1, 0)])


def test_constant_loras_come_first_and_keep_what_they_are():
    use, until = LoraUse(OTHER, 0.3, 0.1), read_points("1@0,1@0.5,0@0.5")
    first, second = spans(make_pass("x", loras=(use,), lora_schedules=(LoraSchedule(LORA, until, until),)))
    assert first.loras == (use, LoraUse(LORA, 1.0, 1.0)) and second.loras == (use,)


def test_a_tag_acts_where_the_prompt_says_it_and_as_often():
    tag = "<lora:night:0.5>"
    schedule = LoraSchedule(LORA, 0.5, 0.5, tag)
    assert worn(schedule, prompt=f"[{tag}a::0.4] b") == [(8, [("night", 0.5, 0.5)]), (20, [])]
    assert worn(schedule, prompt=f"[{tag}{tag}a:b:8] AND [{tag}c:d:8]") == [(8, [("night", 1.5, 1.5)]), (20, [])]
    assert told(f"[{tag}a::0.4] b", lora_schedules=(schedule,)) == [(8, "a b"), (20, "b")]
