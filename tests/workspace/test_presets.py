"""Presets as files: what is read and refused; names of every kind; styles.csv."""

import os
import time
from pathlib import Path

import pytest
from PIL import Image as PilImages

from webui.core.errors import RequestError
from webui.core.settings import Settings
from webui.library.library import find_loras, find_models
from webui.workspace.preset import Preset, compare_pins, make_preset
from webui.workspace.presets import SHIPPED, PresetShelf, read_thumbnail

CAT = {"fields": {"prompt": "a {animal}, {style} style", "steps": 8}, "variables": {"animal": "cat", "style": "flat"}}


@pytest.fixture
def shelf(tmp_path: Path) -> PresetShelf:
    return PresetShelf(tmp_path / "presets")


def own(shelf: PresetShelf) -> list[str]:
    return [name for name, file in shelf.files().items() if not file.shipped]


@pytest.mark.parametrize(
    ("toml", "reason"),
    [
        (b"fields", "is not TOML: "),
        (b"\xff\xfe", "is not UTF-8 text"),
        (b"x = " + b"[" * 30_000, "is not TOML that can be read"),
        (b"a" + b".a" * 30_000 + b" = 1", "is nested too deep"),
        (b"[" + b".".join([b'"\\t"'] * 12_000) + b"]", "is nested too deep"),
        (b"#" * 70_000, "is larger than 64 KiB"),
        (b"version = 2", "is of version 2; this program reads versions up to 1"),
        (b"version = true", "version must be 1, not 'True'"),
        (b"fields = 3", "fields"),
        (b"[fields]\nsteps = 0", "steps must be at least 1, not 0"),
        (b"[fields]\nsteps = " + b"9" * 6_000, "is not TOML that can be read"),
        (b"[fields]\nprompt = 1979-05-27", "prompt must be text"),
        (b"[fields]\nguidance = nan", "guidance must be"),
        (b"[fields]\nloras = [{name = 'x', weight = 99}]", "loras.0.weight must be at most 10, not 99"),
        (b"[init]\nstrength = 9", "init.strength must be at most 1, not 9"),
        (b"[variables]\n'a b' = 'x'", "variables: 'a b' must be at most 40 letters"),
        (b"[variables]\na = 3", "variables.a must be text, not 3"),
        (b"[pins]\nmodel = 'nohash'", "pins.model must be 8 to 64 hexadecimal digits"),
        (b"expected = 3", "expected must be 8 to 64 hexadecimal digits"),
        (b'name = "a\\u0000b"', "name must be made of printable characters"),
        (b"name = '" + b"n" * 300 + b"'", "name must be at most 80 characters long; it has 300"),
    ],
)
def test_a_file_that_cannot_be_used_has_one_clear_line_and_the_others_go_on(shelf, toml, reason):
    shelf.save(make_preset(name="good", **CAT))
    (shelf.folder / "bad file.toml").write_bytes(toml)
    started = time.thread_time()
    file = shelf.files()["bad file"]
    assert time.thread_time() - started < 2
    assert file.preset is None and reason in file.problem
    assert "\n" not in file.problem and len(file.problem) < 300
    with pytest.raises(RequestError, match=r"preset 'bad file': bad file\.toml "):
        shelf.get("bad file")
    assert shelf.get("good").fields["steps"] == 8
    shelf.delete("bad file")
    assert own(shelf) == ["good"]


@pytest.mark.parametrize(
    "name",
    ["../../x", "/etc/passwd", "C:\\x", "CON", "aux.txt", "<script>alert(1)</script>", "🎨", "a/b", ".", "n" * 80],
)
def test_any_printable_name_is_a_name_and_no_path(shelf, tmp_path, name):
    shelf.save(make_preset(name=name, **CAT), PilImages.new("RGB", (900, 300)))
    assert own(shelf) == [name]
    assert sorted(path.parent for path in tmp_path.rglob("*.*")) == [shelf.folder] * 2
    [path] = shelf.folder.glob("*.toml")
    assert path.name.isascii() and len(path.name) < 80 and path.stem.upper() not in ("CON", "AUX")
    assert shelf.get(name).request().prompt == "a cat, flat style"
    shelf.delete(name)
    assert list(shelf.folder.iterdir()) == []


def test_a_file_in_the_folder_of_a_name_that_is_taken_is_listed_under_its_own(shelf):
    shelf.save(make_preset(name="one", **CAT))
    (shelf.folder / "copy.toml").write_text(shelf.get("one").text)
    [original] = shelf.folder.glob("one-*.toml")
    assert own(shelf) == ["one", f"one ({original.stem})"]  # copy.toml comes first


def test_saving_twice_asks_for_replace_and_keeps_the_picture_small(shelf):
    shelf.save(make_preset(name="Mine", **CAT), PilImages.new("RGB", (900, 300)))
    with pytest.raises(RequestError, match="preset 'mine' is there already"):
        shelf.save(make_preset(name="mine", **CAT))
    shelf.save(make_preset(name="Mine", fields={"steps": 5}), replace=True)
    assert shelf.get("mine").fields == {"steps": 5}
    picture = shelf.choose("Mine").thumbnail_path
    assert PilImages.open(picture).size == (192, 64)


def test_renaming_takes_the_picture_along(shelf):
    shelf.save(make_preset(name="old", **CAT), PilImages.new("RGB", (64, 64)))
    shelf.save(make_preset(name="other", **CAT))
    picture = read_thumbnail(shelf.choose("old"))
    assert shelf.rename("old", " new ") == "new"
    assert own(shelf) == ["new", "other"] and read_thumbnail(shelf.choose("new")) == picture
    with pytest.raises(RequestError, match="preset 'other' is there already"):
        shelf.rename("new", "other")
    assert shelf.rename("new", "NEW") == "NEW"
    assert own(shelf) == ["NEW", "other"]
    assert len(list(shelf.folder.iterdir())) == 3


