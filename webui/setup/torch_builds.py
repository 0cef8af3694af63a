"""Which build of torch a machine can use, which one is installed, and whether that one serves.

From PyTorch's release notes and build scripts for 2.13: pip's own index has the build for CUDA 13.0 for Linux on x86,
and builds for processors elsewhere; PyTorch's index has cu126, cu130, ROCm 7.2 (Linux on x86) and XPU (Linux and
Windows on x86) beside them. CUDA 13 begins with Turing cards and driver 580; CUDA 12.6 ends before Blackwell cards.
"""

import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from webui.setup.cards import BLACKWELL, TURING, Card, Machine

INDEX = os.environ.get("DARKROOM_TORCH_INDEX", "https://download.pytorch.org/whl").rstrip("/")
"""Where PyTorch keeps its builds, a folder each; the variable names a mirror of it."""

STAMP = "darkroom-stamp.json"
"""In .venv: what launch.py has installed."""

CHOICES = ("auto", "cpu", "cuda", "rocm", "xpu")
PIP = ""
"""The tag of what pip's own index has."""
OLD_CUDA, CUDA, ROCM, XPU, CPU = "cu126", "cu130", "rocm7.2", "xpu", "cpu"
GIGABYTES = {PIP: 2, CPU: 2, OLD_CUDA: 8, CUDA: 8, ROCM: 20, XPU: 8}
"""What an installation takes, about; those of PyTorch's own index are estimates."""

OLDEST_DRIVER, CUDA_13_DRIVER = 525, 580

# What PyTorch's ROCm build has code for and AMD's libraries still serve; others end in errors or hang.
ROCM_ARCHITECTURES = (
    *("gfx908", "gfx90a", "gfx942", "gfx950", "gfx1030", "gfx1100", "gfx1101", "gfx1102"),
    *("gfx1150", "gfx1151", "gfx1200", "gfx1201"),
)
# Device numbers of Intel's that XPU is made for: Arc A and Flex, Arc B, Max, and Core Ultra's Arc (Meteor Lake with
# Arrow Lake, Lunar Lake, Panther Lake), as in Linux' include/drm/intel/pciids.h.
XPU_DEVICES = (
    range(0x5690, 0x56C3),
    range(0xE200, 0xE230),
    range(0x0BD0, 0x0BDC),
    range(0x7D40, 0x7DD6),
    range(0x6420, 0x64B1),
    range(0xB080, 0xB0C0),
)


class NoBuild(ValueError):
    """There is no such build of torch for this machine; the message says it."""


@dataclass(frozen=True)
class Build:
    """A build of torch. ``kind`` is what it has beside the processor to compute with; empty where any will do."""

    tag: str
    kind: str = ""
    card: str = ""
    """Whose card it is for, where one was found."""
    toolkits: tuple[int, ...] = ()
    """The major versions of CUDA that the card and its driver can use."""
    note: str = ""
    """What keeps the card from being used all the same."""


@dataclass(frozen=True)
class Installed:
    """The build that is installed, as its version.py says."""

    version: str
    kind: str
    toolkit: int = 0


def choose_build(machine: Machine, asked: str = "auto") -> Build:
    """What to install on a machine; raises NoBuild where what was asked for does not exist for it."""
    if asked not in CHOICES:
        raise NoBuild(f"--torch is one of {', '.join(CHOICES)}, not {asked!r}")
    linux, windows = machine.system == "linux", machine.system == "win32"
    pc = machine.is_x86 and (linux or windows)
    can = {
        "cuda": pc or linux and machine.processor == "aarch64",
        "rocm": pc and linux,
        "xpu": pc,
    }
    if asked == "cpu":
        return Build(CPU if linux else PIP, "cpu")
    if asked in can and not can[asked]:
        raise NoBuild(f"there is no torch for {asked} on {machine.system} {machine.processor}; leave out --torch")
    nvidia = [card for card in machine.cards if card.vendor == "NVIDIA"]
    if asked == "cuda" or asked == "auto" and nvidia and can["cuda"]:
        build = _choose_cuda(max(nvidia, key=lambda card: (card.device, card.compute), default=Card("")))
        if build.tag == CUDA and linux and machine.is_x86:
            return Build(PIP, "cuda", build.card, build.toolkits, build.note)
        return build
    usable = {
        "rocm": [card for card in machine.cards if card.architecture in ROCM_ARCHITECTURES],
        "xpu": [card for card in machine.cards if card.vendor == "Intel" and _takes_xpu(card)],
    }
    for kind, tag in (("rocm", ROCM), ("xpu", XPU)):
        if asked == kind or asked == "auto" and usable[kind] and can[kind]:
            return Build(tag, kind, usable[kind][0].vendor if usable[kind] else "")
    return Build(PIP)


