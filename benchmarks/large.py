"""Peak private memory of drawing with SDXL and Anima of full size, their largest matrices in fp8, on a processor.

Random weights in the published names, one step with guidance, at 1024 px or ``--side``; the text encoders and the rest
are in 16 bits. A process of its own each, which computes in the format that it chooses here. The files take 9 GB of the
disk, and a step without bfloat16 some minutes.
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.measure import Options, Row
from benchmarks.memory import private_peak
from tests import anima_models
from tests.checkpoints import write_random

SIDE_PX = 1024
ALLOWED_GB = {"SDXL": 6.0, "Anima": 5.0}
DRAW = """
import sys
from pathlib import Path
import torch
from webui.core.events import Image
from webui.core.request import Request
from webui.core.settings import Settings
from webui.darkroom import Darkroom
folder, side, threads, steps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
torch.set_num_threads(threads)
darkroom = Darkroom(Settings(device="cpu", data_dir=Path(folder)))
(model,) = (name for name in darkroom.library.snapshot().models if name != "demo")
asked = Request(prompt="a red apple", model=model, width=side, height=side, steps=steps, seed=1)
assert any(isinstance(event, Image) for event in darkroom.generate(asked))
"""


def _write_sdxl(data: Path) -> None:
    folder = data / "models/checkpoints"
    folder.mkdir(parents=True)
    write_random(folder / "sdxl.safetensors", "sdxl", dtype="F8_E4M3")


def _write_anima(data: Path) -> None:
    anima_models.write_all(data / "models", sparse=False, small=("diffusion_models",))


WRITERS: Mapping[str, Callable[[Path], None]] = {"SDXL": _write_sdxl, "Anima": _write_anima}


def run(options: Options) -> list[Row]:
    """One after the other."""
    side, rows = options.side or SIDE_PX, list[Row]()
    for name, write in WRITERS.items():
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder))
            command = [sys.executable, "-c", DRAW, folder, str(side), str(options.threads), str(options.steps or 1)]
            with private_peak() as found:
                subprocess.run(command, check=True)
        peak = max(found, default=0) / 1e9
        holds = peak <= ALLOWED_GB[name] if peak else None
        rows.append(
            Row(f"{name}, {side} px", "GB", [peak] if peak else [], note=f"at most {ALLOWED_GB[name]:g}", holds=holds)
        )
    return rows
