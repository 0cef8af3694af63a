"""What a picture's file may be called: words of the prompt, and patterns."""

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from webui.core.filenames import check_filename, slug


def is_tame(name: str) -> bool:
    """Whether any disk takes the name as it is: composed letters, their marks, digits and single dashes."""
    kinds = {unicodedata.category(character) for character in name.replace("-", "")}
    words = name.split("-")
    return (
        kinds <= {"Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Nd"}
        and unicodedata.is_normalized("NFC", name)
        and all(word and not unicodedata.category(word[0]).startswith("M") for word in words)
    )


@given(st.text(max_size=500) | st.text("aé漢กำ\u0301\u200d\ufe0f 🌟-", max_size=200))
@example("A\ufe00\u0300")
def test_a_slug_is_short_and_made_of_letters_digits_and_dashes(prompt):
    assert is_tame(slug(prompt))
    assert len(slug(prompt)) <= 48 and len(slug(prompt).encode()) <= 69


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("A red apple, flat style", "a-red-apple-flat-style"),
        ("née Müller", "née-müller"),
        ("ne\u0301e", "née"),
        ("赤いリンゴ 🍎", "赤いリンゴ"),
        ("窗边的猫", "窗边的猫"),
        ("Кот, ЙОД", "кот-йод"),
        ("猫 🌟\ufe0f", "猫"),
        ("고양이", "고양이"),
        ("बिल्ली और กำแพง", "बिल्ली-और-กำแพง"),
        ("猫" * 60, "猫" * 23),
        ("é" * 60, "é" * 34),
        ("a" * 47 + "q\u0301\u0301x", "a" * 47),
        ("\u3164\u115f", "picture"),
        ("🌟" * 20, "picture"),
        ("x\ud800y", "x-y"),
        ("İstanbul", "i\u0307stanbul"),
        ("", "picture"),
        ("../../etc/passwd", "etc-passwd"),
        ("x" * 47 + " yz", "x" * 47),
        ("CON\0NUL\\aux:", "con-nul-aux"),
    ],
)
def test_a_slug_still_says_what_the_prompt_said(prompt, expected):
    assert slug(prompt) == expected


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("{seed}", "must have {counter} once"),
        ("{counter}-{secret}", "may have {counter}"),
        ("{counter}/{seed}", "may have ASCII letters"),
        ("../{counter}", "may have ASCII letters"),
        ("{counter.__class__}", "may have {counter}"),
        ("{counter!r}", "may have {counter}"),
        ("{counter", "cannot be read"),
        ("{counter}\0", "may have ASCII letters"),
    ],
)
def test_a_file_name_pattern_is_held_to_its_fields(pattern, message):
    with pytest.raises(ValueError, match=message.replace("{", r"\{").replace("}", r"\}")):
        check_filename(pattern)
