"""What is found of a machine's cards, in folders that look like a kernel's and a registry that looks like Windows'."""

import subprocess
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from webui.setup import cards
from webui.setup.cards import Card, ask_nvidia, find_on_linux, look, read_adapter, read_adapters

NVIDIA_DRIVER = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.133.20  Tue Mar 25 2025\nGCC version: 13\n"


def write(file: Path, text: str = "") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, "utf-8")


def add_device(root: Path, number: int, vendor: int, device: int, kind: int = 0x030000) -> None:
    folder = root / f"sys/bus/pci/devices/0000:{number:02x}:00.0"
    for name, text in (("vendor", f"{vendor:#06x}"), ("device", f"{device:#06x}"), ("class", f"{kind:#08x}")):
        write(folder / name, f"{text}\n")


def test_an_nvidia_card_counts_where_its_driver_is(tmp_path):
    add_device(tmp_path, 1, 0x10DE, 0x2684)
    add_device(tmp_path, 2, 0x10DE, 0x22BA, kind=0x040300)  # its sound
    assert [*find_on_linux(tmp_path)] == []
    write(tmp_path / "proc/driver/nvidia/version", NVIDIA_DRIVER)
    assert [*find_on_linux(tmp_path)] == []  # a container that has not been given it
    write(tmp_path / "dev/nvidiactl")
    assert [*find_on_linux(tmp_path)] == [Card("NVIDIA", 0x2684, driver=(570, 133, 20))]


def test_the_open_driver_says_its_version_too(tmp_path):
    add_device(tmp_path, 1, 0x10DE, 0x2335, kind=0x030200)
    said = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.82.07  Release Build  (dvs-builder)\n"
    write(tmp_path / "proc/driver/nvidia/version", said)
    write(tmp_path / "dev/nvidia0")
    assert [*find_on_linux(tmp_path)] == [Card("NVIDIA", 0x2335, driver=(580, 82, 7))]


def test_wsl_has_a_card_that_is_no_device(tmp_path):
    write(tmp_path / "dev/dxg")
    assert [*find_on_linux(tmp_path)] == []  # Windows has another card, or no driver for it
    write(tmp_path / "usr/lib/wsl/lib/libcuda.so.1")
    assert [*find_on_linux(tmp_path)] == [Card("NVIDIA")]


def test_amds_cards_are_known_by_their_architecture(tmp_path):
    nodes = tmp_path / "sys/class/kfd/kfd/topology/nodes"
    for number, version in enumerate((0, 90010, 100306, 110001, 120001)):  # the first is the processor
        write(nodes / f"{number}/properties", f"simd_count 4\ngfx_target_version {version}\nvendor_id 4098\n")
    assert [*find_on_linux(tmp_path)] == []
    write(tmp_path / "dev/kfd")
    found = [card.architecture for card in find_on_linux(tmp_path)]
    assert found == ["gfx90a", "gfx1036", "gfx1101", "gfx1201"]


def test_intels_cards_are_known_by_their_number(tmp_path):
    add_device(tmp_path, 0, 0x8086, 0xA7A0)
    add_device(tmp_path, 3, 0x8086, 0xE20B)
    assert [*find_on_linux(tmp_path)] == []
    (tmp_path / "dev/dri").mkdir(parents=True)
    assert [*find_on_linux(tmp_path)] == [Card("Intel", 0xA7A0), Card("Intel", 0xE20B)]


def test_a_machine_without_such_folders_has_no_cards(tmp_path):
    assert [*find_on_linux(tmp_path)] == []


@pytest.mark.parametrize(
    ("match", "version", "card"),
    [
        (r"PCI\VEN_10DE&DEV_2684&SUBSYS_16F210DE", "32.0.15.8088", Card("NVIDIA", 0x2684, driver=(580, 88))),
        (r"pci\ven_10de&dev_1b80", "31.0.15.3699", Card("NVIDIA", 0x1B80, driver=(536, 99))),
        (r"pci\ven_1002&dev_744c&rev_c8", "32.0.11037.4004", Card("AMD", 0x744C)),
        (r"pci\ven_8086&dev_56a0", "32.0.101.6739", Card("Intel", 0x56A0)),
        (r"ROOT\BasicRender", "10.0.1", None),
        (r"pci\ven_1414&dev_008e", "10.0.1", None),
    ],
)
def test_windows_adapters_are_read(match, version, card):
    assert read_adapter(match, version) == card


def test_the_registrys_adapters_are_walked():
    """Each has a key of its own; one beside them is the system's alone."""
    adapters = {
        "0000": {"MatchingDeviceId": r"pci\ven_10de&dev_2684", "DriverVersion": "32.0.15.8088"},
        "0001": {"DriverDesc": "without the rest"},
        "Properties": None,
    }

    def open_key(_, name):
        if adapters.get(name, {}) is None:
            raise PermissionError
        return nullcontext(name)

    def read(key, name):
        if name not in adapters[key]:
            raise FileNotFoundError
        return adapters[key][name], 1

    registry = SimpleNamespace(
        HKEY_LOCAL_MACHINE=0,
        OpenKey=open_key,
        EnumKey=lambda _, index: [*adapters][index],
        QueryInfoKey=lambda _: (len(adapters), 0, 0),
        QueryValueEx=read,
    )
    assert [*read_adapters(registry)] == [(r"pci\ven_10de&dev_2684", "32.0.15.8088")]


def test_nvidia_smi_tells_what_the_files_do_not(monkeypatch, tmp_path):
    monkeypatch.setattr(cards.shutil, "which", lambda *_, **__: "nvidia-smi")
    answers = {"6.1, 551.23\n": Card("NVIDIA", 0, (6, 1), driver=(551, 23)), "No devices were found\n": Card("NVIDIA")}
    for said, card in answers.items():
        monkeypatch.setattr(cards.subprocess, "run", lambda *_, said=said, **__: SimpleNamespace(stdout=said))
        assert ask_nvidia(Card("NVIDIA")) == card

    def fail(*_, **__):
        raise subprocess.TimeoutExpired("nvidia-smi", 30)

    monkeypatch.setattr(cards.subprocess, "run", fail)
    assert ask_nvidia(Card("NVIDIA")) == Card("NVIDIA")


def test_this_machine_is_looked_at_without_a_program(monkeypatch):
    monkeypatch.setattr(cards.subprocess, "run", None)
    assert look().processor == look().processor.lower() != ""
