"""Every file gets a name of its own, which says as much of its path as it needs."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from webui.library.naming import FoundFile, give_names


def found(*places: str, usable: bool = True) -> list[FoundFile]:
    return [FoundFile(Path("/models/Lora", place), place.rpartition(".")[0], usable) for place in places]


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
