"""Three LoRAs at once, ours beside diffusers unfused (PEFT layers) and fused; on the demo model whole pictures too.

The SD 1.5 UNet has its real shapes and random weights, which changes no time; both models run in float32, on a GPU in
float16, and there whole pictures are drawn at that size too. The LoRAs are random too: kohya files of rank 16 over
attention, feed-forward, projections and some 3 x 3 convolutions. Files are in the page cache, and before each timed
merge the machine's memory is written to once: a virtual machine may take seconds a GiB to get it.
"""

import hashlib
import mmap
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import torch
from diffusers.models import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from torch import nn

from benchmarks import lora_steps
from benchmarks.lora_files import lora_targets, write_lora
from benchmarks.measure import Options, Row, compared
from benchmarks.peers.convert import of_size
from benchmarks.pictures import compare
from benchmarks.tasks import BASELINE, FUSED, HALF, HALF_FUSED, Task
from webui.core.files import LoraFile
from webui.core.stages import LoraUse
from webui.engine.cpu.install import install
from webui.engine.families.sd import STABLE_DIFFUSION
from webui.engine.lora.names import ModuleIndex
from webui.engine.lora.reading import read_lora
from webui.engine.lora.switcher import LoraSwitcher
from webui.engine.nets.unet import UNet
from webui.engine.weights import build_empty
from webui.library.library import DEMO_MODEL

CACHE_BYTES = 4 * 2**30  # of merged weights, as with --lora-cache; two sets at SD 1.5's size take 2.6 GB
SD15 = {"cross_attention_dim": 768, "attention_head_dim": 8, "sample_size": 64}
SD15_ROUNDS = 3
PROGRAMS = (
    *("darkroom fp32", "darkroom as it starts", "darkroom --compile", "darkroom --cuda-graphs"),
    *(BASELINE, FUSED, HALF, HALF_FUSED),
)

LoraSet = Sequence[tuple[LoraFile, float]]
Tensors = Mapping[str, torch.Tensor]
Place = tuple[torch.device, torch.dtype]


def run(options: Options) -> list[Row]:
    """What a LoRA set costs: until it is ready, to switch, in each step, in memory, and in whole pictures."""
    if options.against:
        return _pictures(options, "lora", 2) + _pictures(options, "new LoRAs", options.rounds + 1)
    on_cuda = options.device == "cuda"
    place = torch.device(options.device), torch.float16 if on_cuda else torch.float32
    if options.size == "sd15":
        comparison = _Comparison("SD1.5", *_sd15(), place, side=64 if on_cuda else 32, forwards=8 if on_cuda else 1)
        rows = comparison.rows(min(options.rounds, SD15_ROUNDS))
        del comparison  # its memory, before others take theirs
        return rows + (_pictures(options, "lora", 2) if on_cuda else []) + lora_steps.run(options)
    demo = UNet2DConditionModel.from_pretrained(DEMO_MODEL / "unet", local_files_only=True)
    comparison = _Comparison("demo", demo.config, demo.state_dict(), place, side=16, forwards=8)
    return comparison.rows(options.rounds) + _pictures(options, "lora", 2) + lora_steps.run(options)


