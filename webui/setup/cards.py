"""Which graphics cards a machine has that some build of torch can use, told without torch and in milliseconds."""

import contextlib
import importlib
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

VENDORS = {"10de": "NVIDIA", "1002": "AMD", "8086": "Intel"}
# Classes of PCI devices: display controllers, and AMD's accelerators without an output.
DISPLAY, ACCELERATOR = "0x03", "0x12"
DISPLAY_ADAPTERS = r"SYSTEM\CurrentControlSet\Control\Class\{4d36e968-e325-11ce-bfc1-08002be10318}"
# NVIDIA's device numbers rise with the generations: the first of Turing (compute capability 7.5) and of Blackwell (10).
TURING, BLACKWELL = 0x1E00, 0x2900


@dataclass(frozen=True)
class Card:
    """A card whose driver is there. What is not known of it is 0 or empty."""

    vendor: str
    device: int = 0
    """Its PCI device number."""
    compute: tuple[int, ...] = ()
    """NVIDIA's compute capability: (8, 6)."""
    architecture: str = ""
    """AMD's name for it: gfx1100."""
    driver: tuple[int, ...] = ()
    """The version of NVIDIA's driver: (580, 88)."""


@dataclass(frozen=True)
class Machine:
    """``system`` as in sys.platform; ``processor`` as in platform.machine(), in small letters."""

    system: str
    processor: str
    cards: tuple[Card, ...] = ()

    @property
    def is_x86(self) -> bool:
        return self.processor in ("x86_64", "amd64")


def look(ask_driver: bool = False) -> Machine:
    """This machine. With ``ask_driver`` nvidia-smi tells, in about a second, what the system's files do not."""
    cards: list[Card] = []
    if sys.platform == "linux":
        cards = [*find_on_linux(Path("/"))]
    elif sys.platform == "win32":
        with contextlib.suppress(OSError):  # a registry that says nothing
            cards = [*find_on_windows()]
    if ask_driver:
        cards = [card if card.vendor != "NVIDIA" or card.device else ask_nvidia(card) for card in cards]
    return Machine(sys.platform, platform.machine().lower(), tuple(cards))


def find_on_linux(root: Path) -> Iterator[Card]:
    """From the files that the kernel and the drivers show below ``root``."""
    devices = [*_pci_devices(root / "sys/bus/pci/devices")]
    driver = _numbers(r"Module.*?(\d+(?:\.\d+)+)", _read(root / "proc/driver/nvidia/version"))
    if driver and any((root / "dev" / name).exists() for name in ("nvidiactl", "nvidia0")):
        yield from (Card("NVIDIA", device, driver=driver) for vendor, device in devices if vendor == "NVIDIA")
    elif (root / "dev/dxg").exists() and (root / "usr/lib/wsl/lib/libcuda.so.1").exists():
        yield Card("NVIDIA")  # Windows' driver inside WSL: the card itself is not among the devices
    if (root / "dev/kfd").exists():
        for properties in sorted((root / "sys/class/kfd/kfd/topology/nodes").glob("*/properties")):
            found = re.search(r"^gfx_target_version (\d+)$", _read(properties), re.MULTILINE)
            if found and (version := int(found.group(1))):
                steps = (version // 10000, version // 100 % 100, version % 100)
                yield Card("AMD", architecture="gfx{}{:x}{:x}".format(*steps))
    if (root / "dev/dri").exists():
        yield from (Card("Intel", device) for vendor, device in devices if vendor == "Intel")


def _pci_devices(folder: Path) -> Iterator[tuple[str, int]]:
    for device in sorted(folder.glob("*")):
        vendor = VENDORS.get(_read(device / "vendor").strip().removeprefix("0x"), "")
        number = _read(device / "device").strip()
        if vendor and number and _read(device / "class").startswith((DISPLAY, ACCELERATOR)):
            yield vendor, int(number, 16)


def find_on_windows() -> Iterator[Card]:
    """From the registry, which has a key for each display adapter with its number and its driver's version."""
    for match, version in read_adapters(importlib.import_module("winreg")):
        if card := read_adapter(match, version):
            yield card


def read_adapters(registry: Any) -> Iterator[tuple[str, str]]:
    """Each adapter's identification and its driver's version. ``registry`` is the module winreg, or one like it."""
    with registry.OpenKey(registry.HKEY_LOCAL_MACHINE, DISPLAY_ADAPTERS) as adapters:
        for name in (registry.EnumKey(adapters, index) for index in range(registry.QueryInfoKey(adapters)[0])):
            with contextlib.suppress(OSError), registry.OpenKey(adapters, name) as adapter:  # one is the system's alone
                match, version = (
                    registry.QueryValueEx(adapter, key)[0] for key in ("MatchingDeviceId", "DriverVersion")
                )
                yield str(match), str(version)


def read_adapter(match: str, version: str) -> Card | None:
    r"""A card from ``pci\ven_10de&dev_2684&...`` and ``32.0.15.8088``, whose last five digits are NVIDIA's 580.88."""
    found = re.match(r"pci\\ven_([0-9a-f]{4})&dev_([0-9a-f]{4})", match.lower())
    if not found or found.group(1) not in VENDORS:
        return None
    vendor, device = VENDORS[found.group(1)], int(found.group(2), 16)
    digits = "".join(version.split(".")[-2:])[-5:]
    known = vendor == "NVIDIA" and len(digits) == 5 and digits.isdigit()
    return Card(vendor, device, driver=(int(digits[:3]), int(digits[3:])) if known else ())


def ask_nvidia(card: Card) -> Card:
    """With what nvidia-smi says of the first card, where it is there and answers."""
    program = shutil.which("nvidia-smi") or shutil.which("nvidia-smi", path="/usr/lib/wsl/lib")
    if not program:
        return card
    query = [program, "--query-gpu=compute_cap,driver_version", "--format=csv,noheader"]
    try:
        said = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return card
    return read_nvidia(card, said)


def read_nvidia(card: Card, said: str) -> Card:
    """With what a line such as ``8.9, 580.88`` says."""
    found = re.match(r"\s*(\d+\.\d+)\s*,\s*(\d+(?:\.\d+)+)", said)
    if not found:
        return card
    compute, driver = (tuple(int(part) for part in text.split(".")) for text in found.groups())
    return replace(card, compute=compute, driver=driver)


def _numbers(pattern: str, text: str) -> tuple[int, ...]:
    found = re.search(pattern, text)
    return tuple(int(part) for part in found.group(1).split(".")) if found else ()


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", errors="replace")
    except OSError:
        return ""
