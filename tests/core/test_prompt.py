"""Prompts: LoRA tags out of the text, and into names with weights; brackets into weights of words; BREAK."""

import math
import re
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webui.core.errors import RequestError
from webui.core.prompt import (
    WEIGHT_LIMIT,
    Words,
    join_loras,
    parse_weights,
    split_constant_loras,
    split_loras,
    unbalanced,
    unclosed,
    unsupported,
)
from webui.core.request import MAX_LORAS, LoraRef


@pytest.mark.parametrize(
    ("tag", "name", "on_unet", "on_text"),
    [
        ("<lora:chalk:0.8>", "chalk", 0.8, 0.8),
        ("<lora:chalk:0.5:0.9>", "chalk", 0.9, 0.5),  # as in A1111, the text encoder's comes first
        ("<lora:chalk>", "chalk", 1.0, 1.0),
        ("<LoRA:chalk:1>", "chalk", 1.0, 1.0),
        ("<lyco:chalk:0.5:0.9>", "chalk", 0.9, 0.5),
        ("<lora:chalk:-1>", "chalk", -1.0, -1.0),
        ("<lora:chalk:0>", "chalk", 0.0, 0.0),
        ("<lora:chalk:.5>", "chalk", 0.5, 0.5),
        ("<lora:chalk:1e-1>", "chalk", 0.1, 0.1),
        ("<lora: a b/c d : 0.3 >", "a b/c d", 0.3, 0.3),
        ("<lora:chalk:te=0.2:unet=0.7>", "chalk", 0.7, 0.2),
        ("<lora:chalk:unet=0.7:te=0.2>", "chalk", 0.7, 0.2),
        ("<lora:chalk:te=0.2>", "chalk", 0.2, 0.2),
        ("<lora:chalk:0.2:unet=0.7>", "chalk", 0.7, 0.2),
        ("<lora:../../etc/passwd:1>", "../../etc/passwd", 1.0, 1.0),  # a name to look up, never a path
        ("<lora:💥\0:1>", "💥\0", 1.0, 1.0),
    ],
)
def test_a_tag_is_a_name_with_weights(tag, name, on_unet, on_text):
    text, (found,) = split_loras(f"a red apple {tag}")
    assert text == "a red apple"
    assert (found.name, found.strengths) == (name, (on_unet, on_text))


def test_tags_are_taken_in_order_from_wherever_they_are():
    text, found = split_loras("<lora:a:1>a red<lora:b:0.5> apple, <lora:a:0.2>")
    assert text == "a red apple,"
    assert [str(ref) for ref in found] == ["a:1", "b:0.5", "a:0.2"]


@pytest.mark.parametrize(
    "text", ["", " a  red apple ", "<lora>", "<lora:a", "lora:a:1>", "a < b > c", "<hypernet:a:1>"]
)
def test_text_without_tags_stays_as_it_is(text):
    assert split_loras(text) == (text, ())


@pytest.mark.parametrize(
    ("tag", "reason"),
    [
        ("<lora:chalk:0.8:lbw=OUTAL>", "(lbw) must be values, one a block, or a preset: NONE, ALL, INS"),
        ("<lora:chalk:dyn=4>", "'dyn' is not supported"),
        ("<lora:chalk:1:1:1>", "must be NAME, NAME:WEIGHT or NAME:TEXT:UNET"),
        ("<lora:chalk:strong>", "number"),
        ("<lora:chalk:>", "number"),
        ("<lora:chalk:nan>", "finite"),
        ("<lora:chalk:inf>", "finite"),
        ("<lora:chalk:1e999>", "finite"),
        ("<lora:chalk:11>", "10"),
        ("<lora:chalk:1:-11>", "10"),
        ("<lora:chalk:11:1>", "10"),
        ("<lora:>", "name must not be empty"),
        ("<lora: :1>", "name must not be empty"),
        (f"<lora:{'x' * 256}:1>", "255"),
    ],
)
def test_a_tag_that_cannot_be_read_is_refused_by_itself_and_the_reason(tag, reason):
    with pytest.raises(RequestError) as caught:
        split_loras(f"an apple <lora:good:1> {tag}")
    text = str(caught.value)
    assert text.startswith(f"prompt: {tag[:80]}") and "cannot be read" in text and reason in text
    assert caught.value.field == "prompt" and len(text) < 400


