"""What a prompt says at each step, and a LoRA's weights over the steps."""

import sys
from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webui.core import schedule
from webui.core.prompt import parse_weights
from webui.core.schedule import as_words, changes, has_marks, read_points, split_terms, text_at, weight_at, write_points

TEXTS = st.text(st.sampled_from("ab5. []():|\\<>\n") | st.characters(), max_size=60)
MARKED = st.lists(
    st.sampled_from(
        ["a", " b", "[", "]", "(", ")", ":", "|", ":0.5]", ":3]", "\\[", "<lora:x:1>", " AND ", "1.2", "\\"]
    )
).map("".join)


def table(text, steps=10, done=0):
    """A1111's form: until which step (1..steps) each text holds."""
    said = [text_at(text, step, steps, done) for step in range(steps)]
    return [[1 + max(group), words] for words, group in groupby(range(steps), said.__getitem__)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("test", [[10, "test"]]),
        ("a [b:3]", [[3, "a "], [10, "a b"]]),
        ("a [b: 3]", [[3, "a "], [10, "a b"]]),
        ("a [[[b]]:2]", [[2, "a "], [10, "a [[b]]"]]),
        ("[(a:2):3]", [[3, ""], [10, "(a:2)"]]),
        ("a [b : c : 1] d", [[1, "a b  d"], [10, "a  c  d"]]),
        ("a[b:[c:d:2]:1]e", [[1, "abe"], [2, "ace"], [10, "ade"]]),
        ("a [unbalanced", [[10, "a [unbalanced"]]),
        ("a [b:.5] c", [[5, "a  c"], [10, "a b c"]]),
        ("a [{b|d{:.5] c", [[5, "a  c"], [10, "a {b|d{ c"]]),
        ("((a][:b:c [d:3]", [[3, "((a][:b:c "], [10, "((a][:b:c d"]]),
        ("[a|(b:1.1)]", [[step, ("(b:1.1)", "a")[step % 2]] for step in range(1, 11)]),
        ("[fe|]male", [[step, ("male", "female")[step % 2]] for step in range(1, 11)]),
        ("[fe|||]male", [[1, "female"], [4, "male"], [5, "female"], [8, "male"], [9, "female"], [10, "male"]]),
    ],
)
def test_the_examples_in_a1111s_source(text, said):
    assert table(text) == said


@pytest.mark.parametrize(
    ("text", "said"), [("a [b:.5] c", [[10, "a b c"]]), ("a [b:1.5] c", [[5, "a  c"], [10, "a b c"]])]
)
def test_its_examples_of_a_second_pass(text, said):
    assert table(text, done=10) == said


def test_where_there_are_no_steps_all_is_said_that_comes_last():
    assert [text_at(f"[a:b:{when}]", 0, 0) for when in ("0.5", "1e999", "1.e999", "-1.e999")] == ["b"] * 4


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[a:b:0.5]", [[5, "a"], [10, "b"]]),
        ("[a::0.25]", [[2, "a"], [10, ""]]),  # rounded down
        ("[a:b:1]", [[1, "a"], [10, "b"]]),  # a step ...
        ("[a:b:1.0]", [[10, "a"]]),  # ... and a share
        ("[a:b:.99]", [[9, "a"], [10, "b"]]),
        ("[a:b:99]", [[10, "a"]]),
        ("[a:b:1e999]", [[10, "a"]]),
        ("[a:b:0]", [[10, "b"]]),
        ("[a:b:-3]", [[10, "b"]]),
        ("[a:b:+3]", [[3, "a"], [10, "b"]]),
        ("[:b:3]", [[3, ""], [10, "b"]]),
        ("[:3]", [[10, ""]]),
        ("[a:3:4]", [[4, "a"], [10, "3"]]),
        ("[a [b|c] d:[e:f:8]:2]", [[1, "a b d"], [2, "a c d"], [8, "e"], [10, "f"]]),
        ("(x [a:b:5]:1.2) [y]", [[5, "(x a:1.2) [y]"], [10, "(x b:1.2) [y]"]]),
        ("[<lora:a:1>::0.4] x", [[4, "<lora:a:1> x"], [10, " x"]]),
        (r"\[a:b:5]", [[10, r"\[a:b:5]"]]),
        (r"[a\:b:c:5]", [[5, r"a\:b"], [10, "c"]]),
        ("a | b [c:d:5]", [[5, "a | b c"], [10, "a | b d"]]),
        ("(a|b) [c:d:5]", [[5, "(a|b) c"], [10, "(a|b) d"]]),
        ("[a|b:c:5]", [[5, "a|b"], [10, "c"]]),
    ],
)
def test_what_is_said_at_each_step(text, said):
    assert changes(text) == (not text.startswith("\\"))
    assert table(text) == said


