"""Finished pictures -> PNG files, written whole or not at all."""

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PilImages

from webui.core.filenames import slug
from webui.workspace import outputs
from webui.workspace.outputs import save_picture

posix = pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals and limits")

WRITER = """
import os, signal, sys
from pathlib import Path
from PIL import Image as PilImages
from webui.core.events import Image
from webui.workspace.outputs import save_picture
from webui.core.recipe import Recipe
from webui.core.request import Request

folder, level, side, limit = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
noise = PilImages.frombytes("RGB", (side, side), os.urandom(3 * side * side))
noise.paste((level, level, level), (0, 0, 8, 8))
picture = Image(0, noise, Recipe(Request(prompt="a storm", seed=5), {"model": {"demo": "00"}}))
print("ready", flush=True)
sys.stdin.readline()
for _ in range(limit):
    print(save_picture(picture, folder), flush=True)
"""


def start_writer(repository: Path, folder: Path, level: int = 0, side: int = 64, limit: int = 10**9):
    """Another process that saves the same picture over and over once a line is written to it."""
    command = [sys.executable, "-c", WRITER, str(folder), str(level), str(side), str(limit)]
    process = subprocess.Popen(command, cwd=repository, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    return process


def go(process: subprocess.Popen) -> None:
    assert process.stdout.readline() == "ready\n"
    process.stdin.write("go\n")
    process.stdin.flush()


def left_over(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []


def size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


@settings(max_examples=25)
@given(prompt=st.text(max_size=60) | st.sampled_from(["../../up", "/etc/x", "a/b", "..", "CON", "a" * 300]))
def test_whatever_the_prompt_the_picture_lands_in_the_folder(make_picture, tmp_path, prompt):
    path = save_picture(make_picture(prompt=prompt, seed=2**53 - 1), tmp_path / "out")
    assert path.parent == tmp_path / "out" and path.is_file()
    assert len(path.name.encode()) <= 100
    assert path.name == f"{path.stem[:5]}-9007199254740991-{slug(prompt)}.png" and path.stem[:5].isdecimal()


def test_the_file_holds_exactly_the_picture(make_picture, tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    picture = make_picture()
    picture.image.paste(PilImages.fromarray(pixels))
    with PilImages.open(save_picture(picture, tmp_path)) as saved:
        assert saved.format == "PNG" and saved.mode == "RGB"
        assert np.array_equal(np.asarray(saved), pixels)
    with PilImages.open(io.BytesIO(picture.encode())) as encoded:
        assert np.array_equal(np.asarray(encoded), pixels)


def test_pictures_are_numbered_in_order_with_seed_and_words_in_the_name(make_picture, tmp_path):
    names = [save_picture(make_picture(prompt="a cat", seed=seed), tmp_path / "a/b").name for seed in (7, 7, 8)]
    assert names == ["00001-7-a-cat.png", "00002-7-a-cat.png", "00003-8-a-cat.png"]


def test_numbers_go_on_after_the_highest_even_beyond_five_digits(make_picture, tmp_path):
    (tmp_path / "99999-1-x.png").touch()
    (tmp_path / "holiday.png").touch()
    assert save_picture(make_picture(prompt="a"), tmp_path).name == "100000-7-a.png"
    assert save_picture(make_picture(prompt="a"), tmp_path).name == "100001-7-a.png"


def test_others_may_read_the_file(make_picture, tmp_path):
    assert save_picture(make_picture(), tmp_path).stat().st_mode & 0o777 == 0o644


def test_a_pattern_names_files_and_numbers_go_on(make_picture, tmp_path):
    pattern = "{model}_{counter} {sampler}-{width}x{height}"
    paths = [save_picture(make_picture(prompt="a"), tmp_path, filename=pattern) for _ in range(2)]
    assert [path.name for path in paths] == ["demo_00001 dpm-2m-64x64.png", "demo_00002 dpm-2m-64x64.png"]


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("{slug}-{slug}-{slug}-{model}-{counter}", "-".join(["猫" * 13] * 3) + "-demo-00001.png"),
        ("{slug}.{counter}", "猫" * 23 + ".00001.png"),
        ("{model}.{counter}", "demo.00001.png"),
        ("x" * 180 + "-{slug}-{counter}", "x" * 180 + "-猫猫猫-00001.png"),
        ("x" * 199 + "{counter}", "x" * 180 + "-00001.png"),
        ("con.{counter}", "_con.00001.png"),
    ],
)
def test_a_name_too_long_or_reserved_is_changed_and_keeps_its_number(make_picture, tmp_path, pattern, name):
    picture = make_picture(prompt="猫" * 60)
    paths = [save_picture(picture, tmp_path, filename=pattern) for _ in range(2)]
    assert [path.name for path in paths] == [name, name.replace("00001", "00002")]


@pytest.mark.parametrize("number", [errno.EILSEQ, errno.EINVAL, errno.ENAMETOOLONG])
def test_a_disk_that_does_not_take_the_letters_gets_others(make_picture, tmp_path, monkeypatch, number):
    def refuse(real):
        def move(source, target):
            if not target.name.isascii() or len(target.name) > 60:
                raise OSError(number, "no such name here")
            real(source, target)

        return move

    for name in ("link", "rename"):
        monkeypatch.setattr(os, name, refuse(getattr(os, name)))
    assert save_picture(make_picture(prompt="née кот"), tmp_path).name == "00001-7-nee.png"
    assert save_picture(make_picture(prompt="кот"), tmp_path).name == "00002-7-picture.png"
    assert save_picture(make_picture(prompt="a" * 48), tmp_path).name == f"00003-7-{'a' * 48}.png"


def test_a_taken_name_is_never_overwritten(make_picture, tmp_path, monkeypatch):
    """As when another process takes the number between our look and our write."""
    monkeypatch.setattr(outputs, "_next_number", lambda folder, filename: 1)
    first = save_picture(make_picture(colour=(255, 0, 0)), tmp_path)
    second = save_picture(make_picture(colour=(0, 0, 255)), tmp_path)
    assert first != second
    assert PilImages.open(first).getpixel((0, 0)) == (255, 0, 0)
    assert PilImages.open(second).getpixel((0, 0)) == (0, 0, 255)


def test_without_hard_links_pictures_are_still_saved_and_none_is_overwritten(make_picture, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(outputs, "_next_number", lambda folder, filename: 1)
    first = save_picture(make_picture(colour=(255, 0, 0)), tmp_path)
    second = save_picture(make_picture(colour=(0, 0, 255)), tmp_path)
    assert left_over(tmp_path) == sorted([first.name, second.name])
    assert PilImages.open(first).getpixel((0, 0)) == (255, 0, 0)


def test_two_processes_that_save_at_once_into_one_folder_lose_nothing(repository, tmp_path):
    each = 25
    writers = [start_writer(repository, tmp_path / "out", level, limit=each) for level in (60, 190)]
    for writer in writers:
        go(writer)
    paths = [writer.communicate()[0].split() for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0]
    assert [len(set(mine)) for mine in paths] == [each, each]
    assert len(left_over(tmp_path / "out")) == 2 * each
    for level, mine in zip((60, 190), paths, strict=True):
        assert {PilImages.open(path).getpixel((0, 0)) for path in mine} == {(level, level, level)}


@posix
def test_kill_9_in_a_storm_of_saves_leaves_only_whole_pngs(repository, tmp_path):
    rounds, side = 4, 1024  # some 3 MB each, so that the kill falls into the write
    for _ in range(rounds):
        process = start_writer(repository, tmp_path, side=side)
        go(process)
        process.stdout.readline()
        known = set(tmp_path.iterdir())
        while not sum(map(size_of, set(tmp_path.iterdir()) - known)):
            pass  # the moment the first bytes of the next picture are in some file
        process.kill()
        process.communicate()
    pictures = list(tmp_path.glob("*.png"))
    assert len(pictures) >= rounds
    for path in pictures:
        with PilImages.open(path) as image:
            image.load()
            assert image.size == (side, side) and "parameters" in image.info


@pytest.mark.parametrize("call", ["fsync", "link and rename"])
def test_a_full_disk_is_an_os_error_and_leaves_nothing(make_picture, tmp_path, monkeypatch, call):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    for name in call.split(" and "):
        monkeypatch.setattr(os, name, full)
    with pytest.raises(OSError, match="No space left"):
        save_picture(make_picture(), tmp_path / "out")
    assert left_over(tmp_path / "out") == []


@posix
def test_a_write_that_stops_half_way_is_an_os_error_and_leaves_nothing(repository, tmp_path):
    """The kernel itself refuses to write beyond 20,000 bytes, of some 12 times as many."""
    limited = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n{WRITER}"
    limited = limited.replace("print(save_picture(picture, folder), flush=True)", "try_to_save()").replace(
        "for _ in",
        "def try_to_save():\n"
        "    try:\n"
        "        save_picture(picture, folder)\n"
        "    except OSError as error:\n"
        "        print('refused:', error.strerror)\n\n"
        "for _ in",
    )
    process = subprocess.run(
        [sys.executable, "-c", limited, str(tmp_path / "out"), "9", "256", "2"],
        cwd=repository,
        input="go\n",
        capture_output=True,
        text=True,
    )
    assert process.stdout == "ready\nrefused: File too large\nrefused: File too large\n", process.stderr
    assert left_over(tmp_path / "out") == []


def test_a_folder_that_cannot_be_made_is_an_os_error(make_picture, tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file/below"):
        with pytest.raises(OSError):
            save_picture(make_picture(), folder)
    assert left_over(tmp_path) == ["file"]


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs a file system that nobody can write to")
def test_a_read_only_folder_is_an_os_error(make_picture):
    with pytest.raises(OSError):
        save_picture(make_picture(), Path("/proc/self"))
    with pytest.raises(OSError):
        save_picture(make_picture(), Path("/proc/pictures"))
