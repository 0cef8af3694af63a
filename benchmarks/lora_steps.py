"""A LoRA's weight that changes over the steps: what a change in mid-picture costs, in processor time.

On a GPU it is the clock's, the GPU waited for at the end of each step.

Ours is a request with points; diffusers' is ``set_adapters`` in a callback, its LoRAs unfused; ComfyUI's are weight
hooks with keyframes, where a checkout is given. Each is a process of its own. A round draws a picture with a change
before every second step and one with one change in the middle, with each program in turn.
"""

import contextlib
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

import torch
from diffusers.models import UNet2DConditionModel

from benchmarks.lora_files import write_lora
from benchmarks.measure import Options, Row, compared
from benchmarks.peers import HERE, Drawing, Models, Unavailable, Worker
from benchmarks.peers.convert import of_size
from benchmarks.tasks import BASELINE, HALF, PROGRAMS, drawing_of, own_process

OURS, COMFYUI = "darkroom fp32, previews off", "ComfyUI"
WEIGHTS = 0.8, 0.4
STEPS = {"demo": 20, "sd15": 8, "sdxl": 8, "sdxl-small": 8}
SIDES = {"demo": 128, "sd15": 256, "sdxl": 1024, "sdxl-small": 128}
ON_DEVICE = {"cpu": (BASELINE, OURS), "cuda": (HALF, "darkroom as it starts", "darkroom --cuda-graphs")}


@dataclass
class _Found:
    """Milliseconds a round: of a step without a change, and what one change, and each of many, adds to its step."""

    step: list[float] = field(default_factory=list)
    one: list[float] = field(default_factory=list)
    many: list[float] = field(default_factory=list)
    first: float = 0.0


def run(options: Options) -> list[Row]:
    """A LoRA at two weights in turn; the first round, in which both sets are new, is told apart."""
    steps, side = options.steps or STEPS[options.size], options.side or SIDES[options.size]
    models, refused = of_size(options.size), dict[str, str]()
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(models.folder / "unet"))
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        work = Path(folder)
        file = write_lora(work / "over-steps.safetensors", unet, seed=0).path
        programs = dict(_start(models, work, options, stack, refused))
        found = {name: _Found() for name in programs}
        for k in range(options.rounds + 1):
            plain = replace(drawing_of(work, side, steps, k), loras=[(str(file), WEIGHTS[0])])
            for name in list(programs) if k % 2 else reversed(list(programs)):
                try:
                    _round(programs[name], plain, found[name], k > 0)
                except Unavailable as reason:
                    refused[name] = str(reason)
                    programs.pop(name).close()
                    found.pop(name)
    return list(_rows(f"{options.size}, {side} px, {steps} steps", found, refused))


def changes(steps: int, every: int) -> list[tuple[int, float]]:
    """From which step on which weight: a change before each so many steps, the two weights in turn."""
    return [(step, WEIGHTS[(step // every) % 2]) for step in range(every, steps, every)]


def added_ms(steps_s: Sequence[float], changed: Sequence[int]) -> float:
    """What a change adds to its step, beside the steps before and behind it that have none; the median.

    ``steps_s`` begins with step 1. Of a change in the last step, only the one before counts.
    """
    taken = dict(enumerate(steps_s, 1))
    added = []
    for step in changed:
        around = [taken[near] for near in (step - 1, step + 1) if near in taken and near not in changed]
        added.append(taken[step] - sum(around) / len(around))
    return median(added) * 1e3


def _round(program: Worker, plain: Drawing, found: _Found, counts: bool) -> None:
    middle = plain.steps // 2
    one = replace(plain, changes=[(middle, WEIGHTS[1])])
    many = replace(plain, changes=changes(plain.steps, 2))
    # Many first: sets that have rested would be measured as memory that the host of a virtual machine has taken away.
    many_s, one_s = (program.draw(drawing).steps_s for drawing in (many, one))
    at = [step for step, _ in many.changes]
    if not counts:
        found.first = added_ms(many_s, at[:1])
        return
    found.step.append(median(s for step, s in enumerate(many_s, 1) if step not in at) * 1e3)
    found.one.append(added_ms(one_s, [middle]))
    found.many.append(added_ms(many_s, at))


def _start(
    models: Models, work: Path, options: Options, stack: contextlib.ExitStack, refused: dict[str, str]
) -> Iterator[tuple[str, Worker]]:
    for name in ON_DEVICE[options.device]:
        worker = own_process(name, PROGRAMS[name], models, work, options)
        stack.callback(worker.close)
        yield name, worker
    if options.comfyui:
        python = str(options.comfyui_python or sys.executable)
        command = [python, str(HERE / "comfyui_worker.py"), "--model", str(models.file.resolve()), "--variant", "fp32"]
        command += ["--threads", str(options.threads)]
        try:
            worker = Worker(command, work / "comfyui.log", options.threads, folder=options.comfyui)
        except Unavailable as reason:
            refused[COMFYUI] = str(reason)
            return
        stack.callback(worker.close)
        yield COMFYUI, worker


def _rows(label: str, found: Mapping[str, _Found], refused: Mapping[str, str]) -> Iterator[Row]:
    kinds = {"step": "step", "one": "one change in the middle adds", "many": "each of many changes adds"}
    for kind, text in kinds.items():
        baseline: Row | None = None
        for name, own in found.items():
            samples: list[float] = getattr(own, kind)
            share = "" if kind == "step" else f"({median(samples) / median(own.step):.2%} of a step)"
            row = Row(f"{label}: {text}, {name}", "ms", samples, note=share)
            if baseline is not None:
                row = compared(row.name, "ms", samples, baseline, share)
            elif name.startswith("diffusers"):
                baseline = row
            yield row
    for name, own in found.items():
        note = f"({own.first / median(own.step):.2%} of a step)"
        yield Row(f"{label}: a change to weights that are new adds, {name}", "ms", [own.first], note=note)
    for name, reason in refused.items():
        yield Row(f"{label}: {name}", "ms", (), note=f"not run: {reason}")