@pytest.mark.parametrize(
    "text",
    [
        *("[a:b]", "[a:b:]", "[a:b:c]", "[a:b:c:3]", "[a:b:(3)]", "[]", "[[a]]", "(a:b:c)", "[a|b:c]", "a|b"),
        *("[a:b:5", "a:b:5]", "(a [b) c:d:5]", "[a (b:c:5]", "[x [a:b] y:z:5]", "[x (a:b:c) y:z:5]"),
        *("[<lora:a:1>]", "<a:b|c:3>", "time 12:30", "\\", "\n\\\n"),
    ],
)
def test_what_is_no_form_is_text(text):
    assert not changes(text) and table(text) == [[10, text]]


@given(st.text(st.characters(exclude_characters="[]")), st.integers(0, 19))
def test_text_without_marks_is_itself(text, step):
    assert text_at(text, step, 20) == text


@given(TEXTS | MARKED, st.integers(0, 29), st.integers(0, 40))
def test_nothing_raises_and_text_without_a_choice_is_itself(text, step, done):
    said = text_at(text, step, 30, done)
    assert len(said) <= len(text)
    assert split_terms(text)
    if not changes(text):
        assert said == text


@given(MARKED, MARKED, st.integers(1, 20), st.integers(0, 19))
def test_an_edit_of_whole_texts_is_the_one_and_then_the_other(one, other, when, step):
    one, other = (
        text_at(f"x{text}", 0, 1).translate({ord(sign): None for sign in "[]():|\\<>"}) for text in (one, other)
    )
    assert text_at(f"[{one}:{other}:{when}]", step, 20) == (one if step < when else other)


def count_lines(text):
    """How many lines of the module run for a text."""
    count = 0

    def trace(frame, event, _):
        nonlocal count
        count += event == "line"
        return trace if frame.f_code.co_filename == schedule.__file__ else None

    sys.settrace(trace)
    try:
        text_at(text, 3, 20)
        split_terms(text)
    finally:
        sys.settrace(None)
    return count


@pytest.mark.parametrize(
    "piece",
    [
        "[",
        "]",
        "(",
        "[a:",
        ":3]",
        "[a:b:3]",
        "[a|b]",
        "(a:1.2)",
        "(a:b:c)",
        "[(",
        "[a)",
        " AND ",
        "\\",
        "<a:",
        "::",
        "a:1 AND",
    ],
)
@pytest.mark.parametrize("wrap", [("", ""), ("[x:", ":5]"), ("[" * 300, "]" * 300), ("[a:" * 300, ":5]" * 300)])
def test_twice_the_text_is_twice_the_work(piece, wrap):
    small, large = (count_lines(f"{wrap[0] * size}{piece * 200 * size}{wrap[1] * size}") for size in (1, 2))
    assert large <= 2 * small + 50


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("a cat", [("a cat", 1.0)]),
        (" a cat :0.5 ", [(" a cat :0.5 ", 1.0)]),  # one alone is words
        ("a AND b", [("a", 1.0), ("b", 1.0)]),
        ("a AND b:0.6", [("a", 1.0), ("b", 0.6)]),
        ("a :1.2 AND b : -.5 AND c:2.", [("a", 1.2), ("b", -0.5), ("c", 2.0)]),
        ("a AND (b:0.6)", [("a", 1.0), ("(b:0.6)", 1.0)]),
        ("a AND [x:y:3] :0.5", [("a", 1.0), ("[x:y:3]", 0.5)]),
        ("a AND b\n:0.6\n", [("a", 1.0), ("b", 0.6)]),
        ("a AND b:1e-1", [("a", 1.0), ("b:1e-1", 1.0)]),  # as in A1111
        ("AND", [("", 1.0), ("", 1.0)]),
        ("SAND AND ANDY and b", [("SAND", 1.0), ("ANDY and b", 1.0)]),
        ("a <lora:x AND y:1> b", [("a <lora:x AND y:1> b", 1.0)]),
        ("[a AND b:c:5]", [("[a", 1.0), ("b:c:5]", 1.0)]),
    ],
)
def test_prompts_between_and(text, terms):
    assert list(split_terms(text)) == terms


@pytest.mark.parametrize("text", ["a AND b", "[a:b:3]", "[a|b]", "[a::0.4] AND b", "([a:3]:1.2)"])
def test_marks_are_found(text):
    assert has_marks(text)


