"""Which file a name means."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webui.core.errors import RequestError
from webui.core.files import LoraFile
from webui.core.names import choose, choose_lora, find_file, in_tags, is_word, tag_name
from webui.core.prompt import join_loras, split_loras
from webui.core.request import LoraRef

NAMES = ("DPM++ 2M", "DPM++ SDE", "Euler", "Euler a", "Heun")


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_found_whatever_its_case(name):
    assert choose("sampler", name, NAMES) == choose("sampler", name.lower(), NAMES) == name
    assert choose("sampler", name.upper(), NAMES) == name


def test_of_two_names_that_differ_in_case_only_the_exact_one_is_meant():
    names = ("Photo", "photo", "PHOTO")
    assert [choose("model", name, names) for name in names] == list(names)


def test_an_unknown_name_is_refused_with_near_ones():
    with pytest.raises(RequestError) as caught:
        choose("sampler", "Eulr", NAMES)
    assert str(caught.value) == "There is no sampler “Eulr”; did you mean Euler or Euler a?"
    assert caught.value.field == "sampler"


@pytest.mark.parametrize(
    ("name", "names", "words"),
    [
        ("zzzzzz", NAMES, r"There are 5: DPM\+\+ 2M, DPM\+\+ SDE, Euler, Euler a and Heun\.$"),
        (
            "zzzzzz",
            map("number {}".format, range(12)),
            r"There are 12: number 0, number 1, .* number 7 and 4 more\.$",
        ),
        ("zzzzzz", ["demo"], r"There is only demo\.$"),
        ("zzzzzz", [], r"There is no model “zzzzzz”\.$"),
    ],
)
def test_a_name_like_none_is_refused_with_what_there_is(name, names, words):
    with pytest.raises(RequestError, match=words) as caught:
        choose("model", name, names)
    assert str(caught.value).startswith("There is no model “zzzzzz”.") and "did you mean" not in str(caught.value)


def test_the_beginning_of_a_long_name_is_near_it():
    with pytest.raises(RequestError, match=r"“cyber”; did you mean cyberpunk_style_v2-000010\?$"):
        choose("LoRA", "cyber", ["ink", "cyberpunk_style_v2-000010"])


@given(st.text(max_size=300))
def test_any_other_name_is_refused_in_a_short_line(name):
    if name.casefold() in {known.casefold() for known in NAMES}:
        return
    with pytest.raises(RequestError) as caught:
        choose("sampler", name, NAMES)
    assert len(str(caught.value)) < 700 and "\n" not in str(caught.value)


# ---- files ----


def files(*names: str) -> dict[str, LoraFile]:
    return {name: LoraFile(name, Path(f"/models/Lora/{name}.safetensors"), place=name) for name in names}


def test_the_longer_name_of_a_file_holds_when_it_has_a_shorter_one():
    """A recipe that says ``sub/x`` is drawn with the same file when the other ``x`` is gone."""
    assert find_file("sub/x", {"x": LoraFile("x", Path("/models/Lora/a/sub/x.safetensors"), place="a/sub/x")}) == "x"


def test_a_name_in_composed_letters_means_the_file_in_decomposed_ones():
    assert find_file("caf\u00e9", files("cafe\u0301")) == "cafe\u0301"


@pytest.mark.parametrize("name", ["a:b", "diff>one", " leading", "a<b>c:d "])
def test_a_name_that_no_tag_holds_is_meant_by_what_a_tag_holds_of_it(name):
    known = files(name, "other")
    _, (ref,) = split_loras(join_loras("", (LoraRef.model_validate({"name": name, "weight": 0.5}),)))
    assert find_file(ref.name, known) == find_file(tag_name(name), known) == name
    assert in_tags(name, known) == tag_name(name) and in_tags("other", known) == "other"
    with pytest.raises(RequestError) as caught:
        choose_lora(f"{tag_name(name)}x", known)
    assert str(caught.value).endswith(f"did you mean {tag_name(name)}?")


def test_a_name_whose_tag_means_another_file_has_none():
    known = files("a:b", "a b", " :", "x<y", "x>y")
    assert {name: in_tags(name, known) for name in known} == {
        "a:b": "",
        "a b": "a b",
        " :": "",
        "x<y": "x y",
        "x>y": "",
    }


@pytest.mark.parametrize(
    ("text", "is_there"), [("a Both b", True), ("both", True), ("x,both:", True), ("bother", False), ("both1", False)]
)
def test_a_word_is_no_part_of_a_longer_one(text, is_there):
    assert is_word("both", text) == is_there
