"""Each family's step, loading and peak memory beside diffusers' own networks: the same random weights in float32.

One thread. Seconds are the processor's; the ways alternate, and the first round is not counted. A step is one
evaluation with a prompt and a negative one. Loading is of a diffusers folder, without imports, until each page of the
weights has been read: diffusers maps files that are in the wanted format. Memory is what a process of its own takes
at its peak while it loads and does a step, weights that are mapped from files included.
"""

import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import Options, Row, compared
from webui.core.files import ModelFile
from webui.core.settings import Settings
from webui.engine.devices import one_thread, trim_heap
from webui.engine.families.base import Conditioning
from webui.engine.families.model import Model
from webui.engine.manager import PipelineManager
from webui.library.library import find_models

SIDE_PX = 256
SAME = 1e-3
"""How far the two outputs may be apart, as a share of their largest number: the same thing is measured then."""
PAGE = 1024
"""Of numbers in float32."""
MAPPED = re.compile(r"\.safetensors$.*?^Rss: +(\d+) kB", re.MULTILINE | re.DOTALL)
Networks = Mapping[str, Any]
"""diffusers' and transformers' networks by the folder that each has in a diffusers model."""
Outputs = Sequence[torch.Tensor]


@dataclass(frozen=True)
class Subject:
    """A family's model with random weights, of some 20 to 60 million numbers: small enough for a step in 0.3 s.

    ``make`` makes its networks, and ``save`` writes them as a diffusers model into the folder that it is given.
    ``told`` is what the backbone is told in a step, as ``Model.condition`` gives it: the negative prompt, the prompt.
    ``ask`` is the same step by diffusers' networks: these, latents (1, channels, h, w), the time 0..1000 (a scalar
    tensor) and what is told; it gives what ``Backbone.predict`` does, an output for each that is told.
    """

    name: str
    make: Callable[[], Networks]
    save: Callable[[Path, Networks], object]
    told: Callable[[], Sequence[Conditioning]]
    ask: Callable[[Networks, torch.Tensor, torch.Tensor, Sequence[Conditioning]], Outputs]


def subjects() -> list[Subject]:
    """All of them; what they are made with is imported where it is needed."""
    return [stable_diffusion("sd1"), stable_diffusion("sdxl"), anima(), krea2(), z_image()]


def stable_diffusion(kind: str) -> Subject:
    """Of the tests' own shape, and two to six times as wide."""
    from tests.checkpoints import small

    xl = kind == "sdxl"
    wide: dict[str, Any] = {"block_out_channels": (128, 384)}
    if xl:
        wide = {"block_out_channels": (128, 320, 384), "attention_head_dim": (2, 5, 6)}

    def make() -> Networks:
        made: Any = small(kind, **wide)
        names = ("unet", "vae", "text_encoder", "text_encoder_2")
        return {name: network for name in names if (network := made.components.get(name))}

    def told() -> list[Conditioning]:
        more = {"summary": torch.randn(1, 128), "ids": torch.tensor([[256.0, 256, 0, 0, 256, 256]])} if xl else {}
        return [{"context": torch.randn(1, 77, 192 if xl else 64), **more} for _ in range(2)]

    def ask(networks: Networks, latents: torch.Tensor, moment: torch.Tensor, told: Sequence[Conditioning]) -> Outputs:
        both = {name: torch.cat([one[name] for one in told]) for name in told[0]}
        added = {"text_embeds": both["summary"], "time_ids": both["ids"]} if xl else None
        twice = latents.repeat(2, 1, 1, 1)
        output = networks["unet"](twice, moment, both["context"], added_cond_kwargs=added, return_dict=False)[0]
        return list(output.chunk(2))

    return Subject("SDXL" if xl else "SD 1.x", make, lambda folder, _: small(kind, directory=folder, **wide), told, ask)


def anima() -> Subject:
    """Six of its 28 layers, 512 wide."""
    from tests.anima_models import TRANSFORMER, make_parts, save_folder

    wide = {"num_attention_heads": 8, "attention_head_dim": 64, "num_layers": 6, "mlp_ratio": 4.0}

    def ask(networks: Networks, latents: torch.Tensor, moment: torch.Tensor, told: Sequence[Conditioning]) -> Outputs:
        padding = torch.zeros(1, 1, *latents.shape[-2:])
        given = {"padding_mask": padding, "return_dict": False}
        transformer, film, now = networks["transformer"], latents[:, :, None], moment.reshape(1) / 1000
        return [transformer(film, now, one["context"], **given)[0][:, :, 0] for one in told]

    return Subject(
        "Anima",
        lambda: make_parts(transformer=TRANSFORMER | wide),
        save_folder,
        lambda: [{"context": torch.randn(1, 512, 32)} for _ in range(2)],
        ask,
    )


