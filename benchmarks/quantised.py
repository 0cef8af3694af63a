"""A UNet of SD 1.5's size with weights that stay small: seconds to load it, seconds of a step, and peak memory.

Random weights in the published names: float16 (dense), fp8, all of it Q8_0, and Q8_0 in the linear layers alone, which
is what diffusers' GGUF loader reads. Each way is a process of its own, with the file in the page cache; only what comes
after the imports is counted, steps in processor time. All compute in float32. ``--side`` is the picture's, 256 px where
nothing is said. At most two rounds are measured, which take some four minutes.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measure import Options, Row, compared
from benchmarks.peers.convert import write_configs
from tests.checkpoints import write_random
from tests.weight_formats import write_published_gguf

ALLOWED = 1.15
"""Of the file's bytes, what loading and drawing may take besides what a dense model's step takes beside its weights."""
MEASURE = """
import json, sys, time
path, side, threads, configs = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
import torch
torch.set_num_threads(threads)
{imports}
def peak():
    lines = open("/proc/self/status").read().splitlines()  # getrusage tells the parent's, where that was larger
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024
torch.manual_seed(0)
latents, context = torch.randn(1, 4, side // 8, side // 8), torch.randn(1, 77, 768)
before, started = peak(), time.perf_counter()
{load}
seconds, loaded = time.perf_counter() - started, peak()
steps = []
with torch.inference_mode():
    for _ in range(3):
        began = time.process_time()
        {step}
        steps.append(time.process_time() - began)
weights = sum(weight.nbytes for weight in unet.parameters())
print(json.dumps([seconds, min(steps[1:]), loaded - before, peak() - before, weights]))
"""
OURS = {
    "imports": (
        "from functools import partial\nfrom pathlib import Path\n"
        "from webui.engine.cpu.install import install\nfrom webui.engine.families import family_of\n"
        "from webui.engine.weights import Files, WeightLoader, build_empty\n"
        "from webui.library.checkpoint import read_checkpoint"
    ),
    "load": (
        "found = read_checkpoint(Path(path)); files = Files([Path(path)]); prefix = found.prefix_of('backbone')\n"
        "part = next(part for part in family_of(found.family).parts if part.role == 'backbone')\n"
        "unet = build_empty(partial(part.make, part.config(found, files.shapes, prefix)))\n"
        "keys = lambda name: part.keys(name, unet, found.names, prefix)\n"
        "for _ in WeightLoader(unet, files, keys, keeps_small=True).read(torch.float32, torch.device('cpu')): pass\n"
        "install(unet, low_memory=True)"
    ),
    "step": "unet(latents, torch.tensor(500.0), unet.prepare(context), None)",
}
DIFFUSERS = {
    "imports": "from diffusers import GGUFQuantizationConfig, UNet2DConditionModel\nimport gguf",
    "load": (
        "unet = UNet2DConditionModel.from_single_file(path, config=configs + '/unet', torch_dtype=torch.float32,"
        " quantization_config=GGUFQuantizationConfig(compute_dtype=torch.float32), local_files_only=True)"
    ),
    "step": "unet(latents, torch.tensor(500.0), context)",
}


def run(options: Options) -> list[Row]:
    """All ways take turns; the first load of each fills the page cache."""
    with tempfile.TemporaryDirectory() as folder:
        ways = _write(Path(folder))
        write_configs(Path(folder, "configs"))
        samples: dict[str, list[list[float]]] = {name: [] for name in ways}
        for k in range(min(options.rounds, 2) + 1):
            for name, (path, way) in ways.items():
                found = _measure(way, path, folder, options)
                if k:
                    samples[name].append(found)
        sizes = {name: path.stat().st_size for name, (path, _) in ways.items()}
    rows = []
    for place, what in ((0, "load"), (1, "step")):
        first = Row(f"{what}, float16 file, dense", "s", [one[place] for one in samples["dense"]])
        rows.append(first)
        for name in list(ways)[1:]:
            rows.append(compared(f"{what}, {name}", "s", [one[place] for one in samples[name]], first))
    step_bytes = median(drawn - weights for *_, drawn, weights in samples["dense"])
    for name in ("fp8", "Q8_0"):
        for place, what, besides in ((2, "loading", 0.0), (3, "drawing", max(0.0, step_bytes))):
            shares = [max(one[place] - besides, one[2]) / sizes[name] for one in samples[name]]
            holds = median(shares) <= ALLOWED
            rows.append(Row(f"peak memory of {what}, {name}", "of the file", shares, holds=holds))
    return rows


def _write(folder: Path) -> dict[str, tuple[Path, dict[str, str]]]:
    """The files, and who reads which, by the rows' names."""
    write_random(folder / "dense.safetensors", "sd15", parts=("unet",))
    write_random(folder / "fp8.safetensors", "sd15", dtype="F8_E4M3", parts=("unet",))
    write_published_gguf(folder / "whole.gguf", "sd15")
    write_published_gguf(folder / "linear.gguf", "sd15", convolutions=False)
    return {
        "dense": (folder / "dense.safetensors", OURS),
        "fp8": (folder / "fp8.safetensors", OURS),
        "Q8_0": (folder / "whole.gguf", OURS),
        "Q8_0 in linear layers": (folder / "linear.gguf", OURS),
        "Q8_0 in linear layers, diffusers": (folder / "linear.gguf", DIFFUSERS),
    }


def _measure(way: dict[str, str], path: Path, folder: str, options: Options) -> Any:
    side = options.side or 256
    code = MEASURE.format(**way)
    command = [sys.executable, "-c", code, str(path), str(side), str(options.threads), f"{folder}/configs"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
