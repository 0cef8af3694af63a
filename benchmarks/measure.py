"""Samples -> median, p10, p90, and the ratio to the row that a row is compared with."""

import importlib.metadata
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch


@dataclass(frozen=True)
class Options:
    """What the command line says of all workloads. ``size`` is demo or sd15, ``steps`` 0 for the workload's own."""

    rounds: int = 7
    size: str = "demo"
    steps: int = 0
    threads: int = field(default_factory=torch.get_num_threads)
    peers: bool = False
    comfyui: Path | None = None
    comfyui_python: Path | None = None
    sdapi: str = ""
    device: str = "cpu"


@dataclass(frozen=True)
class Row:
    """One measured thing: its samples in ``unit``, and the name of the row that its ratio refers to."""

    name: str
    unit: str
    samples: Sequence[float]
    against: str = ""
    note: str = ""
    baseline: Sequence[float] = field(default=(), repr=False)

    @property
    def ratio(self) -> float | None:
        """Median of the round-by-round ratios, which a slow spell of the machine touches on both sides."""
        if not self.baseline:
            return None
        return median(own / other for own, other in zip(self.samples, self.baseline, strict=True))

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        if not self.samples:
            return {"name": self.name, "unit": self.unit, "n": 0, "note": self.note}
        low, high = _p10_p90(self.samples)
        figures = {"median": median(self.samples), "p10": low, "p90": high, "n": len(self.samples)}
        return {"name": self.name, "unit": self.unit, **figures, "ratio": self.ratio, "against": self.against} | (
            {"note": self.note} if self.note else {}
        )


def compared(name: str, unit: str, samples: Sequence[float], other: Row, note: str = "") -> Row:
    """A row with its ratio to ``other``, whose rounds alternated with these."""
    return Row(name, unit, samples, other.name, note, other.samples)


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
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    return f"{processor}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}"


def _p10_p90(samples: Sequence[float]) -> tuple[float, float]:
    if len(samples) < 2:
        return samples[0], samples[0]
    deciles = quantiles(samples, n=10, method="inclusive")
    return deciles[0], deciles[-1]
