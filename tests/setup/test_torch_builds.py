"""Which build of torch each kind of machine gets, and whether the one that is there will do."""

import importlib.metadata
import importlib.util
from pathlib import Path

import pytest

from webui.setup.cards import Card, Machine
from webui.setup.torch_builds import (
    Build,
    Installed,
    NoBuild,
    choose_build,
    describe_misfit,
    pip_words,
    read_asked,
    read_installed,
    serves,
)

NEW, OLD = (580, 88), (551, 23)
ADA, PASCAL, BLACKWELL = 0x2684, 0x1B80, 0x2B85


def machine(system, processor, *found):
    return Machine(system, processor, found)


def nvidia(device=ADA, driver=NEW, **more):
    return Card("NVIDIA", device, driver=driver, **more)


LINUX, WINDOWS, MAC = ("linux", "x86_64"), ("win32", "amd64"), ("darwin", "arm64")
CUDA_126, CUDA_130 = ("cu126", "cuda"), ("cu130", "cuda")


@pytest.mark.parametrize(
    ("place", "found", "tag", "kind"),
    [
        (WINDOWS, [nvidia()], *CUDA_130),
        (WINDOWS, [nvidia(PASCAL)], *CUDA_126),
        (WINDOWS, [nvidia(driver=OLD)], *CUDA_126),
        (WINDOWS, [nvidia(BLACKWELL)], *CUDA_130),
        (WINDOWS, [nvidia(PASCAL), nvidia()], *CUDA_130),
        (WINDOWS, [Card("NVIDIA")], *CUDA_130),
        (WINDOWS, [Card("Intel", 0xA7A0), nvidia()], *CUDA_130),
        (WINDOWS, [Card("Intel", 0x56A0)], "xpu", "xpu"),
        (WINDOWS, [Card("Intel", 0xA7A0)], "", ""),
        (WINDOWS, [Card("AMD", 0x744C)], "", ""),  # PyTorch has no such build for Windows
        (WINDOWS, [], "", ""),
        (("win32", "arm64"), [nvidia()], "", ""),
        (LINUX, [nvidia()], "", "cuda"),  # pip's own index has it
        (LINUX, [nvidia(PASCAL)], *CUDA_126),
        (LINUX, [nvidia(driver=OLD)], *CUDA_126),
        (LINUX, [nvidia(0, (), compute=(6, 1))], *CUDA_126),
        (LINUX, [nvidia(0, (), compute=(8, 9))], "", "cuda"),
        (("linux", "aarch64"), [nvidia()], *CUDA_130),
        (LINUX, [Card("AMD", architecture="gfx1100")], "rocm7.2", "rocm"),
        (LINUX, [Card("AMD", architecture="gfx1036"), Card("AMD", architecture="gfx1201")], "rocm7.2", "rocm"),
        (LINUX, [Card("AMD", architecture="gfx1036")], "", ""),
        (LINUX, [nvidia(), Card("AMD", architecture="gfx1100")], "", "cuda"),
        (LINUX, [Card("Intel", 0xE20B)], "xpu", "xpu"),
        (LINUX, [Card("Intel", 0x7D55)], "xpu", "xpu"),
        (LINUX, [Card("Intel", 0x4680)], "", ""),
        (("linux", "aarch64"), [], "", ""),
        (LINUX, [], "", ""),
        (MAC, [], "", ""),
    ],
)
def test_the_machine_decides(place, found, tag, kind):
    build = choose_build(machine(*place, *found))
    assert (build.tag, build.kind) == (tag, kind)
    assert build.note == ""


@pytest.mark.parametrize(
    ("place", "asked", "tag", "kind"),
    [
        (LINUX, "cpu", "cpu", "cpu"),
        (WINDOWS, "cpu", "", "cpu"),
        (MAC, "cpu", "", "cpu"),
        (LINUX, "cuda", "", "cuda"),
        (WINDOWS, "cuda", *CUDA_130),
        (LINUX, "rocm", "rocm7.2", "rocm"),
        (LINUX, "xpu", "xpu", "xpu"),
        (WINDOWS, "xpu", "xpu", "xpu"),
    ],
)
def test_what_is_asked_for_goes_before_what_is_found(place, asked, tag, kind):
    for found in ([], [Card("AMD", architecture="gfx1036")], [Card("Intel", 0xA7A0)]):
        build = choose_build(machine(*place, *found), asked)
        assert (build.tag, build.kind) == (tag, kind)
    assert choose_build(machine(*place, nvidia(PASCAL)), asked).tag == ("cu126" if asked == "cuda" else tag)


@pytest.mark.parametrize(
    ("place", "asked", "said"),
    [
        (MAC, "cuda", "no torch for cuda on darwin arm64"),
        (WINDOWS, "rocm", "no torch for rocm on win32 amd64"),
        (("linux", "aarch64"), "xpu", "no torch for xpu on linux aarch64"),
        (LINUX, "gpu", "--torch is one of auto, cpu, cuda, rocm, xpu, not 'gpu'"),
    ],
)
def test_what_there_is_not_is_refused(place, asked, said):
    with pytest.raises(NoBuild, match=said):
        choose_build(machine(*place), asked)