@pytest.mark.parametrize("text", ["", "a cat", "(a:1.2) [b]", "[a:b", "{a|b}", "a:0.5", "Anderson and SANDY"])
def test_plain_words_have_none(text):
    assert not has_marks(text)


@given(TEXTS | MARKED)
def test_as_words_it_says_what_it_said_as_plain_text(text):
    words = as_words(text)
    assert not has_marks(words) and parse_weights(words) == parse_weights(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a [cat:dog:0.5] (b:1.2)", r"a [cat\:dog\:0.5] (b:1.2)"),
        ("[a|(b:1.1)]", r"[a\|(b:1.1)]"),
        ("[a [b:c:2]:3] AND d:0.6", r"[a [b\:c\:2]\:3] \AND d:0.6"),
        ("a:0.6 (b:1.2), [c]", "a:0.6 (b:1.2), [c]"),
    ],
)
def test_marks_are_escaped(text, words):
    assert as_words(text) == words


@pytest.mark.parametrize(
    ("text", "points"),
    [
        ("0.8", 0.8),
        ("1@0,0.5@0.5", ((0, 1), (0.5, 0.5))),
        ("1@0;0.5@0.5", ((0, 1), (0.5, 0.5))),
        (" 1 @ 0 , 0.5 @ 0.5 ", ((0, 1), (0.5, 0.5))),
        ("0.5@3,1@6,1@0", ((0, 1), (3, 0.5), (6, 1))),
        ("0@0.5;1", ((0.5, 0), (1, 1))),
        ("1@0,1@0.5,0@0.5", ((0, 1), (0.5, 1), (0.5, 0))),
        ("-1@0", ((0, -1),)),
    ],
)
def test_points_of_a_lora(text, points):
    assert read_points(text) == points
    assert read_points(write_points(points)) == points


@pytest.mark.parametrize("text", ["", "strong", "1@", "@1", "1@0,", "1@0,,1@1", "1@a", "nan", "inf@0", "1@-1", "1@0@1"])
def test_what_is_no_weight_is_refused(text):
    with pytest.raises(ValueError, match=r"is not a weight|before the first step"):
        read_points(text)


def weights(text, steps):
    return [weight_at(read_points(text), step, steps) for step in range(steps)]


@pytest.mark.parametrize(
    ("text", "steps", "drawn"),
    [
        ("0.7", 3, [0.7] * 3),
        ("0@0,1@1", 5, [0, 0.25, 0.5, 0.75, 1]),
        ("1@0,0.5@0.5", 8, [1, 0.875, 0.75, 0.625, 0.5, 0.5, 0.5, 0.5]),
        ("0.25@0.5,1@1", 6, [0.25, 0.25, 0.25, 0.25, 0.625, 1]),
        ("1@0,1@0.5,0@0.5", 6, [1, 1, 1, 0, 0, 0]),
        ("1@0.4,0@0.4", 12, [1] * 4 + [0] * 8),  # as in [a::0.4]
        ("0@0,1@0,0@1,5@1", 3, [1, 0.5, 0]),  # behind the end nothing is drawn
        ("0.75@0;0.5@3;1@6", 8, [0.75, 0.6667, 0.5833, 0.5, 0.6667, 0.8333, 1, 1]),  # the last is above 1: steps
        ("0@5,1@6", 8, [0, 0, 0, 0, 0, 0, 1, 1]),
        ("0@0,1@5", 4, [0, 0.2, 0.4, 0.6]),
        ("0@0,1@1", 1, [1]),
        ("-1@0,1@1", 3, [-1, 0, 1]),
    ],
)
def test_weights_over_the_steps(text, steps, drawn):
    assert weights(text, steps) == pytest.approx(drawn)


@pytest.mark.parametrize("steps", [9, 20, 150])
def test_a_line_is_drawn_in_few_weights_and_reaches_both_ends(steps):
    drawn = weights("0@0,1@1", steps)
    assert (drawn[0], drawn[-1]) == (0, 1) and drawn == sorted(drawn)
    assert len(set(drawn)) == 8
    assert len(set(weights("0@0,1@0.5,0@1", steps))) <= 16


@given(
    st.lists(st.tuples(st.floats(0, 200), st.floats(-10, 10)), min_size=1, max_size=6).map(
        lambda points: tuple(sorted(points, key=lambda point: point[0]))
    ),
    st.integers(1, 150),
    st.data(),
)
def test_a_weight_is_never_outside_of_its_points(points, steps, data):
    values = [weight for _, weight in points]
    weight = weight_at(points, data.draw(st.integers(0, steps - 1)), steps)
    assert min(values) - 1e-4 <= weight <= max(values) + 1e-4
