"""What the doctor says of a card that is not used; all else it says is in tests/e2e/test_cli.py."""

import sys
from pathlib import Path

import pytest

from webui import doctor
from webui.core.errors import RequestError
from webui.setup.cards import Card, Machine
from webui.setup.torch_builds import Installed

ADA, BLACKWELL = 0x2684, 0x2B85


@pytest.fixture
def examine(monkeypatch, tmp_path):
    """``examine(card, installed, system)``: the problems of such a machine, in an environment below ``tmp_path``."""
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))

    def run(card, installed, system="win32"):
        cards = (card,) if card else ()
        monkeypatch.setattr(doctor, "look", lambda ask_driver: Machine(system, "x86_64", cards))
        monkeypatch.setattr(doctor, "read_installed", lambda sites: installed)
        return [*doctor._examine_card(Path("site-packages"))]

    return run


CPU, CUDA = Installed("2.13.0+cpu", "cpu"), Installed("2.13.0+cu130", "cuda", 13)


def test_a_torch_that_cannot_use_the_card_has_one_command_as_its_mend(examine, tmp_path):
    ((problem, mend),) = examine(Card("NVIDIA", ADA, driver=(580, 88)), CPU)
    assert problem == "This machine has an NVIDIA card that the installed torch 2.13.0+cpu cannot use"
    index = "--index-url https://download.pytorch.org/whl/cu130 torch==2.13.0+cu130"
    assert mend == f"{sys.executable} -m pip install --force-reinstall --no-deps {index}"
    (tmp_path / "launch.py").touch()
    ((_, mend),) = examine(Card("AMD", architecture="gfx1100"), CPU, "linux")
    assert mend == "python launch.py --torch auto"


def test_a_card_that_torch_does_not_find_is_its_drivers_matter(examine):
    ((problem, mend),) = examine(Card("NVIDIA", ADA, driver=(580, 88)), CUDA)
    assert problem == "torch does not find the NVIDIA card of this machine" and "nvidia-smi" in mend
    ((_, mend),) = examine(Card("NVIDIA", BLACKWELL, driver=(551, 23)), CUDA)
    assert mend == "NVIDIA's driver 551 is too old for this torch: install driver 580 or newer"
    ((_, mend),) = examine(Card("Intel", 0x56A0), Installed("2.13.0+xpu", "xpu"))
    assert "Level Zero" in mend


def test_nothing_is_wrong_without_a_card_or_where_the_processor_was_asked_for(examine, tmp_path):
    assert examine(None, CPU) == []
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "darkroom-stamp.json").write_text('{"asked": "cpu"}', "utf-8")
    assert examine(Card("NVIDIA", ADA, driver=(580, 88)), CPU) == []


def test_the_places_of_several_workers_are_said_and_what_is_no_device_is_a_problem(capsys):
    assert [*doctor._examine_workers(lambda: ["cpu 1", "cpu 2"])] == []
    assert capsys.readouterr().out == "Workers: cpu 1, cpu 2\n"

    def refuse() -> list[str]:
        raise RequestError("devices: 'gpu' is not one of ...")

    ((problem, _),) = doctor._examine_workers(refuse)
    assert problem == "devices: 'gpu' is not one of ..."
