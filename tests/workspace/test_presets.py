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
from webui.workspace.presets import SHIPPED, PresetStore, read_thumbnail

CAT = {"fields": {"prompt": "a {animal}, {style} style", "steps": 8}, "variables": {"animal": "cat", "style": "flat"}}


@pytest.fixture
def store(tmp_path: Path) -> PresetStore:
    return PresetStore(tmp_path / "presets")


def own(store: PresetStore) -> list[str]:
    return [name for name, file in store.files().items() if not file.shipped]


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
        (b"[fields]\nloras = [{name = 'x', weight = 99}]", "loras.1.weight must be at most 10, not 99"),
        (b"[init]\nstrength = 9", "init.strength must be at most 1, not 9"),
        (b"[variables]\n'a b' = 'x'", "variables: 'a b' must be at most 40 letters"),
        (b"[variables]\na = 3", "variables.a must be text, not 3"),
        (b"[pins]\nmodel = 'nohash'", "pins.model must be 8 to 64 hexadecimal digits"),
        (b"expected = 3", "expected must be 8 to 64 hexadecimal digits"),
        (b'name = "a\\u0000b"', "name must be made of printable characters"),
        (b"name = '" + b"n" * 300 + b"'", "name must be at most 80 characters long; it has 300"),
    ],
)
def test_a_file_that_cannot_be_used_has_one_clear_line_and_the_others_go_on(store, toml, reason):
    store.save(make_preset(name="good", **CAT))
    (store.folder / "bad file.toml").write_bytes(toml)
    started = time.thread_time()
    file = store.files()["bad file"]
    assert time.thread_time() - started < 2
    assert file.preset is None and reason in file.problem
    assert "\n" not in file.problem and len(file.problem) < 300
    with pytest.raises(RequestError, match=r"preset 'bad file': bad file\.toml "):
        store.get("bad file")
    assert store.get("good").fields["steps"] == 8
    store.delete("bad file")
    assert own(store) == ["good"]


@pytest.mark.parametrize(
    "name",
    ["../../x", "/etc/passwd", "C:\\x", "CON", "aux.txt", "<script>alert(1)</script>", "🎨", "a/b", ".", "n" * 80],
)
def test_any_printable_name_is_a_name_and_no_path(store, tmp_path, name):
    store.save(make_preset(name=name, **CAT), PilImages.new("RGB", (900, 300)))
    assert own(store) == [name]
    assert sorted(path.parent for path in tmp_path.rglob("*.*")) == [store.folder] * 2
    [path] = store.folder.glob("*.toml")
    assert path.name.isascii() and len(path.name) < 80 and path.stem.upper() not in ("CON", "AUX")
    assert store.get(name).request().prompt == "a cat, flat style"
    store.delete(name)
    assert list(store.folder.iterdir()) == []


def test_a_file_in_the_folder_of_a_name_that_is_taken_is_listed_under_its_own(store):
    store.save(make_preset(name="one", **CAT))
    (store.folder / "copy.toml").write_text(store.get("one").text)
    [original] = store.folder.glob("one-*.toml")
    assert own(store) == ["one", f"one ({original.stem})"]  # copy.toml comes first


def test_saving_twice_asks_for_replace_and_keeps_the_picture_small(store):
    store.save(make_preset(name="Mine", **CAT), PilImages.new("RGB", (900, 300)))
    with pytest.raises(RequestError, match="preset 'mine' is there already"):
        store.save(make_preset(name="mine", **CAT))
    store.save(make_preset(name="Mine", fields={"steps": 5}), replace=True)
    assert store.get("mine").fields == {"steps": 5}
    picture = store.choose("Mine").thumbnail_path
    assert PilImages.open(picture).size == (192, 64)


def test_renaming_takes_the_picture_along(store):
    store.save(make_preset(name="old", **CAT), PilImages.new("RGB", (64, 64)))
    store.save(make_preset(name="other", **CAT))
    picture = read_thumbnail(store.choose("old"))
    assert store.rename("old", " new ") == "new"
    assert own(store) == ["new", "other"] and read_thumbnail(store.choose("new")) == picture
    with pytest.raises(RequestError, match="preset 'other' is there already"):
        store.rename("new", "other")
    assert store.rename("new", "NEW") == "NEW"
    assert own(store) == ["NEW", "other"]
    assert len(list(store.folder.iterdir())) == 3


