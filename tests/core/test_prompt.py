"""LoRA tags in a prompt: out of the text, and into names with weights."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webui.core.prompt import join_loras, split_loras
from webui.core.request import LoraRef, RequestError


@pytest.mark.parametrize(
    ("tag", "name", "on_unet", "on_text"),
    [
        ("<lora:chalk:0.8>", "chalk", 0.8, 0.8),
        ("<lora:chalk:0.5:0.9>", "chalk", 0.9, 0.5),  # as in A1111, the text encoder's comes first
        ("<lora:chalk>", "chalk", 1.0, 1.0),
        ("<LoRA:chalk:1>", "chalk", 1.0, 1.0),
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
        ("<lora:chalk:0.8:lbw=OUTALL>", "'lbw' is not supported in a LoRA's weights; te and unet are"),
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


@pytest.mark.parametrize("piece", ["<lora:", "<lora:a:", "<lora:a:1>", "<", "<lora:a:1", "<lora", ":"])
def test_a_hundred_thousand_pieces_of_tags_take_linear_time(piece):
    start = time.perf_counter()
    split_loras(piece * 100_000)
    assert time.perf_counter() - start < 5  # the slowest, of whole tags, about half a second