def test_what_ships_stays_as_it_is_but_can_be_copied(shelf):
    name = next(iter(shelf.files()))
    preset = shelf.get(name)
    for change in (lambda: shelf.delete(name), lambda: shelf.rename(name, "x"), lambda: shelf.save(preset, None, True)):
        with pytest.raises(RequestError, match="ships with the product"):
            change()
    shelf.save(preset.model_copy(update={"name": "my copy"}))
    assert shelf.get("my copy").fields == preset.fields


def test_the_file_s_name_is_as_good_as_the_preset_s(shelf):
    shelf.save(make_preset(name="Midnight cat 🐈", **CAT))
    (path,) = shelf.folder.glob("*.toml")
    assert path.stem != "Midnight cat 🐈"
    assert shelf.get(path.stem).name == "Midnight cat 🐈"
    assert shelf.get("flat-sticker").name == "Flat sticker"


def test_an_unknown_name_is_told_with_near_ones(shelf):
    shelf.save(make_preset(name="Midnight cat", **CAT))
    with pytest.raises(RequestError, match=r"no preset “zzzz”\.$"):
        shelf.get("zzzz")
    with pytest.raises(RequestError, match=r"no preset “midnite cat”; did you mean Midnight cat"):
        shelf.get("midnite cat")


def test_a_full_disk_or_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RequestError, match="preset cannot be saved: "):
        PresetShelf(tmp_path / "file" / "presets").save(make_preset(name="x", **CAT))


def test_a_crash_while_saving_leaves_the_old_preset_whole(shelf, monkeypatch):
    shelf.save(make_preset(name="x", **CAT))

    def fail(*_paths: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises(RequestError, match="No space left"):
            shelf.save(make_preset(name="x", fields={"steps": 3}), replace=True)
    assert shelf.get("x").fields["steps"] == 8
    assert [path.suffix for path in shelf.folder.iterdir()] == [".toml"]


def test_what_was_exported_can_be_imported_under_a_free_name(shelf):
    shelf.save(make_preset(name="x", **CAT))
    names, notices = shelf.add("../../x.toml", shelf.get("x").text.encode())
    assert (names, notices) == (("x 2",), ())
    assert shelf.get("x 2").fields == shelf.get("x").fields
    with pytest.raises(RequestError, match=r"'bad.toml' steps must be at least 1"):
        shelf.add("bad.toml", b"[fields]\nsteps = 0")


def test_styles_become_presets_around_a_prompt(shelf):
    rows = 'name,prompt,negative_prompt\nNone,,\nFilm,"photo of {prompt}, 35 mm",blurry\nSoft,pastel,\nClean,,noise\n'
    names, _ = shelf.add("styles.csv", ("\ufeff" + rows).encode())
    assert names == ("Film", "Soft", "Clean")
    drawn = {name: shelf.get(name).request(overrides={"prompt": "a cat"}) for name in names}
    assert [drawn[name].prompt for name in names] == ["photo of a cat, 35 mm", "a cat, pastel", "a cat"]
    assert [drawn[name].negative for name in names] == ["blurry", "", "noise"]
    assert shelf.get("Soft").request().prompt == "pastel"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\xff\xfe", "cannot be read as CSV"),
        (b"a,b\n1,2\n", "has no styles"),
        (b"", "has no styles"),
        (b"name,prompt\nlong," + b"x" * 9_000, "style 'long': prompt must be at most"),
        (b"name,prompt\n" + b"a,b\n" * 1_001, "has 1001 styles; the limit is 1000"),
    ],
)
def test_styles_that_cannot_be_read_are_refused(shelf, data, reason):
    with pytest.raises(RequestError, match="'styles.csv' .*" + reason):
        shelf.add("styles.csv", data)
    assert own(shelf) == []


def test_what_ships_is_whole(settings: Settings, shelf: PresetShelf):
    """Each can be read without a notice, has a note, and those of the demo model are pinned to what ships."""
    files = [file for file in shelf.files().values() if file.shipped]
    assert len(files) == len(list(SHIPPED.glob("*.toml"))) >= 14
    models, loras = find_models(settings), find_loras(settings)
    for file in files:
        preset = file.preset
        assert isinstance(preset, Preset) and preset.note and not preset.notices, file.problem
        if "model" in preset.fields:
            assert preset.expected and preset.pins.model and read_thumbnail(file)
            assert set(preset.pins.loras) == {ref.name for ref in preset.request().loras}
            assert compare_pins(preset.pins, preset.request(), models, loras) == ()


def test_a_shelf_that_is_not_writable_shows_presets_and_changes_none(tmp_path):
    PresetShelf(tmp_path).save(make_preset(name="Mine", fields={"steps": 3}))
    shelf = PresetShelf(tmp_path, writable=False)
    assert shelf.get("Mine").fields == {"steps": 3}
    changes = [
        lambda: shelf.save(make_preset(name="Other")),
        lambda: shelf.rename("Mine", "Other"),
        lambda: shelf.delete("Mine"),
        lambda: shelf.add("x.toml", b'name = "Other"'),
    ]
    for change in changes:
        with pytest.raises(RequestError, match="kept only where visitors log in"):
            change()
    assert [file.name for file in shelf.files().values() if not file.shipped] == ["Mine"]
