"""Wildcards on disk: names, formats, encodings; what cannot be used says so, and nothing is read outside the folder."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from webui.core.errors import RequestError
from webui.core.settings import Settings
from webui.core.wildcards import Entry, Wildcards
from webui.library.library import Library
from webui.library.wildcards import find_wildcards


@pytest.fixture
def write(settings) -> Callable[..., Path]:
    def write(name: str, content: str | bytes, root: Path | None = None) -> Path:
        path = (root or settings.data_dir / "wildcards") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def texts(settings: Settings, name: str) -> list[str]:
    return [entry.text for entry in find_wildcards(settings)[name].entries]


def problem(settings: Settings, name: str) -> str:
    with pytest.raises(RequestError) as caught:
        Wildcards(find_wildcards(settings)).entries(name)
    return str(caught.value)


def test_a_text_file_is_one_wildcard(settings, write):
    write("colour.txt", "# warm\nred\n  orange  \n\n#ff0000 is a comment too\n2::blue # not one\n.5::teal\n1:1\n")
    assert find_wildcards(settings)["colour"].entries == (
        *(Entry("red"), Entry("orange"), Entry("blue # not one", 2.0), Entry("teal", 0.5), Entry("1:1")),
    )


@pytest.mark.parametrize(
    "content",
    [
        "née\nred\n".encode("utf-8-sig"),
        "née\nred".encode("utf-16"),
        b"\xfe\xff" + "née\nred".encode("utf-16-be"),
        "née\r\nred\r\n".encode(),
        "née\rred".encode(),
        "née\n\n\n # c\nred".encode(),
    ],
)
def test_marks_of_encodings_and_ends_of_lines_are_no_text(settings, write, content):
    write("colour.txt", content)
    assert texts(settings, "colour") == ["née", "red"]


def test_folders_are_in_names_and_any_case_of_endings_counts(settings, write):
    write("animals/big/cat.TXT", "lion")
    write("animals/.hidden.txt", "x")
    write("animals/readme.md", "x")
    assert list(find_wildcards(settings)) == ["animals/big/cat"]


def test_lists_are_wildcards_by_their_keys(settings, write):
    held = {
        "hue": {"warm": ["red", "2::orange", {"text": "pink", "weight": 3}], "one": "blue"},
        "plain": ["no", "1.10"],
    }
    write("sets/a.json", json.dumps(held))
    lines = "hue:\n  warm: [red, '2::orange', {text: pink, weight: 3}]\n  one: blue\nplain:\n- no\n- 1.10\n"
    write("b.yml", lines.encode("utf-8-sig"))
    found = find_wildcards(settings)
    assert sorted(found) == ["hue/one", "hue/warm", "plain", "sets/hue/one", "sets/hue/warm", "sets/plain"]
    for name in ("hue/one", "hue/warm", "plain"):
        assert found[name].entries == found[f"sets/{name}"].entries
    assert [(entry.text, entry.weight) for entry in found["hue/warm"].entries] == [
        ("red", 1),
        ("orange", 2),
        ("pink", 3),
    ]
    assert texts(settings, "plain") == ["no", "1.10"]  # to YAML false and 1.1


def test_a_list_alone_is_called_as_its_file(settings, write):
    write("a/colours.yaml", "- red\n- blue\n")
    assert texts(settings, "a/colours") == ["red", "blue"]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("x.txt", "caf\xe9".encode("latin-1"), "is not text in UTF-8; save its file in that encoding"),
        ("x.txt", b"a\0b", "is not text"),
        ("x.txt", b"\xff\xfea", "is not text in UTF-8"),
        ("x.txt", b"", "is empty: nothing can be drawn from it"),
        ("x.txt", b"# all\n\n#of it\n", "is empty: nothing can be drawn from it"),
        ("x.txt", b"0::a\n0::b", "is empty: nothing can be drawn from it"),
        ("x.txt", b"a\n" * 2**23 + b"a", "is larger than 16 MiB"),
        ("x.yaml", b"x: [a", "cannot be read as YAML, line 2"),
        ("x.yaml", b"a: [b]\na: [c]", "has “a” twice"),
        ("x.yaml", b"a: &b [c]\nd: *b", "has an alias"),
        ("x.yaml", b"[" * 50 + b"]" * 50, "is nested too deeply"),
        ("x.yaml", b"a: [[b]]", "has a list within a list"),
        ("x.yaml", b"a: [{weight: 2}]", "has an entry without a text"),
        ("x.yaml", b"? [a]\n: b", "has a key that is not text"),
        ("x.yaml", b"", "is empty"),
        ("x.json", b"{", "cannot be read as JSON"),
        ("x.json", b'{"a": ["b"], "a": ["c"]}', "has “a” twice"),
        ("x.json", b"[" * 100_000, "cannot be read as JSON"),
    ],
)
def test_what_cannot_be_used_says_why_where_it_is_drawn(settings, write, name, content, reason):
    write(name, content)
    assert problem(settings, "x").startswith(f"Wildcard “x” {reason}")


def test_a_key_without_a_list_is_empty(settings, write):
    write("x.yaml", "colours:\nmore: ''\n")
    assert problem(settings, "colours") == "Wildcard “colours” is empty: nothing can be drawn from it"


def test_a_link_that_leads_out_is_refused(settings, write, tmp_path):
    secret = write("secret.txt", "a key", tmp_path)
    (tmp_path / "more").mkdir()
    write("more/b.txt", "another", tmp_path)
    inside = write("real.txt", "red")
    folder = settings.data_dir / "wildcards"
    (folder / "out.txt").symlink_to(secret)
    (folder / "more").symlink_to(tmp_path / "more")
    (folder / "in.txt").symlink_to(inside)
    assert texts(settings, "in") == ["red"]
    for name in ("out", "more/b"):
        assert problem(settings, name).startswith(f"Wildcard “{name}” is a link that leads out")


def test_the_folder_itself_may_be_a_link(settings, write, tmp_path):
    write("colour.txt", "red", tmp_path / "mine")
    settings.data_dir.mkdir()
    (settings.data_dir / "wildcards").symlink_to(tmp_path / "mine")
    assert texts(settings, "colour") == ["red"]


@pytest.mark.parametrize(
    "folder",
    ["wildcards", "extensions/sd-dynamic-prompts/wildcards", "custom_nodes/comfyui-impact-pack/custom_wildcards"],
)
def test_those_of_another_program_s_tree_are_found(tmp_path, write, folder):
    write("a/colour.txt", "red", tmp_path / "tree" / folder)
    settings = Settings(data_dir=tmp_path / "data", models_dir=(tmp_path / "tree",))
    assert texts(settings, "a/colour") == ["red"]


def test_a_name_that_is_there_twice_is_refused_unless_it_is_the_same(settings, write, tmp_path):
    write("colour.txt", "red\nblue")
    write("colour.yaml", "[red, blue]")
    assert texts(settings, "colour") == ["red", "blue"]
    write("Colour.yml", "[red]")
    said = problem(settings, "colour")
    assert said.startswith("Wildcard “colour” is there 3 times: ") or "is there 3 times" in said
    assert str(tmp_path) not in said and "colour.txt" in said and "Colour.yml" in said


def test_changes_are_seen_and_nobody_looks_for_what_no_text_names(settings, write):
    library = Library(settings)
    write("colour.txt", "red")
    assert [entry.text for entry in library.snapshot(0).wildcards["colour"].entries] == ["red"]
    write("colour.txt", "green, light")
    write("new.txt", "x")
    library.reload()
    found = library.snapshot(0).wildcards
    assert [entry.text for entry in found["colour"].entries] == ["green, light"] and "new" in found