names = st.text(st.characters(exclude_characters="<>:", exclude_categories=("Cs",)), min_size=1, max_size=255)
weights = st.floats(-10, 10).map(lambda weight: float(f"{weight:g}"))  # tags are for people: six digits
refs = st.builds(LoraRef, name=names.map(str.strip).filter(bool), weight=weights, text_weight=st.none() | weights)
words = st.text(st.characters(exclude_characters="<", exclude_categories=("Cs",)), max_size=60).map(str.strip)


@given(words, st.lists(refs, min_size=1, max_size=5).map(tuple))
def test_what_is_joined_is_split_again(text, loras):
    again, found = split_loras(join_loras(text, loras))
    assert again == text
    assert [(ref.name, ref.strengths) for ref in found] == [(ref.name, ref.strengths) for ref in loras]


@given(st.text(max_size=80) | st.lists(st.sampled_from(["<lora:", ":", ">", "a", "0.5", "=", "te"])).map("".join))
def test_any_text_is_split_or_refused(text):
    try:
        rest, found = split_loras(text)
    except RequestError as error:
        assert error.field == "prompt"
    else:
        assert all(-10 <= weight <= 10 for ref in found for weight in ref.strengths)
        assert rest == text or found


PIECES = 40_000  # of which a square would take minutes


@pytest.mark.parametrize("piece", ["<lora:", "<lora:a:", "<lora:a:1>", "<", "<lora:a:1", "<lora", ":"])
def test_forty_thousand_pieces_of_tags_take_linear_time(piece):
    start = time.thread_time()
    split_loras(piece * PIECES)
    assert time.thread_time() - start < 2  # the slowest, of whole tags, about a fifth of a second