def test_what_ships_stays_as_it_is_but_can_be_copied(store):
    name = next(iter(store.files()))
    preset = store.get(name)
    for change in (lambda: store.delete(name), lambda: store.rename(name, "x"), lambda: store.save(preset, None, True)):
        with pytest.raises(RequestError, match="ships with the product"):
            change()
    store.save(preset.model_copy(update={"name": "my copy"}))
    assert store.get("my copy").fields == preset.fields


def test_the_file_s_name_is_as_good_as_the_preset_s(store):
    store.save(make_preset(name="Midnight cat 🐈", **CAT))
    (path,) = store.folder.glob("*.toml")
    assert path.stem != "Midnight cat 🐈"
    assert store.get(path.stem).name == "Midnight cat 🐈"
    assert store.get("flat-sticker").name == "Flat sticker"


def test_an_unknown_name_is_told_with_near_ones(store):
    store.save(make_preset(name="Midnight cat", **CAT))
    with pytest.raises(RequestError, match=r"no preset “zzzz”\.$"):
        store.get("zzzz")
    with pytest.raises(RequestError, match=r"no preset “midnite cat”; did you mean Midnight cat"):
        store.get("midnite cat")


def test_a_full_disk_or_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RequestError, match="preset cannot be saved: "):
        PresetStore(tmp_path / "file" / "presets").save(make_preset(name="x", **CAT))


def test_a_crash_while_saving_leaves_the_old_preset_whole(store, monkeypatch):
    store.save(make_preset(name="x", **CAT))

    def fail(*_paths: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises(RequestError, match="No space left"):
            store.save(make_preset(name="x", fields={"steps": 3}), replace=True)
    assert store.get("x").fields["steps"] == 8
    assert [path.suffix for path in store.folder.iterdir()] == [".toml"]


def test_what_was_exported_can_be_imported_under_a_free_name(store):
    store.save(make_preset(name="x", **CAT))
    names, notices = store.add("../../x.toml", store.get("x").text.encode())
    assert (names, notices) == (("x 2",), ())
    assert store.get("x 2").fields == store.get("x").fields
    with pytest.raises(RequestError, match=r"'bad.toml' steps must be at least 1"):
        store.add("bad.toml", b"[fields]\nsteps = 0")


def test_styles_become_presets_around_a_prompt(store):
    rows = 'name,prompt,negative_prompt\nNone,,\nFilm,"photo of {prompt}, 35 mm",blurry\nSoft,pastel,\nClean,,noise\n'
    names, _ = store.add("styles.csv", ("\ufeff" + rows).encode())
    assert names == ("Film", "Soft", "Clean")
    drawn = {name: store.get(name).request(overrides={"prompt": "a cat"}) for name in names}
    assert [drawn[name].prompt for name in names] == ["photo of a cat, 35 mm", "a cat, pastel", "a cat"]
    assert [drawn[name].negative for name in names] == ["blurry", "", "noise"]
    assert store.get("Soft").request().prompt == "pastel"


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
def test_styles_that_cannot_be_read_are_refused(store, data, reason):
    with pytest.raises(RequestError, match="'styles.csv' .*" + reason):
        store.add("styles.csv", data)
    assert own(store) == []


def test_what_ships_is_whole(settings: Settings, store: PresetStore):
    """Each can be read without a notice, has a note, and those of the demo model are pinned to what ships."""
    files = [file for file in store.files().values() if file.shipped]
    assert len(files) == len(list(SHIPPED.glob("*.toml"))) >= 14
    models, loras = find_models(settings), find_loras(settings)
    for file in files:
        preset = file.preset
        assert isinstance(preset, Preset) and preset.note and not preset.notices, file.problem
        if "model" in preset.fields:
            assert preset.expected and preset.pins.model and read_thumbnail(file)
            assert set(preset.pins.loras) == {ref.name for ref in preset.request().loras}
            assert compare_pins(preset.pins, preset.request(), models, loras) == ()


def test_a_store_that_is_not_writable_shows_presets_and_changes_none(tmp_path):
    PresetStore(tmp_path).save(make_preset(name="Mine", fields={"steps": 3}))
    store = PresetStore(tmp_path, writable=False)
    assert store.get("Mine").fields == {"steps": 3}
    changes = [
        lambda: store.save(make_preset(name="Other")),
        lambda: store.rename("Mine", "Other"),
        lambda: store.delete("Mine"),
        lambda: store.add("x.toml", b'name = "Other"'),
    ]
    for change in changes:
        with pytest.raises(RequestError, match="kept only for visitors who keep their cookie"):
            change()
    assert [file.name for file in store.files().values() if not file.shipped] == ["Mine"]
