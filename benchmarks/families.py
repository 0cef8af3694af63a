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
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from benchmarks.family_models import Networks, Outputs, Subject, subjects
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