B = "BREAK"  # between the words of two chunks, below
DOWN = 1 / 1.1


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        # A1111's own examples
        ("normal text", [("normal text", 1)]),
        ("an (important) word", [("an ", 1), ("important", 1.1), (" word", 1)]),
        ("(unbalanced", [("unbalanced", 1.1)]),
        (r"\(literal\]", [("(literal]", 1)]),
        ("(unnecessary)(parens)", [("unnecessaryparens", 1.1)]),
        (
            "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).",
            [
                ("a ", 1),
                ("house", 1.573),
                (" ", 1.1),
                ("on", 1),
                (" a ", 1.1),
                ("hill", 0.55),
                (", sun, ", 1.1),
                ("sky", 1.4641),
                (".", 1.1),
            ],
        ),
        # plain text
        ("", [("", 1)]),
        (" ", [(" ", 1)]),
        ("a red apple, flat style", [("a red apple, flat style", 1)]),
        ("time: 12:30", [("time: 12:30", 1)]),
        ("a {b|c} <d> \n e", [("a {b|c} <d> \n e", 1)]),
        ("日本語 🍎 é", [("日本語 🍎 é", 1)]),
        # a pair alone
        ("(a)", [("a", 1.1)]),
        ("[a]", [("a", DOWN)]),
        ("( a )", [(" a ", 1.1)]),
        ("()", [("", 1)]),
        ("[]a()", [("a", 1)]),
        ("a (b), c", [("a ", 1), ("b", 1.1), (", c", 1)]),
        ("a [b], c", [("a ", 1), ("b", DOWN), (", c", 1)]),
        # nested
        ("((a))", [("a", 1.21)]),
        ("(((a)))", [("a", 1.331)]),
        ("[[a]]", [("a", DOWN * DOWN)]),
        ("[[[a]]]", [("a", DOWN**3)]),
        ("([a])", [("a", 1)]),
        ("[(a)]", [("a", 1)]),
        ("(([a]))", [("a", 1.1)]),
        ("(([a]))(b)", [("ab", 1.1)]),
        ("(a (b) c)", [("a ", 1.1), ("b", 1.21), (" c", 1.1)]),
        ("(a [b] c)", [("a ", 1.1), ("b", 1), (" c", 1.1)]),
        ("[a (b:2) c]", [("a ", DOWN), ("b", 2 * DOWN), (" c", DOWN)]),
        # numbers
        ("(a:1.3)", [("a", 1.3)]),
        ("(a:2)", [("a", 2)]),
        ("(a:1.)", [("a", 1)]),
        ("(a:.5)", [("a", 0.5)]),
        ("(a:0)", [("a", 0)]),
        ("(a:-1)", [("a", -1)]),
        ("(a:+1.5)", [("a", 1.5)]),
        ("(a:-.5)", [("a", -0.5)]),
        ("(a: 1.3)", [("a", 1.3)]),
        ("(a:1.3 )", [("a", 1.3)]),
        ("(a :\n 1.3\t)", [("a ", 1.3)]),
        ("(a b, c:1.3) d", [("a b, c", 1.3), (" d", 1)]),
        ("((a:1.3))", [("a", 1.43)]),
        ("((a:1.3):0.5)", [("a", 0.65)]),
        ("((a:0):5)", [("a", 0)]),
        ("(a:b:1.3)", [("a:b", 1.3)]),
        ("(:1.3)", [("", 1)]),
        ("(a:1)b", [("ab", 1)]),
        ("(a:1.2)(b:1.2)", [("ab", 1.2)]),
        ("(a:1.2)(b:1.3)", [("a", 1.2), ("b", 1.3)]),
        # what looks like a number, and is none
        ("(a:1.2.3)", [("a:1.2.3", 1.1)]),
        ("(a:.)", [("a:.", 1.1)]),
        ("(a:)", [("a:", 1.1)]),
        ("(a:-)", [("a:-", 1.1)]),
        ("(a:1e3)", [("a:1e3", 1.1)]),
        ("(a:1,3)", [("a:1,3", 1.1)]),
        ("(a:nan)", [("a:nan", 1.1)]),
        ("(a:inf)", [("a:inf", 1.1)]),
        ("(a:1.3 b)", [("a:1.3 b", 1.1)]),
        ("(a:1 3)", [("a:1 3", 1.1)]),
        ("[a:1.3]", [("a:1.3", DOWN)]),
        ("[a:b:0.5]", [("a:b:0.5", DOWN)]),
        ("a:1.3", [("a:1.3", 1)]),
        ("a:1.3)", [("a:1.3)", 1)]),
        ("[a:1.3)", [("a:1.3)", DOWN)]),
        # out of balance
        ("a)", [("a)", 1)]),
        ("a]", [("a]", 1)]),
        (")(", [(")", 1)]),
        (")a(b", [(")a", 1), ("b", 1.1)]),
        ("a ((b", [("a ", 1), ("b", 1.21)]),
        ("a [b", [("a ", 1), ("b", DOWN)]),
        ("(a))", [("a", 1.1), (")", 1)]),
        ("((a) b", [("a", 1.21), (" b", 1.1)]),
        ("(a]", [("a]", 1.1)]),
        ("((a:1.3) b", [("a", 1.43), (" b", 1.1)]),
        ("(a [b) c]", [("a ", 1.1), ("b", 1), (" c", DOWN)]),  # each kind nests by itself
        ("[a (b] c)", [("a ", DOWN), ("b", 1), (" c", 1.1)]),
        # escapes
        (r"\(a\)", [("(a)", 1)]),
        (r"\[a\]", [("[a]", 1)]),
        (r"a \\ b", [("a \\ b", 1)]),
        (r"\\(a)", [("\\", 1), ("a", 1.1)]),
        (r"(\(a\):1.3)", [("(a)", 1.3)]),
        (r"(a\))", [("a)", 1.1)]),
        (r"(a:1.3\)", [("a:1.3)", 1.1)]),
        (r"(a\:1.3)", [("a", 1.3)]),  # a colon cannot be escaped
        (r"a\b", [("ab", 1)]),
        ("a\\", [("a", 1)]),
        (r"pow_\(cookie\), (red:1.2)", [("pow_(cookie), ", 1), ("red", 1.2)]),
        # BREAK
        ("a BREAK b", [("a", 1), B, ("b", 1)]),
        ("a\nBREAK\nb", [("a", 1), B, ("b", 1)]),
        ("a,BREAK,b", [("a,", 1), B, (",b", 1)]),
        (" a \n BREAK \n b ", [(" a", 1), B, ("b ", 1)]),
        ("BREAK a (b:1)", [("", 1), B, ("a b", 1)]),
        ("(b:1) a BREAK", [("b a", 1), B, ("", 1)]),
        ("a  BREAK  BREAK  b", [("a", 1), B, ("", 1), B, ("b", 1)]),
        ("BREAK", [("", 1), B, ("", 1)]),
        ("BREAK a", [("", 1), B, ("a", 1)]),
        ("a BREAK", [("a", 1), B, ("", 1)]),
        ("a BREAK BREAK b", [("a", 1), B, ("", 1), B, ("b", 1)]),
        ("(a)BREAK(b)", [("a", 1.1), B, ("b", 1.1)]),
        ("(a BREAK b:1.5) c", [("a", 1.5), B, ("b", 1.5), (" c", 1)]),
        ("(a) BREAK [b] c", [("a", 1.1), B, ("b", DOWN), (" c", 1)]),
        ("a BREAKS, OUTBREAK, break, _BREAK", [("a BREAKS, OUTBREAK, break, _BREAK", 1)]),
    ],
)
def test_brackets_weigh_their_words(prompt, expected):
    found: list[object] = []
    for words in parse_weights(prompt):
        found += [B] if words.starts_chunk else []
        found.append((words.text, pytest.approx(words.weight, rel=1e-9)))
    assert found == expected


