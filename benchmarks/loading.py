"""Loading an SD 1.5 file of full size (random float16 weights) for the CPU in bfloat16: seconds, and peak memory.

Beside diffusers' ``from_single_file`` with the same configurations on disk. Each load is a process of its own and only
what comes after the imports is counted. The file is in the page cache; memory is the growth of the process's peak
resident set, beside the bytes of the loaded weights.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import Options, Row, compared
from benchmarks.peers.convert import write_configs
from tests.checkpoints import write_random
from webui.core.settings import Settings
from webui.engine.families.loading import ModelLoader
from webui.library.library import find_models

MIB = 2**20

MEASURE = """
import json, resource, sys, time
{imports}
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before, started = peak(), time.perf_counter()
{load}
print(json.dumps([time.perf_counter() - started, peak() - before]))
"""
OURS = {
    "imports": (
        "from webui import Darkroom, Settings\n"
        "darkroom = Darkroom(Settings(device='cpu', dtype='bfloat16', data_dir=sys.argv[1]))\n"
        "darkroom.manager"
    ),
    "load": "for _ in darkroom.load('sd15'): pass",
}
DIFFUSERS = {
    "imports": (
        "import torch\nfrom diffusers import StableDiffusionPipeline\n"
        "import transformers, diffusers.loaders.single_file_utils"
    ),
    "load": (
        "pipe = StableDiffusionPipeline.from_single_file(sys.argv[1] + '/models/checkpoints/sd15.safetensors',"
        " config=sys.argv[1] + '/configs', torch_dtype=torch.bfloat16, local_files_only=True, safety_checker=None)"
    ),
}


def run(options: Options) -> list[Row]:
    """Both ways alternate; the first load of each fills the page cache."""
    samples: dict[str, list[list[float]]] = {"ours": [], "diffusers": []}
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Path(folder, "models/checkpoints")
        checkpoints.mkdir(parents=True)
        write_random(checkpoints / "sd15.safetensors", "sd15")
        loader = ModelLoader(find_models(Settings(data_dir=Path(folder)))["sd15"], [], torch.bfloat16)
        write_configs(Path(folder, "configs"))
        for k in range(min(options.rounds, 5) + 1):
            for name, way in (("diffusers", DIFFUSERS), ("ours", OURS)):
                found = _measure(way, folder)
                if k:
                    samples[name].append(found)
    weights = Row("weights in bfloat16", "MiB", [loader.memory_bytes / MIB] * len(samples["ours"]))
    seconds = {name: [one for one, _ in found] for name, found in samples.items()}
    memory = {name: [nbytes / MIB for _, nbytes in found] for name, found in samples.items()}
    other = Row("load, diffusers from_single_file", "s", seconds["diffusers"])
    return [
        other,
        compared("load", "s", seconds["ours"], other),
        weights,
        compared("peak memory, diffusers from_single_file", "MiB", memory["diffusers"], weights),
        compared("peak memory", "MiB", memory["ours"], weights),
    ]


def _measure(way: dict[str, str], folder: str) -> Any:
    command = [sys.executable, "-c", MEASURE.format(**way), folder]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