def test_a_driver_that_is_too_old_is_said():
    assert (
        "driver 470 is too old for this torch: install driver 525"
        in choose_build(machine(*LINUX, nvidia(driver=(470, 82)))).note
    )
    blackwell = choose_build(machine(*WINDOWS, nvidia(BLACKWELL, OLD)))
    assert blackwell.tag == "cu130" and "install driver 580" in blackwell.note


CPU, CUDA_12, CUDA_13 = (
    Installed("2.13.0+cpu", "cpu"),
    Installed("2.13.0+cu126", "cuda", 12),
    Installed("x", "cuda", 13),
)


@pytest.mark.parametrize(
    ("place", "found", "asked", "good", "bad"),
    [
        (WINDOWS, [nvidia()], "auto", [CUDA_12, CUDA_13], [CPU, Installed("x", "xpu")]),
        (LINUX, [nvidia(PASCAL)], "auto", [CUDA_12], [CPU, CUDA_13]),
        (LINUX, [nvidia(driver=OLD)], "auto", [CUDA_12], [CPU, CUDA_13]),
        (LINUX, [nvidia(BLACKWELL)], "auto", [CUDA_13], [CPU, CUDA_12]),
        (LINUX, [Card("AMD", architecture="gfx1100")], "auto", [Installed("x", "rocm")], [CPU, CUDA_13]),
        (LINUX, [Card("Intel", 0x56A0)], "auto", [Installed("x", "xpu")], [CPU, CUDA_13]),
        (LINUX, [], "auto", [CPU, CUDA_12, CUDA_13, Installed("x", "rocm")], []),
        (LINUX, [nvidia()], "cpu", [CPU], [CUDA_13]),
    ],
)
def test_whether_what_is_installed_will_do(place, found, asked, good, bad):
    wanted = choose_build(machine(*place, *found), asked)
    assert all(serves(installed, wanted) for installed in good)
    assert not any(serves(installed, wanted) for installed in bad)


def test_a_misfit_is_told_in_a_sentence():
    said = describe_misfit(CPU, choose_build(machine(*WINDOWS, nvidia())))
    assert said == "This machine has an NVIDIA card that the installed torch 2.13.0+cpu cannot use"


@pytest.mark.parametrize(
    ("version", "cuda", "hip", "xpu", "installed"),
    [
        ("2.13.0+cpu", None, None, None, CPU),
        ("2.13.0+cu126", "12.6", None, None, CUDA_12),
        ("2.13.0+rocm7.2", None, "7.2.26015", None, Installed("2.13.0+rocm7.2", "rocm")),
        ("2.13.0+xpu", None, None, "20250302", Installed("2.13.0+xpu", "xpu")),
    ],
)
def test_the_installed_build_is_read_from_its_own_file(tmp_path, version, cuda, hip, xpu, installed):
    file = tmp_path / "torch" / "version.py"
    assert read_installed([tmp_path]) is None
    file.parent.mkdir()
    lines = ["from typing import Optional", "", f"__version__ = {version!r}", "debug = False"]
    lines += [f"{name}: Optional[str] = {value!r}" for name, value in (("cuda", cuda), ("hip", hip), ("xpu", xpu))]
    file.write_text("\n".join(lines), "utf-8")
    assert read_installed([tmp_path / "none", tmp_path]) == installed


def test_the_torch_of_these_tests_is_read_as_it_calls_itself():
    """Its own file, which writes more than the ones above."""
    spec = importlib.util.find_spec("torch")
    installed = read_installed([Path(str(spec and spec.origin)).parents[1]])
    assert installed and installed.version.startswith(importlib.metadata.version("torch").partition("+")[0])
    assert installed.kind in ("cpu", "cuda", "rocm", "xpu")


def test_one_build_of_one_version_is_asked_for():
    words = ["--force-reinstall", "--no-deps", "--index-url", "https://download.pytorch.org/whl/cu130"]
    assert pip_words(Build("cu130"), "2.13.0") == [*words, "torch==2.13.0+cu130"]
    assert pip_words(Build("cu130"), "2.13.0", offline=True) == [*words[:2], "torch==2.13.0+cu130"]
    assert pip_words(Build(""), "2.13.0") == [*words[:2], "torch==2.13.0"]


def test_what_was_asked_for_is_kept(tmp_path):
    stamp = tmp_path / "stamp.json"
    assert read_asked(stamp) == "auto"
    for text, asked in (('{"asked": "cpu"}', "cpu"), ('{"asked": "x"}', "auto"), ("[]", "auto"), ("{}", "auto")):
        stamp.write_text(text, "utf-8")
        assert read_asked(stamp) == asked
