"""One picture of one task, drawn by each program in turn, each a process of its own with the same weights.

A round asks every program once, in an order that is turned round each time; all are asked with the same prompt, seed,
steps, sampler, size and, where they take it, the same initial noise. The first round warms up, or the first one with
each set of LoRAs.
"""

import contextlib
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.floor import Floor, picture_flops
from benchmarks.measure import Options, Row, compared
from benchmarks.peers import PEERS, Models, Ready, Session, Unavailable, adapters, environments, start
from benchmarks.peers.convert import of_size
from benchmarks.tasks import (
    AT_OTHER_SIZES,
    COMPILED,
    FOR_SMALL,
    IN_HALF,
    LARGE,
    LEFT_OUT,
    PROGRAMS,
    USUAL,
    Task,
    drawing_of,
    own_process,
)
from benchmarks.versions import compare_checkouts
from webui.engine.devices import choose_dtype

SIDES_PX = {"demo": (128,), "sd15": (256, 512), "sdxl": (1024,), "sdxl-small": (128,)}
OURS_BEST = ("darkroom as it starts", "darkroom --cuda-graphs")
"""Those that are compared with each other program too."""


@dataclass
class _Drawn:
    seconds: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    worst: int = 0
    psnr_db: float = float("inf")


def compare(task: Task, options: Options) -> list[Row]:
    """A row for each program and size: milliseconds a picture, prompt to pixels."""
    sides = (options.side,) if options.side else SIDES_PX[options.size]
    models = of_size(options.size)
    rows: list[Row] = []
    for side in sides:
        rows += _compare(task, options, models, side)
    return rows


def _compare(task: Task, options: Options, models: Models, side: int) -> list[Row]:
    steps = options.steps or (task.steps if options.size == "demo" else 4)
    label = f"{task.name} {side} px, {steps} steps"
    if options.against:
        return compare_checkouts(task, options, models, side, label, steps)
    baseline = baseline_of(task, options)
    drawn: dict[str, _Drawn] = {}
    refused: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        work = Path(folder)
        sessions = _start(task, options, models, work, stack, refused)
        told = {name: session.ready for name, session in sessions.items()}
        warm_up = max(1, len(task.lora_sets))
        for k in range(options.rounds + warm_up):
            drawing = drawing_of(work, side, steps, k, task)
            order = list(sessions) if k % 2 else list(reversed(sessions))
            for name in order:
                out = work / f"{name}.png"
                try:
                    answer = sessions[name].draw(replace(drawing, out=str(out)))
                except Unavailable as reason:
                    refused[name] = str(reason)
                    sessions.pop(name).close()
                    drawn.pop(name, None)
                    continue
                found = drawn.setdefault(name, _Drawn())
                found.peak_bytes = max(found.peak_bytes, answer.peak_bytes or 0)
                if k >= warm_up:
                    found.seconds.append(answer.seconds)
            for name in drawn:
                _judge(drawn[name], work / f"{name}.png", work / f"{baseline}.png", drawing.mask)
        rates = {name: Floor.measured(told[name].dtype, options.device) for name in drawn}
    if baseline not in drawn:
        raise RuntimeError(f"{baseline}, which all are compared with, did not run: {refused.get(baseline)}")
    stock = Row(f"{label}: {baseline}", "ms", [s * 1e3 for s in drawn[baseline].seconds])
    rows = []
    for name, found in drawn.items():
        floor_ms = rates[name].seconds(picture_flops(models.folder, side, steps, task.strength)) * 1e3
        samples = [seconds * 1e3 for seconds in found.seconds]
        figures: dict[str, Any] = {"floor_share": floor_ms / median(samples), "versions": told[name].versions}
        if found.peak_bytes:
            figures["peak_mib"] = found.peak_bytes / 2**20
        if name == baseline:
            row = replace(stock, **figures)
        else:
            figures |= {"max_difference": found.worst, "psnr_db": found.psnr_db}
            row = compared(f"{label}: {name}", "ms", samples, stock, **figures)
        rows.append(replace(row, note=_note(row, told[name], name not in PROGRAMS)))
    own = {row.name.rpartition(": ")[2]: row for row in rows}
    for ours in filter(own.get, OURS_BEST):
        for other, row in own.items():
            if not other.startswith("darkroom") and other != baseline:
                rows.append(compared(f"{label}: {ours}, to {other}", "ms", own[ours].samples, row))
    if (previews := own.get("darkroom fp32")) and (without := own.get("darkroom fp32, previews off")):
        rows.append(compared(f"{label}: previews on to off", "ms", previews.samples, without))
    return rows + [Row(f"{label}: {name}", "ms", (), note=f"not run: {reason}") for name, reason in refused.items()]