class _Way(Protocol):
    """A way to have LoRAs in a UNet."""

    @property
    def unet(self) -> nn.Module:
        """Which has them."""

    def load(self, files: Sequence[LoraFile]) -> None:
        """What the way wants done once for each file."""

    def use(self, loras: LoraSet) -> None:
        """Makes the UNet what these LoRAs make of it."""

    def clear(self) -> None:
        """Back to the UNet without LoRAs."""

    def predict(self, latents: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
        """One forward of a picture with guidance: latents (1, 4, h, w), two prompts."""


class _Darkroom:
    """As ``PipelineManager`` does it."""

    def __init__(self, unet: UNet) -> None:
        self.unet = unet
        self.how = ""
        self.forget()

    def forget(self) -> None:
        """Drops what is kept of earlier sets."""
        model: Any = SimpleNamespace(components={"backbone": self.unet}, family=STABLE_DIFFUSION, kind="SD 1.x")
        self.switcher = LoraSwitcher(model, self.unet.device, CACHE_BYTES)

    def load(self, files: Sequence[LoraFile]) -> None:
        """Nothing: files are read when they are first used."""

    def use(self, loras: LoraSet) -> None:
        uses = [LoraUse(file, weight, weight) for file, weight in loras]
        self.switcher.must_merge(uses)
        self.how = self.switcher.switch(uses)[0].how

    def clear(self) -> None:
        self.use([])

    def predict(self, latents: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
        predicted: torch.Tensor = self.unet(latents, torch.tensor(500, device=latents.device), self.unet.prepare(texts))
        return predicted


class _Diffusers:
    """As its documentation has it: adapters are loaded once, and fused again for each set where ``fuse`` is wanted."""

    def __init__(self, pipe: StableDiffusionPipeline, fuse: bool) -> None:
        self.pipe, self.unet, self._fuse, self._fused = pipe, pipe.unet, fuse, False

    def load(self, files: Sequence[LoraFile]) -> None:
        for file in files:
            self.pipe.load_lora_weights(file.path.parent, weight_name=file.path.name, adapter_name=file.name)

    def use(self, loras: LoraSet) -> None:
        names = [file.name for file, _ in loras]
        self._unfuse()
        self.pipe.set_adapters(names, adapter_weights=[weight for _, weight in loras])
        if self._fuse:
            self.pipe.fuse_lora(adapter_names=names)
            self._fused = True

    def clear(self) -> None:
        self._unfuse()
        self.pipe.unload_lora_weights()

    def predict(self, latents: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
        both = torch.cat([latents, latents])
        predicted: torch.Tensor = self.unet(both, torch.tensor(500, device=latents.device), texts, return_dict=False)[0]
        return predicted

    def _unfuse(self) -> None:
        if self._fused:
            self.pipe.unfuse_lora()
            self._fused = False


class _Comparison:
    """The three ways on one UNet. Ours and the unfused one share its weights, since they only read them.

    ``side`` is that of the latents, ``forwards`` how many are timed together.
    """

    def __init__(self, label: str, config: Any, weights: Tensors, place: Place, side: int, forwards: int) -> None:
        self._label, self._side, self._forwards = label, side, forwards
        self._place, self._device = place, place[0]
        weights = {name: tensor.to(*place) for name, tensor in weights.items()}
        self._plain = _Darkroom(_our_unet(config, weights))
        self._set_bytes = sum(module.weight.nbytes for _, module in lora_targets(self._plain.unet))
        self._ours = _Darkroom(_our_unet(config, weights))
        self._unfused = _Diffusers(_make_pipe(_make_unet(config, weights)), fuse=False)
        own = {name: tensor.clone() for name, tensor in weights.items()}
        self._fused = _Diffusers(_make_pipe(_make_unet(config, own)), fuse=True)
        self._ways: dict[str, _Way] = {
            "diffusers fused": self._fused,
            "diffusers unfused": self._unfused,
            "darkroom": self._ours,
        }

    def rows(self, rounds: int) -> list[Row]:
        """All figures; the base is compared last, when every way has been through all switches."""
        before = _hashes(self._plain.unet)
        with tempfile.TemporaryDirectory() as folder:
            first = self._first_use(Path(folder), rounds)
            files = [write_lora(Path(folder) / f"known{k}.safetensors", self._plain.unet, seed=k) for k in range(6)]
            one, other = [(file, 0.8) for file in files[:3]], [(file, 0.8) for file in files[3:]]
            for way in self._ways.values():
                way.clear()
                way.load(files)
            self._ours.forget()
            rows = [*first, *self._switches(one, other, rounds), *self._memory(files)]
            rows += [*self._strength(one, rounds), *self._steps(one, rounds)]
        for name, way in self._ways.items():
            way.clear()
            note = f"(of {len(before)}, by SHA-256)"
            rows.append(self._row("base changed", name, "tensors", [_changed(before, way.unet)], note))
        return rows

    def _first_use(self, folder: Path, rounds: int) -> list[Row]:
        """From the UNet without LoRAs and files that were never seen to a UNet that is ready."""
        samples: dict[str, list[float]] = {name: [] for name in self._ways}
        for k in range(rounds + 1):
            files = [
                write_lora(folder / f"new{k}{n}.safetensors", self._plain.unet, 100 * k + n) for n in range(10, 13)
            ]
            for name in _order(self._ways, k):
                way = self._ways[name]
                way.clear()
                self._touch()
                with self._timed(samples[name], k > 0):
                    way.load(files)
                    way.use([(file, 0.8) for file in files])
            for file in files:
                file.path.unlink()
        return self._three("first use", samples)

    def _switches(self, one: LoraSet, other: LoraSet, rounds: int) -> list[Row]:
        """From one set to another, both in use before, and the step after it; and the set that is in use already."""
        samples: dict[str, list[float]] = {name: [] for name in self._ways}
        steps: dict[str, list[float]] = {name: [] for name in self._ways}
        repeats: list[float] = []
        latents, texts = self._inputs()
        self._ours.use(other)
        self._ours.use(one)
        for k in range(rounds + 1):
            loras = one if k % 2 else other
            for name in _order(self._ways, k):
                with self._timed(samples[name], k > 0):
                    self._ways[name].use(loras)
                self._expect(name, "cached")
                with torch.inference_mode(), self._timed(steps[name], k > 0):
                    self._ways[name].predict(latents, texts)
            with self._timed(repeats, k > 0):
                self._ours.use(loras)
            self._expect("darkroom", "unchanged")
        rows = [*self._three("switch", samples), *self._three("first step after a switch", steps)]
        return [*rows, self._row("same set again", "darkroom", "ms", repeats)]

    def _strength(self, loras: LoraSet, rounds: int) -> list[Row]:
        """One of the three at a strength that it never had before: 0.7 and, so that it is new, a little less."""
        samples: dict[str, list[float]] = {name: [] for name in self._ways}
        for way in self._ways.values():
            way.use(loras)
        for k in range(rounds + 1):
            changed = [(loras[0][0], 0.7 - k / 1000), *loras[1:]]
            for name in _order(self._ways, k):
                self._touch()
                with self._timed(samples[name], k > 0):
                    self._ways[name].use(changed)
                self._expect(name, "merged")
                self._ways[name].use(loras)
        return self._three("one strength changed", samples)

    def _steps(self, loras: LoraSet, rounds: int) -> list[Row]:
        """One forward of a picture with guidance, a batch of two, with ``loras`` in use from before."""
        ways: dict[str, _Way] = {"no LoRA": self._plain, **self._ways}
        latents, texts = self._inputs()
        samples: dict[str, list[float]] = {name: [] for name in ways}
        made: dict[str, torch.Tensor] = {}
        with torch.inference_mode():
            for k in range(rounds + 1):
                for name in _order(ways, k):
                    taken: list[float] = []
                    with self._timed(taken, True):
                        for _ in range(self._forwards):
                            made[name] = ways[name].predict(latents, texts)
                    samples[name] += [taken[0] / self._forwards] if k else []
        plain = self._row("step", "no LoRA", "ms", samples.pop("no LoRA"))
        rows = [plain]
        for name, own in samples.items():
            far = _distance(made[name], made["diffusers unfused"]) / _distance(made[name], made["no LoRA"])
            note = f"(off unfused by {far:.0e} of what the LoRAs do)" if far else ""
            rows.append(compared(f"{self._label}: step, {name}", "ms", own, plain, note))
        return rows

    def _inputs(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents, and the texts of two prompts."""
        generator = torch.Generator().manual_seed(0)
        width = self._fused.unet.config.cross_attention_dim
        latents = torch.randn(1, 4, self._side, self._side, generator=generator)
        texts = torch.randn(2, 77, width, generator=generator)
        return latents.to(*self._place), texts.to(*self._place)

    def _memory(self, files: Sequence[LoraFile]) -> list[Row]:
        """What is kept for two sets, six files."""
        index = ModuleIndex({"backbone": self._ours.unet}, STABLE_DIFFUSION.parts)
        parsed = sum(read_lora(file, index, self._device).nbytes for file in files)
        merged = self._ours.switcher.cache.nbytes
        note = f"({merged / sum(p.nbytes for p in self._plain.unet.parameters()):.2f} of the UNet)"
        rows = [
            self._row("merged weights kept", "darkroom", "MiB", [merged / 2**20], note),
            self._row("files kept", "darkroom", "MiB", [parsed / 2**20]),
        ]
        for name in ("diffusers fused", "diffusers unfused"):
            adapters = sum(p.nbytes for key, p in self._ways[name].unet.named_parameters() if ".lora_" in key)
            rows.append(self._row("adapters kept", name, "MiB", [adapters / 2**20]))
        return rows

    def _three(self, what: str, samples: Mapping[str, Sequence[float]]) -> list[Row]:
        fused = self._row(what, "diffusers fused", "ms", samples["diffusers fused"])
        others = ("diffusers unfused", "darkroom")
        return [fused, *(compared(f"{self._label}: {what}, {name}", "ms", samples[name], fused) for name in others)]

    def _row(self, what: str, name: str, unit: str, samples: Sequence[float], note: str = "") -> Row:
        return Row(f"{self._label}: {what}, {name}", unit, samples, note=note)

    def _touch(self) -> None:
        """Writes to as much memory as a set takes and gives it back to the system, so that a virtual machine has got it
        from its host."""
        if self._device.type == "cpu":
            with mmap.mmap(-1, self._set_bytes) as block:
                block[:: mmap.PAGESIZE] = bytes(-(-self._set_bytes // mmap.PAGESIZE))

    @contextmanager
    def _timed(self, samples: list[float], keep: bool) -> Iterator[None]:
        """Adds the milliseconds until all that was asked for within is done."""
        self._wait()
        started = time.perf_counter()
        yield
        self._wait()
        if keep:
            samples.append((time.perf_counter() - started) * 1e3)

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize()

    def _expect(self, name: str, how: str) -> None:
        if name == "darkroom" and self._ours.how != how:
            raise RuntimeError(f"the set was {self._ours.how}, not {how}")


def _pictures(options: Options, name: str, count: int) -> list[Row]:
    """Whole pictures with so many sets of three LoRAs in turn; more than the rounds are new ones."""
    config = UNet2DConditionModel.load_config(of_size(options.size).folder / "unet")
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(config)
    with tempfile.TemporaryDirectory() as folder:
        word = name.split()[0]
        files = [str(write_lora(Path(folder) / f"{word}{k}.safetensors", unet, k).path) for k in range(3 * count)]
        sets = [[(file, 0.8) for file in files[k : k + 3]] for k in range(0, len(files), 3)]
        return compare(Task(name, programs=PROGRAMS, baseline=FUSED, lora_sets=sets), options)


def _make_pipe(unet: UNet2DConditionModel) -> StableDiffusionPipeline:
    """The demo model's pipeline with another UNet."""
    kept = {"torch_dtype": torch.float32, "local_files_only": True}
    return StableDiffusionPipeline.from_pretrained(DEMO_MODEL, unet=unet, **kept)


def _sd15() -> tuple[Any, Tensors]:
    """The configuration of SD 1.5's UNet, 859.5 million parameters, and random weights at which it stays finite."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(**SD15)
    generator, weights = torch.Generator().manual_seed(0), {}
    for name, parameter in unet.named_parameters():
        fill = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        weights[name] = torch.full(parameter.shape, fill)
        if parameter.dim() > 1:
            weights[name].normal_(0.0, 0.02, generator=generator)
    return unet.config, weights


def _make_unet(config: Any, weights: Tensors) -> UNet2DConditionModel:
    """A UNet on these very tensors."""
    with torch.device("meta"):
        unet: UNet2DConditionModel = UNet2DConditionModel.from_config(config)
    unet.load_state_dict({name: tensor.detach() for name, tensor in weights.items()}, assign=True)
    return unet.eval().requires_grad_(False)


def _our_unet(config: Any, weights: Tensors) -> UNet:
    unet = build_empty(lambda: UNet(config))
    unet.load_state_dict({name: tensor.detach() for name, tensor in weights.items()}, assign=True)
    if unet.device.type == "cpu":
        install(unet)
    else:
        unet.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return unet.requires_grad_(False)


def _hashes(unet: nn.Module) -> dict[str, str]:
    return {
        name: hashlib.sha256(parameter.cpu().contiguous().numpy().data).hexdigest()
        for name, parameter in unet.named_parameters()
    }


def _changed(before: Mapping[str, str], unet: nn.Module) -> int:
    after = _hashes(unet)
    assert after.keys() == before.keys()
    return sum(after[name] != before[name] for name in before)


def _order(names: Mapping[str, Any], k: int) -> Iterator[str]:
    return iter(names) if k % 2 else reversed(list(names))


def _distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max())