def _choose_cuda(card: Card) -> Build:
    """For NVIDIA's best card here; the newest where nothing is known of it."""
    before_turing = 0 < card.device < TURING or () < card.compute < (7, 5)
    blackwell = card.device >= BLACKWELL or card.compute >= (10,)
    driver = card.driver[0] if card.driver else CUDA_13_DRIVER
    note = ""
    if driver < OLDEST_DRIVER or blackwell and driver < CUDA_13_DRIVER:
        needed = CUDA_13_DRIVER if blackwell else OLDEST_DRIVER
        note = f"NVIDIA's driver {driver} is too old for this torch: install driver {needed} or newer"
    if before_turing or driver < CUDA_13_DRIVER and not blackwell:
        return Build(OLD_CUDA, "cuda", card.vendor, (12,), note)
    return Build(CUDA, "cuda", card.vendor, (13,) if blackwell else (12, 13), note)


def _takes_xpu(card: Card) -> bool:
    return any(card.device in devices for devices in XPU_DEVICES)


def read_installed(sites: Iterable[Path]) -> Installed | None:
    """From torch's ``version.py`` in one of these folders of packages, read and not run; None where it is in none."""
    files = [site / "torch" / "version.py" for site in sites]
    text = next((file.read_text("utf-8") for file in files if file.is_file()), None)
    if text is None:
        return None
    said = dict(re.findall(r"^(__version__|cuda|hip|xpu)\b[^=\n]*= *'([^'\n]*)'", text, re.MULTILINE))
    kind = next((kind for kind, name in (("cuda", "cuda"), ("rocm", "hip"), ("xpu", "xpu")) if said.get(name)), "cpu")
    toolkit = re.match(r"\d+", said.get("cuda", ""))
    return Installed(said.get("__version__", ""), kind, int(toolkit.group()) if toolkit else 0)


def read_asked(stamp: Path) -> str:
    """What --torch said when launch.py installed last, from its stamp; also where something else has changed since."""
    try:
        asked = json.loads(stamp.read_text("utf-8"))["asked"]
    except (OSError, ValueError, KeyError, TypeError):
        return CHOICES[0]
    return asked if asked in CHOICES else CHOICES[0]


def serves(installed: Installed, wanted: Build) -> bool:
    """Whether the build that is there does for what the machine has, or for what was asked for."""
    if wanted.kind and installed.kind != wanted.kind:
        return False
    return not wanted.toolkits or installed.toolkit in wanted.toolkits


def describe_misfit(installed: Installed, wanted: Build) -> str:
    """One sentence for people, without what to do about it."""
    return f"This machine has an {wanted.card} card that the installed torch {installed.version} cannot use"


def pip_words(wanted: Build, version: str, offline: bool = False) -> list[str]:
    """What to tell ``pip install`` for one build of one version of torch, and for nothing else with it."""
    index = ["--index-url", f"{INDEX}/{wanted.tag}"] if wanted.tag and not offline else []
    return ["--force-reinstall", "--no-deps", *index, f"torch=={version}" + (f"+{wanted.tag}" if wanted.tag else "")]
