"""Samples -> median, p10, p90, and the ratio to the row that a row is compared with; and what machine took them."""

import contextlib
import importlib.metadata
import math
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch

STEAL = 7
"""The place of stolen time among the kinds in /proc/stat; what comes after it is counted in others already."""
SIZES = {
    "demo": "demo model",
    "sd15": "SD 1.5 size, random weights",
    "sdxl": "SDXL size, random weights",
    "sdxl-small": "SDXL's build at a hundredth of its size, random weights",
}


@dataclass(frozen=True)
class Options:
    """What the command line says of all workloads; ``steps`` and ``side`` (px) are 0 for the workload's own.

    ``compiled`` has compiled programs drawn with too where they are left out otherwise, for the minutes that they take.
    ``against`` is another checkout of this product, to be measured instead of other programs. ``visitors`` and
    ``minutes`` are those of ``load``.
    """

    rounds: int = 7
    size: str = "demo"
    steps: int = 0
    side: int = 0
    threads: int = field(default_factory=torch.get_num_threads)
    peers: bool = False
    comfyui: Path | None = None
    comfyui_python: Path | None = None
    sdapi: str = ""
    device: str = "cpu"
    compiled: bool = False
    against: Path | None = None
    visitors: int = 50
    minutes: float = 10.0


@dataclass(frozen=True)
class Row:
    """One measured thing: its samples in ``unit``, and the name of the row that its ratio refers to.

    ``floor_share`` is the machine's floor in the median (1.0 is at the floor); ``max_difference`` (levels of 255),
    ``psnr_db`` (infinite for equal pictures) and ``ssim`` are to the picture that it stands for. ``holds`` says
    whether what is promised of it does.
    """

    name: str
    unit: str
    samples: Sequence[float]
    against: str = ""
    note: str = ""
    baseline: Sequence[float] = field(default=(), repr=False)
    floor_share: float | None = None
    peak_mib: float | None = None
    max_difference: float | None = None
    psnr_db: float | None = None
    ssim: float | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    holds: bool | None = None

    @property
    def ratio(self) -> float | None:
        """Median of the round-by-round ratios, which a slow spell of the machine touches on both sides."""
        if not self.baseline:
            return None
        return median(own / other for own, other in zip(self.samples, self.baseline, strict=True))

    def as_dict(self) -> dict[str, Any]:
        """For JSON, which has no infinite numbers; what was not measured is left out."""
        if not self.samples:
            return {"name": self.name, "unit": self.unit, "n": 0, "note": self.note}
        low, high = _p10_p90(self.samples)
        figures = {"median": median(self.samples), "p10": low, "p90": high, "n": len(self.samples)}
        row = {"name": self.name, "unit": self.unit, **figures, "ratio": self.ratio, "against": self.against}
        for name in ("floor_share", "peak_mib", "max_difference", "psnr_db", "ssim"):
            figure = getattr(self, name)
            if figure is not None and math.isfinite(figure):
                row[name] = float(figure)
        row |= {} if self.holds is None else {"holds": self.holds}
        return row | {name: getattr(self, name) for name in ("versions", "note") if getattr(self, name)}


def compared(name: str, unit: str, samples: Sequence[float], other: Row, note: str = "", **figures: Any) -> Row:
    """A row with its ratio to ``other``, whose rounds alternated with these; ``figures`` are further fields of it."""
    return Row(name, unit, samples, other.name, note, other.samples, **figures)


def print_table(title: str, rows: Sequence[Row]) -> None:
    """One line a row."""
    width = max(40, *(len(row.name) + len(row.unit) + 2 for row in rows))
    print(f"\n{title}\n{'':{width}} {'median':>9} {'p10':>9} {'p90':>9} {'n':>3}  ratio")
    for row in rows:
        if not row.samples:
            print(f"{row.name:{width}} {row.note}")
            continue
        low, high = _p10_p90(row.samples)
        ratio = "" if row.ratio is None else f"{row.ratio:{'5.2f' if row.ratio > 0.05 else '.5f'}} of {row.against}"
        figures = f"{median(row.samples):9.2f} {low:9.2f} {high:9.2f} {len(row.samples):3}"
        print(f"{row.name + ', ' + row.unit:{width}} {figures}  {ratio} {row.note}".rstrip())


def machine() -> str:
    """Processor, cores and the versions that matter."""
    try:
        lines = Path("/proc/cpuinfo").read_text("ascii").splitlines()
        processor = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        processor = platform.processor() or platform.machine()
    processor += f" ({torch.backends.cpu.get_cpu_capability()})"
    if torch.cuda.is_available():
        processor += f" with {torch.cuda.get_device_name()}"
    names = ("torch", "diffusers", "transformers", "gradio")
    known = {name: version for name in names if (version := _version(name))}
    versions = ", ".join(f"{name} {version}" for name, version in known.items())
    return f"{processor}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}"


def _version(package: str) -> str:
    """Empty where it is not installed, as Gradio is not for benchmarks of the engine alone."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(package)
    return ""


class Conditions:
    """What else the machine does from now on: the load average at the start, and processor time that its host took."""

    def __init__(self, stat: Path = Path("/proc/stat")) -> None:
        self._stat = stat
        self._ticks = self._read()
        self.load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None

    def as_dict(self) -> dict[str, float]:
        """For JSON: ``load`` (processes, over one minute) and ``stolen`` (share of all time of all processors)."""
        ticks = self._read()
        spent = [now - then for now, then in zip(ticks, self._ticks, strict=True)]
        figures = {"load": self.load, "stolen": spent[STEAL] / max(sum(spent), 1) if spent else None}
        return {name: round(figure, 4) for name, figure in figures.items() if figure is not None}

    def _read(self) -> list[int]:
        """Ticks of all processors since the start of the system, by kind; nothing where there is no such file."""
        try:
            kinds = self._stat.read_text("ascii").splitlines()[0].split()[1 : STEAL + 2]
        except (OSError, IndexError):
            return []
        return list(map(int, kinds)) if len(kinds) > STEAL else []


def describe(conditions: Mapping[str, float]) -> str:
    """One line of what ``Conditions`` found; nothing where it found nothing."""
    parts = []
    if "load" in conditions:
        parts.append(f"load {conditions['load']:.2f} at the start")
    if "stolen" in conditions:
        parts.append(f"{conditions['stolen']:.1%} of the processors' time stolen")
    return ", ".join(parts)


def _p10_p90(samples: Sequence[float]) -> tuple[float, float]:
    if len(samples) < 2:
        return samples[0], samples[0]
    deciles = quantiles(samples, n=10, method="inclusive")
    return deciles[0], deciles[-1]