def _start(
    task: Task, options: Options, models: Models, work: Path, stack: contextlib.ExitStack, refused: dict[str, str]
) -> dict[str, Session]:
    """A session with each program that there is; the others' reasons go to ``refused``."""
    sessions: dict[str, Session] = {}

    def add(name: str, session: Session) -> None:
        stack.callback(session.close)
        sessions[name] = session

    dtype = choose_dtype("auto", torch.device(options.device))
    for name in programs(task, options, dtype):
        add(name, own_process(name, PROGRAMS[name], models, work, options))
    if options.peers:
        for peer, variant in peer_variants(dtype):
            try:
                if task.name not in PEERS[peer].tasks:
                    raise Unavailable(f"{task.name} is not asked of it")
                python = environments.ensure(peer)
                add(f"{peer} {variant}", start(peer, variant, models, python, work / f"{peer}.log", options.threads))
            except Unavailable as reason:
                refused[f"{peer} {variant}"] = str(reason)
    if options.comfyui:
        with _refusal(refused, "ComfyUI"):
            own = str(options.comfyui_python or sys.executable)
            add("ComfyUI", adapters.ComfyUi(options.comfyui, models, work / "comfyui", own, options.threads))
    if options.sdapi:
        with _refusal(refused, "sdapi"):
            session = adapters.SdApi(options.sdapi)
            add(next(iter(session.ready.versions), "sdapi"), session)  # by its own name, where it says that
    return sessions


def programs(task: Task, options: Options, dtype: torch.dtype) -> list[str]:
    """Those of ``PROGRAMS`` to draw with, where ours draws in ``dtype``."""
    on_cuda = options.device == "cuda"
    names: Sequence[str] = task.programs
    if not names:
        names = USUAL if on_cuda or options.size == "demo" else AT_OTHER_SIZES
    left_out = LEFT_OUT[options.device] + (("bf16",) if dtype == torch.float32 else ())
    left_out += COMPILED if on_cuda and not options.compiled else ()
    left_out += () if baseline_of(task, options) == task.baseline else FOR_SMALL
    return [name for name in names if PROGRAMS[name] not in left_out]


def baseline_of(task: Task, options: Options) -> str:
    """The program that all are compared with: in float16 where a GPU draws with a model of a usual size."""
    in_half = IN_HALF[task.baseline]
    offered = in_half in (task.programs or USUAL)
    return in_half if offered and options.device == "cuda" and options.size in LARGE else task.baseline


def peer_variants(dtype: torch.dtype) -> tuple[tuple[str, str], ...]:
    """Peers and how each is at its best, diffusers in the format in which ours draws on this processor."""
    best = "fp32-best" if dtype == torch.float32 else "bf16-best"
    return ("diffusers", best), ("openvino", "default"), ("sdcpp", "f16")


@contextlib.contextmanager
def _refusal(refused: dict[str, str], name: str) -> Iterator[None]:
    try:
        yield
    except Unavailable as reason:
        refused[name] = str(reason)


def _judge(found: _Drawn, picture: Path, reference: Path, mask: str | None) -> None:
    """Within the mask, where there is one: outside, ours keeps the pixels, which diffusers decodes from latents."""
    one, other = (np.asarray(Image.open(path).convert("RGB"), np.float32) for path in (picture, reference))
    if mask:
        drawn = np.asarray(Image.open(mask)) > 0
        one, other = one[drawn], other[drawn]
    found.worst = max(found.worst, int(np.abs(one - other).max()))
    error = float(np.square(one - other).mean())
    if error:
        found.psnr_db = min(found.psnr_db, 10 * np.log10(255**2 / error))


def _note(row: Row, ready: Ready, names_version: bool) -> str:
    parts = [ready.dtype, f"{row.floor_share:.0%} of the machine's floor"]
    if row.peak_mib is not None:
        parts.append(f"peak {row.peak_mib:.0f} MiB")
    if row.psnr_db is not None:
        equal = row.psnr_db == float("inf")
        parts.append("same pixels" if equal else f"off by up to {row.max_difference}/255, PSNR {row.psnr_db:.0f} dB")
    if names_version and ready.versions:
        parts.append(" ".join(next(iter(ready.versions.items()))))
    return "(" + "; ".join([*parts, *([ready.note] if ready.note else [])]) + ")"
