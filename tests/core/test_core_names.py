"""What files are called, and which one a name means."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webui.core.errors import RequestError
from webui.core.files import LoraFile
from webui.core.names import choose, choose_lora, find_file, in_tags, is_word, tag_name
from webui.core.prompt import join_loras, split_loras
from webui.core.request import LoraRef
from webui.library.naming import Found, give_names

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


def found(*places: str, usable: bool = True) -> list[Found]:
    return [Found(Path("/models/Lora", place), place.rpartition(".")[0], usable) for place in places]


def files(*names: str) -> dict[str, LoraFile]:
    return {name: LoraFile(name, Path(f"/models/Lora/{name}.safetensors"), place=name) for name in names}


@given(
    st.lists(st.lists(st.sampled_from(["a", "b"]), max_size=3).map(lambda parts: "/".join([*parts, "x"])), max_size=30),
    st.sampled_from([".safetensors", ".pt"]),
)
def test_every_file_has_a_name_that_none_else_has(places, ending):
    entries = found(*dict.fromkeys(f"{place}{end}" for place in places for end in (".safetensors", ending)))
    names = give_names(entries)
    assert len(names) == len(entries) and {entry.path for entry in names.values()} == {e.path for e in entries}
    assert all(Path(name).stem == "x" for name in names)


def test_a_name_too_long_for_a_request_becomes_a_number():
    deep = "/".join(["d" * 100] * 3)
    names = give_names(found("x.safetensors", "d/x.safetensors", f"{deep}/x.safetensors", f"{deep}/d/x.safetensors"))
    assert list(names) == ["x", "d/x", f"{'d' * 100}/x", f"{'d' * 100}/d/x"]
    assert list(give_names([*found("x.pt"), *found("x.pt")])) == ["x", "x.pt"]


def test_a_file_that_comes_later_takes_no_name_away():
    before = give_names(found("b/x.safetensors", "c/x.safetensors"))
    after = give_names(found("b/x.safetensors", "c/x.safetensors", "d/x.safetensors"))
    assert before.items() <= after.items()


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