@pytest.mark.parametrize(
    ("prompt", "weight"),
    [
        ("(" * 100_000 + "a", WEIGHT_LIMIT),
        ("(" * 100_000 + "a:-1" + ")" * 100_000, -WEIGHT_LIMIT),
        ("(" * 100_000 + "a:0" + ")" * 100_000, 0),
        ("[" * 100_000 + "a", 0),
        (f"(a:{'9' * 400})", WEIGHT_LIMIT),
        (f"((a:-{'9' * 400}):0)", 0),
    ],
)
def test_weights_have_a_limit(prompt, weight):
    assert parse_weights(prompt) == (Words("a", weight),)


@pytest.mark.parametrize(
    ("prompt", "wrong"),
    [
        ("", ""),
        ("a (b [c]:1.3), [d]", ""),
        ("(a [b) c]", ""),
        (r"\( a \] \\", ""),
        ("(a", "1 ( that is never closed"),
        ("((a) [b", "1 ( that is never closed and 1 [ that is never closed"),
        ("a))", "2 ) that is never opened"),
        ("a:1.3)", "1 ) that is never opened"),
        (")(", "1 ( that is never closed and 1 ) that is never opened"),
        ("(a]", "1 ( that is never closed and 1 ] that is never opened"),
        (r"(a\)", "1 ( that is never closed"),
        (r"(a\\)", ""),
    ],
)
def test_what_is_out_of_balance_is_said(prompt, wrong):
    assert unbalanced(prompt) == wrong


