"""What of a text is left to chance, and what stays words; how the library is shown it."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webui.core.dynamic import MAX_DEPTH, MAX_FORMS, as_words, may_be_dynamic, scan, undisguised
from webui.core.errors import RequestError
from webui.core.prompt import parse_weights

HOSTILE = [
    "{" * 8000,
    "(" * 4000 + "}" * 4000,
    "{a|" * 2600,
    "__" * 4000,
    "__a" * 2600,
    "__a b" * 1600,
    "{" * 4000 + "|" + "}" * 4000,
    "[(" * 2000 + ")]" * 2000,
    "{2$$" * 2000,
    "{1$$ $$" * 1100,
    "<a:" * 2000 + "__x__" * 400,
    "\\" * 8000,
]


def nothing(_name: str) -> bool:
    return False


def forms(text: str, *known: str) -> list[str]:
    template = scan(text, known.__contains__)
    found = sorted((*template.names, *template.choices), key=lambda form: (form.start, -form.stop))
    return [text[form.start : form.stop] for form in found]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a {red|green} apple", ["{red|green}"]),
        ("{a|{b|c} d}", ["{a|{b|c} d}", "{b|c}"]),
        ("{x {a|b} y}", ["{a|b}"]),
        ("{{{a|b}}}", ["{a|b}"]),
        ("{2$$a|b|c} {1-2$$a|b} {-2$$a|b} {2-$$a|b} { 2 $$ and $$a|b}", 5),
        ("{2$$__x__}", ["{2$$__x__}", "__x__"]),
        ("{2$$a}", ["{2$$a}"]),
        ("{~a|b} {@a|b} {!a|b} {@2$$a|b}", 4),
        ("{0.5::a|2::b}", 1),
        ("{[a|b]|c} [a|b] [{a|b}|c]", ["{[a|b]|c}", "{a|b}"]),
        ("{(a|b)}", []),
        ("{happy :)|sad :(}", ["{happy :)|sad :(}"]),
        ("{a [b|c}", ["{a [b|c}"]),
        ("{<lora:x:1>|<lora:y:0.5>}", 1),
        ("a __colour__, __a/b-c.d__ and __x*/**__", ["__colour__", "__a/b-c.d__", "__x*/**__"]),
        ("__a____b__", ["__a__", "__b__"]),
        ("__~a__ __@b__ __!c__", 3),
        ("__a_b__ (__c__:1.2)", ["__a_b__", "__c__"]),
        # words
        ("{thing} #1 $5 ${x} %{y} // /* */ 100% {} {a, b} | a|b", []),
        (r"\{a|b} \{a\|b\} \__x__ \_\_x\_\_", []),
        ("{a|b", []),
        ("a|b}", []),
        ("__ a __ __ ____ _a_ __a", []),
        ("__a\nb__", []),
        ("my__style__2 <lora:__x__:1> __bold words__", []),
    ],
)
def test_what_is_left_to_chance_is_found(text, found):
    assert forms(text) == found if isinstance(found, list) else len(forms(text)) == found


def test_a_name_that_may_be_meant_as_it_is_is_a_wildcard_s_where_there_is_one():
    text = "my__style__2, __x__s, <lora:__z__:1>, my__a, and __b__"
    assert forms(text) == ["__b__"]
    assert forms(text, "style", "x", "z") == ["__style__", "__x__", "__z__", "__b__"]
    assert scan(text, nothing).words == ("style", "x")
    assert scan(text, nothing).notices[0] == "There is no wildcard “style”; “__style__” is read as words."


def test_slashes_are_brought_into_order():
    (name,) = scan("__/a//b/__", nothing).names
    assert name.name == "a/b"


def test_too_much_is_refused_by_name():
    with pytest.raises(RequestError, match=f"^negative: it comes to more than {MAX_FORMS} choices") as caught:
        scan("{a|b}" * (MAX_FORMS + 1), nothing, "negative")
    assert caught.value.field == "negative"
    deep = "{a|" * (MAX_DEPTH + 1) + "b" + "}" * (MAX_DEPTH + 1)
    with pytest.raises(RequestError, match=f"^prompt: choices are {MAX_DEPTH + 1} deep"):
        scan(deep, nothing)
    assert scan(deep[3:-1], nothing).forms == MAX_DEPTH


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: text[:8])
def test_no_text_takes_long(text):
    started = time.process_time()
    try:
        scan(text[:8000], nothing)
    except RequestError as error:
        assert "limit" in str(error)
    assert as_words(as_words(text[:8000])) == as_words(text[:8000])
    assert time.process_time() - started < 2


signs = st.lists(
    st.sampled_from(
        ["{", "}", "|", "$$", "$", "2$$", "__", "_", "a", "b ", " ", "\\", "[", "]", "(", ")", "::", "0.5", "é"]
    )
).map("".join)


@given(signs)
def test_words_are_said_with_a_backslash(text):
    words = as_words(text)
    assert forms(words) == [] and as_words(words) == words
    assert words == text or may_be_dynamic(text)
    if "\\" not in text:
        assert parse_weights(words) == parse_weights(text)


@given(signs | st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_what_is_no_form_comes_back_from_its_disguise(text):
    template = scan(text, nothing)
    if not template.forms:
        assert undisguised(template.disguised()) == text
