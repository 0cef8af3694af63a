"""Where one step's time goes, by kind of operation, in our UNet and in diffusers'; beside it the machine's floor.

Both have the same weights, number format, latents and prompts, and take turns. The parts are torch's profiler's: the
time each operation takes itself. The whole step is timed without the profiler.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping

import torch
from diffusers.models import UNet2DConditionModel
from torch.profiler import ProfilerActivity, profile

from benchmarks.floor import PROMPT_LENGTH, Floor, step_flops
from benchmarks.measure import Options, Row, compared
from benchmarks.peers.convert import of_size
from webui.engine.cpu.install import install
from webui.engine.devices import choose_dtype
from webui.engine.nets.unet import UNet

KINDS = {
    "convolutions": ("conv",),
    "attention": ("attention", "softmax"),
    "matrix products": ("mm", "linear"),
    "normalisation": ("norm", "moments"),
    "copies": ("copy", "cat", "clone", "upsample", "repeat"),
}
"""Parts of the operations' names, in the order in which they are looked for."""
REST = "element by element and dispatch"


def run(options: Options) -> list[Row]:
    """Milliseconds a step with two prompts, whole and by kind."""
    models = of_size(options.size)
    dtype = choose_dtype("auto", torch.device("cpu"))
    theirs = UNet2DConditionModel.from_pretrained(models.folder / "unet", torch_dtype=dtype, local_files_only=True)
    ours = UNet(theirs.config).to(dtype)
    ours.load_state_dict(theirs.state_dict())
    for unet in (theirs, ours):
        unet.eval()
    install(ours)
    context = torch.randn(2, PROMPT_LENGTH, theirs.config["cross_attention_dim"], dtype=dtype)
    rows: list[Row] = []
    with torch.inference_mode():
        prepared, moment = ours.prepare(context), torch.tensor(500)
        floor = Floor.measured(str(dtype).removeprefix("torch."))
        for side in (128,) if options.size == "demo" else (256, 512):
            latents = torch.randn(1, 4, side // 8, side // 8, dtype=dtype)
            steps = {
                "diffusers": lambda latents=latents: theirs(latents.repeat(2, 1, 1, 1), moment, context),
                "darkroom": lambda latents=latents: ours(latents, moment, prepared),
            }
            label = f"{side} px, {str(dtype).removeprefix('torch.')}"
            convolutions, products = step_flops(models.folder, side)
            least = {
                "convolutions": 1e3 * convolutions / floor.convolution,
                "matrix products": 1e3 * products / floor.product,
            }
            rows += _compare(label, steps, least, options.rounds)
    return rows


def _compare(
    label: str, steps: Mapping[str, Callable[[], object]], least_ms: Mapping[str, float], rounds: int
) -> list[Row]:
    """Rows for each kind of operation, the second program's compared with the first's."""
    samples: dict[tuple[str, str], list[float]] = {}
    for k in range(rounds + 1):
        for name, step in steps.items():
            parts = {"step": _wall_ms(step)} | _profile(step)
            if k:
                for part, spent_ms in parts.items():
                    samples.setdefault((name, part), []).append(spent_ms)
    rows: list[Row] = []
    for part in ("step", *KINDS, REST):
        note = f"the floor is {least_ms[part]:.3g} ms" if part in least_ms else ""
        table = [Row(f"{label}: {name}, {part}", "ms", samples[name, part], note=note) for name in steps]
        rows += table[:1] + [compared(row.name, row.unit, row.samples, table[0], note) for row in table[1:]]
    return rows


def _wall_ms(step: Callable[[], object]) -> float:
    started = time.perf_counter()
    step()
    return 1e3 * (time.perf_counter() - started)


def _profile(step: Callable[[], object]) -> dict[str, float]:
    """Milliseconds by kind."""
    spent_ms = Counter({kind: 0.0 for kind in (*KINDS, REST)})
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        step()
    for event in seen.key_averages():
        kind = next((kind for kind, words in KINDS.items() if any(word in event.key for word in words)), REST)
        spent_ms[kind] += event.self_cpu_time_total / 1e3
    return dict(spent_ms)