brackets = st.lists(
    st.sampled_from(["(", ")", "[", "]", ":", "1.3", ":1.3)", ":-2)", "\\", "a", " ", ",", "BREAK", "é"])
).map("".join)


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a red apple [green:blue:0.5]", ["[green:blue:0.5] (prompt editing) is"]),
        ("[green:0.5]", ["[green:0.5] (prompt editing) is"]),
        ("[green:blue:2e1]", ["[green:blue:2e1] (prompt editing) is"]),
        ("a [red::12] apple", ["[red::12] (prompt editing) is"]),
        ("[a cat:a (dog:1.2): .5 ]", ["[a cat:a (dog:1.2): .5 ] (prompt editing) is"]),
        ("([a:b:0.5], [c::3])", ["[a:b:0.5] and 1 more (prompt editing) are"]),
        ("[x:[b:c:0.5]:0.3]", ["[b:c:0.5] and 1 more (prompt editing) are"]),
        (f"[{'x' * 90}:0.3]", [f"[{'x' * 59}... (prompt editing) is"]),
        ("[green|blue]", ["[green|blue] (alternating words) is"]),
        ("[a|b||(c:1.1)]", ["[a|b||(c:1.1)] (alternating words) is"]),
        ("an apple AND a sky :0.5 AND x", ["AND and 1 more (several prompts in one) are"]),
        ("<hypernet:foo:1> <wildcard:x>", ["<hypernet:foo:1> and 1 more (an extra network) are"]),
        ("${hue=red} a ${hue} apple, $5", ["${hue=red} and 1 more (a variable) are"]),
        ("a __colour/bright(hue=red)__ apple", ["__colour/bright(hue=red)__ (a variable) is"]),
        ("[a|b] ${x}", ["[a|b] (alternating words) is", "${x} (a variable) is"]),
        ("a __colour/bright__ {apple|{2$$pear|plum}}", []),
    ],
)
def test_forms_that_the_first_syntax_does_not_know_are_said(prompt, expected):
    lines = unsupported(prompt, syntax=1)
    assert [line.partition(" not supported here and ")[0] for line in lines] == expected
    assert all(line.endswith("read as plain words.") for line in lines)
    marks = ("prompt editing", "alternating words", "several prompts")
    assert unsupported(prompt) == tuple(line for line in lines if not any(mark in line for mark in marks))


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("[x [a:b] y:z:5]", "[x [a:b] y:z:5] (prompt editing) is"),
        ("[a AND b:c:5]", "[a AND b:c:5] (prompt editing) is"),
        ("[a|(b:c:d)], [e:f:2]", "[a|(b:c:d)] (alternating words) is"),
        ("[(a:b:c):0.5] AND [e:f:2] AND [x [a:b] y:z:5]", "[(a:b:c):0.5] and 1 more (prompt editing) are"),
    ],
)
def test_brackets_that_are_no_form_of_a1111s_are_said(prompt, said):
    (line,) = unsupported(prompt)
    assert line.partition(" not supported here and ")[0] == said


def test_several_negative_prompts_are_words():
    assert unsupported("a AND b", negative=True) == (
        "AND (several prompts in one) is not supported here and is read as plain words.",
    )


@pytest.mark.parametrize(
    ("prompt", "wrong"),
    [
        ("a [cat:dog:0.5", "1 [ that is never closed"),
        ("(a [b", "1 ( that is never closed and 1 [ that is never closed"),
        (":-) [x]", ""),
        ("[a AND b]", "1 [ that is never closed"),
        ("<lora:a[:1>", ""),
    ],
)
def test_brackets_that_nothing_closes_are_said(prompt, wrong):
    assert unclosed(prompt) == wrong


@pytest.mark.parametrize(
    ("prompt", "kept", "constant", "moving"),
    [
        ("a <lora:x:0.5> b", "a  b", ["x:0.5"], []),
        ("[<lora:x:1>::0.4] b", "[<lora:x:1>::0.4] b", [], ["x:1"]),
        ("[<lora:x>|<lora:y:2>] b <lora:z:1>", "[<lora:x>|<lora:y:2>] b", ["z:1"], ["x:1", "y:2"]),
        ("[[<lora:x:1>]:3] ([<lora:y:1>])", "[[<lora:x:1>]:3] ([])", ["y:1"], ["x:1"]),
        (" a  b", " a  b", [], []),
        ("<<lora:x:1>lora:y:1> b", "b", ["x:1", "y:1"], []),  # the other is one as soon as the first is out of it
        (r"\<lora:x:1>[<lora:y:1>:3]", r"\[:3]", ["x:1", "y:1"], []),
    ],
)
def test_tags_that_hold_at_some_steps_only_stay(prompt, kept, constant, moving):
    text, *found = split_constant_loras(prompt)
    assert (text, *([str(ref) for ref in refs] for refs in found)) == (kept, constant, moving)
    assert split_constant_loras(text)[:2] == (text, ())