def z_image() -> Subject:
    """Six of its 30 layers, 768 wide."""
    from tests.anima_models import save_folder
    from tests.z_image_models import TRANSFORMER, make_parts

    wide = {"dim": 768, "n_layers": 6, "n_heads": 6, "n_kv_heads": 6, "axes_dims": [32, 48, 48]}

    def ask(networks: Networks, latents: torch.Tensor, moment: torch.Tensor, told: Sequence[Conditioning]) -> Outputs:
        seen = [*latents[:, :, None].repeat(len(told), 1, 1, 1, 1)]
        now = ((1000 - moment) / 1000).expand(len(told))
        found = networks["transformer"](seen, now, [one["context"][0] for one in told], return_dict=False)[0]
        return [-flow[None, :, 0] for flow in found]

    return Subject(
        "Z-Image",
        lambda: make_parts(transformer=TRANSFORMER | wide),
        save_folder,
        lambda: [{"context": torch.randn(1, tokens, 32)} for tokens in (60, 20)],
        ask,
    )


def krea2() -> Subject:
    """Six of its 28 layers, 512 wide."""
    from diffusers import Krea2Pipeline

    from tests.krea2_models import TRANSFORMER, make_parts, save_folder

    wide = {"attention_head_dim": 64, "num_attention_heads": 8, "num_layers": 6, "intermediate_size": 1536}
    rope = {"axes_dims_rope": (16, 24, 24)}

    def ask(networks: Networks, latents: torch.Tensor, moment: torch.Tensor, told: Sequence[Conditioning]) -> Outputs:
        pipe: Any = Krea2Pipeline(*[None] * 5)
        count, channels, height, width = latents.shape
        pipe.vae_scale_factor = 8
        packed = pipe._pack_latents(latents, count, channels, height, width)
        outputs = []
        for one in told:
            words = one["context"].shape[1]
            places = pipe.prepare_position_ids(words, height // 2, width // 2, latents.device)
            flow = networks["transformer"](
                hidden_states=packed,
                encoder_hidden_states=one["context"],
                timestep=moment.reshape(1) / 1000,
                position_ids=places,
                encoder_attention_mask=torch.ones(1, words, dtype=torch.bool),
                return_dict=False,
            )[0]
            outputs.append(pipe._unpack_latents(flow, height * 8, width * 8)[:, :, 0])
        return outputs

    return Subject(
        "Krea 2",
        lambda: make_parts(transformer=TRANSFORMER | wide | rope),
        save_folder,
        lambda: [{"context": torch.randn(1, 77, 3, 32)} for _ in range(2)],
        ask,
    )


class Ours:
    """A model as Darkroom loads it and asks it."""

    def __init__(self, file: ModelFile, data: Path) -> None:
        self._file = file
        self._manager = PipelineManager(Settings(data_dir=data, device="cpu", dtype="float32").engine_options)

    def load(self) -> None:
        """From its files, whatever was loaded before."""
        self.drop()
        for _ in self._manager.load(self._file):
            pass
        assert self.model
        touch(self.model.parts.modules.values())

    def drop(self) -> None:
        """Nothing is loaded any more."""
        self._manager._residence.drop()

    @property
    def model(self) -> Model | None:
        """What is loaded."""
        return self._manager._residence.model

    def prepare(self, told: Sequence[Conditioning]) -> Callable[[torch.Tensor, torch.Tensor], Outputs]:
        """What is the same in all steps of a picture; gives what does one."""
        model = self.model
        assert model
        prepared = model.backbone.prepare(told, 1)
        return lambda latents, moment: [
            output for each in prepared for output in model.backbone.predict(latents, moment, each)
        ]


class Theirs:
    """The same with ``from_pretrained``."""

    def __init__(self, subject: Subject, file: ModelFile, kinds: Mapping[str, type[Any]]) -> None:
        self._subject, self._file, self._kinds = subject, file, kinds
        self._networks: Networks = {}

    def load(self) -> None:
        """From its files, whatever was loaded before."""
        self.drop()
        self._networks = {name: kind.from_pretrained(self._file.path / name) for name, kind in self._kinds.items()}
        touch(self._networks.values())

    def drop(self) -> None:
        """Nothing is loaded any more."""
        self._networks = {}

    def prepare(self, told: Sequence[Conditioning]) -> Callable[[torch.Tensor, torch.Tensor], Outputs]:
        """As ours."""
        return lambda latents, moment: self._subject.ask(self._networks, latents, moment, told)


def touch(networks: Iterable[torch.nn.Module]) -> None:
    """Has every page of the weights be in memory."""
    for network in networks:
        for parameter in network.parameters():
            parameter.flatten()[::PAGE].sum()


def run(options: Options) -> list[Row]:
    """Three pairs of rows a family."""
    from diffusers.utils import logging
    from transformers.utils import logging as others

    logging.disable_progress_bar()
    others.disable_progress_bar()
    with one_thread(), torch.inference_mode():
        return [row for subject in subjects() for row in measure(subject, options.rounds)]


def measure(subject: Subject, rounds: int) -> list[Row]:
    """Raises RuntimeError where the two do not come to the same."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        networks = subject.make()
        kinds = {name: type(network) for name, network in networks.items()}
        subject.save(data / "models/Stable-diffusion/subject", networks)
        del networks
        file = find_models(Settings(data_dir=data))["subject"]
        told, moment = subject.told(), torch.tensor(500.0)
        ways = Theirs(subject, file, kinds), Ours(file, data)
        loads = _alternate([way.load for way in ways], rounds)
        model = ways[1].model
        assert model
        side = SIDE_PX // model.latent_scale
        latents = torch.randn(1, model.latent_channels, side, side)
        del model
        peaks = _peaks(ways, told, latents, moment)
        for way in ways:
            way.load()
        steps = [way.prepare(told) for way in ways]
        _compare(subject.name, *(torch.cat(list(step(latents, moment))) for step in steps))
        taken = _alternate([lambda step=step: step(latents, moment) for step in steps], rounds)  # type: ignore[misc]
    rows = []
    for what, unit, samples in (("a step", "ms", taken), ("load", "ms", loads), ("peak memory", "MiB", peaks)):
        other = Row(f"{subject.name}, {what}, diffusers", unit, samples[0])
        rows += [other, compared(f"{subject.name}, {what}", unit, samples[1], other)]
    return rows


def _compare(name: str, theirs: torch.Tensor, ours: torch.Tensor) -> None:
    difference = float((theirs - ours).abs().max() / theirs.abs().max())
    if not difference < SAME:
        raise RuntimeError(f"{name}: a step differs by {difference:.2g} of the largest number")


def _alternate(ways: Sequence[Callable[[], object]], rounds: int) -> list[list[float]]:
    """Milliseconds of the processor, a list for each way."""
    samples: list[list[float]] = [[] for _ in ways]
    for k in range(rounds + 1):
        for way, found in zip(ways, samples, strict=True):
            started = time.process_time()
            way()
            if k:
                found.append((time.process_time() - started) * 1000)
    return samples


def _peaks(
    ways: Sequence[Ours | Theirs], told: Sequence[Conditioning], latents: torch.Tensor, moment: torch.Tensor
) -> list[list[float]]:
    """MiB of each way, in a fork of this process, which has imported all; empty where the system has no such thing."""
    for way in ways:
        way.drop()
    found: list[list[float]] = []
    for way in ways:
        found.append([])
        if not Path("/proc/self/status").exists():
            continue
        context = get_context("fork")
        ours, theirs = context.Pipe(duplex=False)

        def work(way: Ours | Theirs = way, pipe: Any = theirs) -> None:
            with torch.inference_mode(), Peak() as peak:
                way.load()
                way.prepare(told)(latents, moment)
                mapped = mapped_bytes()
            pipe.send((peak.grown_bytes + mapped) / 2**20)

        process = context.Process(target=work)
        process.start()
        theirs.close()
        found[-1].append(ours.recv())  # EOFError where it failed, which has said why
        process.join()
    return found


class Peak:
    """How much more memory of its own a process takes within than before, at its peak: looked at every 2 ms."""

    grown_bytes = 0

    def __enter__(self) -> "Peak":
        trim_heap()
        self._before, self._ended = private_bytes(), threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._look()
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.002):
            self._look()

    def _look(self) -> None:
        self.grown_bytes = max(self.grown_bytes, private_bytes() - self._before)


def private_bytes() -> int:
    """Memory that is no file's, as Linux counts it."""
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))


def mapped_bytes() -> int:
    """Memory that is safetensors files', mapped."""
    return sum(int(kib) * 1024 for kib in MAPPED.findall(Path("/proc/self/smaps").read_text("utf-8")))
