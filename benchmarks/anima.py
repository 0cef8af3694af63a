"""An Anima of some 120 million numbers (random weights, float32): loading, a step, previews and LoRA switches.

Loading and a step are beside diffusers' own networks, which map their files: each page of the weights is read before
the clock stops. Seconds are the processor's, the ways alternate, and the first round is not counted.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLQwenImage
from safetensors.torch import save_file

from benchmarks import families, family_models
from benchmarks.measure import Options, Row, compared
from tests.anima_models import CONDITIONER, ENCODER, TRANSFORMER, VAE, save_folder
from webui.core.files import LoraFile
from webui.core.settings import Settings
from webui.core.stages import LoraUse
from webui.engine.families import anima
from webui.engine.preview import BUDGET, to_jpeg
from webui.engine.text import qwen
from webui.library.library import find_models

SWITCH_MS = 5.0
WIDE = TRANSFORMER | {"num_attention_heads": 8, "attention_head_dim": 128, "num_layers": 6, "mlp_ratio": 4.0}


def run(options: Options) -> list[Row]:
    """One thread's work, however many there are."""
    torch.manual_seed(0)
    parts: dict[str, Any] = {
        "transformer": anima.TRANSFORMER.make(WIDE),
        "text_conditioner": anima.TEXT_CONDITIONER.make(CONDITIONER),
        "text_encoder": qwen.make(ENCODER),
        "vae": AutoencoderKLQwenImage(**VAE),
    }
    subject = replace(family_models.anima(), make=lambda: parts)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        data = Path(folder)
        path = save_folder(data / "models/Stable-diffusion/anima", parts)
        megabytes = sum(file.stat().st_size for file in path.rglob("*.safetensors")) / 1e6
        file = find_models(Settings(data_dir=data))["anima"]
        theirs = families.Theirs(subject, file, {name: type(part) for name, part in parts.items()})
        ours = families.Ours(file, data)
        side = families.SIDE_PX // 8
        latents, moment, told = torch.randn(1, 16, side, side), torch.tensor(500.0), subject.told()
        loads = families._alternate([theirs.load, ours.load], options.rounds)
        steps = [way.prepare(told) for way in (theirs, ours)]
        taken = families._alternate([partial(step, latents, moment) for step in steps], options.rounds)
        rows = []
        for what, samples in ((f"load {megabytes:,.0f} MB", loads), ("a step", taken)):
            other = Row(f"{what}, diffusers", "ms", samples[0])
            rows += [other, compared(what, "ms", samples[1], other)]
        model = ours.model
        assert model
        shown = _times(lambda: to_jpeg(latents, model.preview_map), options.rounds)
        share = [shown_ms / step_ms for shown_ms, step_ms in zip(shown, taken[1], strict=True)]
        rows.append(Row("a preview in each step", "of a step", share, holds=max(share) <= BUDGET))
        switches = _switches(ours, _write_loras(data, parts["transformer"]), options.rounds)
        rows.append(
            Row("a cached switch of LoRAs", "ms", switches, holds=sorted(switches)[len(switches) // 2] < SWITCH_MS)
        )
        return rows


def _write_loras(data: Path, transformer: Any) -> list[LoraUse]:
    """Two of rank 4, on each linear layer of the blocks."""
    uses = []
    for name in ("one", "two"):
        state = {}
        for path, layer in transformer.named_modules():
            if isinstance(layer, torch.nn.Linear) and "blocks" in path:
                state[f"transformer.{path}.lora_A.weight"] = torch.randn(4, layer.in_features) * 0.01
                state[f"transformer.{path}.lora_B.weight"] = torch.randn(layer.out_features, 4) * 0.01
        save_file(state, data / f"{name}.safetensors")
        uses.append(LoraUse(LoraFile(name, data / f"{name}.safetensors")))
    return uses


def _switches(ours: families.Ours, uses: list[LoraUse], rounds: int) -> list[float]:
    loras = ours._manager._residence.loras
    assert loras
    for use in uses:
        loras.switch([use])
    samples = []
    for k in range(2 * rounds):
        started = time.process_time()
        done, _ = loras.switch([uses[k % 2]])
        samples.append((time.process_time() - started) * 1000)
        assert done.how == "cached"
    loras.switch([])
    return samples


def _times(work: Callable[[], object], rounds: int) -> list[float]:
    samples: list[float] = []
    for _ in range(rounds + 1):
        started = time.process_time()
        work()
        samples.append((time.process_time() - started) * 1000)
    return samples[1:]