def test_tags_within_tags_are_read_until_they_are_too_many():
    depth = MAX_LORAS + 3
    _, constant, _ = split_constant_loras("<" * depth + "lora:x:1>" + "lora:x:1>" * (depth - 1))
    assert len(constant) == MAX_LORAS + 1


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "a (red:1.2) [apple], [[less]] ((more)) BREAK a sky",
        "at 10:30, 16:9, a:b:0.5, a|b, (a|b), (a:b:0.5)",
        r"\[a:b:0.5\], \[a|b\], [a\|b",
        "[a:b], [a, b: c], [at (10:30)], [a:b:c:0.5], [a:b:when]",
        "[a (b] c|d) e:0.5",
        "SAND and And BRAND_AND",
        "<lora:a|b:1> <LYCO:__x__:0.5> a < b > c",
        "^__^ a__b__c snake__case __ init__",
        "{word} {a} | {b}",
    ],
)
def test_plain_words_are_no_unsupported_form(prompt):
    assert unsupported(prompt) == ()


@given(brackets | st.text(max_size=80))
def test_any_text_is_parsed(text):
    found = parse_weights(text)
    assert found and not found[0].starts_chunk
    assert all(abs(words.weight) <= WEIGHT_LIMIT for words in found)
    assert all(words.text or words == Words("", 1.0, words.starts_chunk) for words in found)
    for before, words in zip(found, found[1:], strict=False):
        assert words.starts_chunk or before.weight != words.weight
    assert len(unbalanced(text)) < 200
    assert len(unsupported(text)) <= 6


@given(st.text(st.characters(exclude_characters="()[]\\"), max_size=80).filter(lambda text: "BREAK" not in text))
def test_text_without_syntax_stays_as_it_is(text):
    assert parse_weights(text) == (Words(text),)


@given(brackets | st.text(max_size=80))
def test_escaped_text_stays_as_it_is(text):
    text = text.replace("BREAK", "")
    assert parse_weights(re.sub(r"([()\[\]\\])", r"\\\1", text)) == (Words(text),)


plain = st.text("abc ,é", min_size=1, max_size=8)
nested = st.recursive(
    plain.map(lambda text: (text, text)),
    lambda inner: st.tuples(
        st.sampled_from(["({})", "[{}]", "({}:1.3)", "({}:-0.5)"]), st.lists(inner, min_size=1, max_size=3)
    ).map(lambda pair: (pair[0].format("".join(whole for whole, _ in pair[1])), "".join(bare for _, bare in pair[1]))),
)


@given(nested)
def test_a_balanced_prompt_keeps_all_of_its_words(prompt):
    whole, bare = prompt
    assert "".join(words.text for words in parse_weights(whole)) == bare
    assert unbalanced(whole) == ""


def take_best(call: Callable[[str], object], text: str) -> float:
    """The shortest of twenty times, in seconds."""
    best_s = math.inf
    for _ in range(20):
        start = time.thread_time()
        call(text)
        best_s = min(best_s, time.thread_time() - start)
    return best_s


@pytest.mark.parametrize("call", [parse_weights, unbalanced])
@pytest.mark.parametrize("bracket", ["(", "["])
def test_a_hundred_thousand_brackets_take_no_time(call, bracket):
    assert take_best(call, bracket * 100_000) < 0.5


@pytest.mark.parametrize("call", [parse_weights, unbalanced])
@pytest.mark.parametrize(
    "piece", [*")1: ", "()", "([)]", "(a", "(a:1.1)", "a:", ": ", ":1", "\\", "\\(", "BREAK ", "(BREAK", "a BREAK "]
)
def test_forty_thousand_pieces_of_brackets_take_linear_time(call, piece):
    start = time.thread_time()
    call(":" + piece * PIECES)
    assert time.thread_time() - start < 2  # the slowest, of BREAKs, about a fifth of a second


@pytest.mark.parametrize("piece", [*"[(|{_<", "[a|", "[a:0.5", "([)]", "{|", "/__a", "<a:", "AND "])
def test_forty_thousand_pieces_of_unsupported_forms_take_linear_time(piece):
    start = time.thread_time()
    unsupported(f":{piece * PIECES}]]")
    assert time.thread_time() - start < 2  # the slowest, of open brackets, about a twentieth of a second
