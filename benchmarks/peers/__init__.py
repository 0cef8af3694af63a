"""Other programs that draw with the same weights, each a process in its own environment (``--peers``).

``start`` gives a session with a peer; ``draw`` on it draws one picture. Whatever keeps a peer from running is said by
``Unavailable``, in a sentence for the person.
"""

import contextlib
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

HERE = Path(__file__).resolve().parent


class Unavailable(Exception):
    """Why a peer cannot be run here, or not draw this."""


@dataclass(frozen=True)
class Drawing:
    """What to draw. ``latents``: a .npy file of the initial noise, (1, 4, height / 8, width / 8).

    ``changes``: from a step on (0 is the first), all LoRAs have another weight.
    """

    task: str = "txt2img"  # img2img, inpaint
    prompt: str = ""
    negative: str = ""
    steps: int = 20
    guidance: float = 5.0
    seed: int = 0
    width: int = 128
    height: int = 128
    strength: float = 0.6
    image: str | None = None
    mask: str | None = None
    loras: Sequence[tuple[str, float]] = ()
    changes: Sequence[tuple[int, float]] = ()
    latents: str | None = None
    out: str | None = None


@dataclass(frozen=True)
class Answer:
    """Seconds from prompt to pixels, the model loaded already; the most memory so far, where that can be known.

    ``steps_s``: the processor time of each step behind the first, a change that comes before it included.
    """

    seconds: float
    peak_bytes: int | None
    steps_s: Sequence[float] = ()


@dataclass(frozen=True)
class Ready:
    """What answers: the versions of what matters, the main one first; the number format; what else one should know."""

    versions: dict[str, str]
    dtype: str
    note: str = ""


class Session(Protocol):
    """A peer with its model loaded."""

    ready: Ready

    def draw(self, drawing: Drawing) -> Answer:
        """Draws and waits; raises ``Unavailable``."""

    def close(self) -> None:
        """Ends what was started for it."""


@dataclass(frozen=True)
class Models:
    """The same weights as a diffusers folder and as a single file in LDM's names."""

    folder: Path
    file: Path


@dataclass(frozen=True)
class Peer:
    """A peer that runs in an environment of its own: its variants, the tasks that are asked of it, its form of a model.

    ``latents``: whether it takes the initial noise; another gets it from the seed alone.
    """

    variants: Sequence[str]
    tasks: Sequence[str]
    model: str  # a field of Models
    latents: bool


PEERS = {
    "diffusers": Peer(
        ("fp32", "bf16", "fp32-best", "bf16-best", "fp32-fused", "bf16-fused"),
        ("txt2img", "img2img", "inpaint"),
        "folder",
        True,
    ),
    "openvino": Peer(("default", "fp32"), ("txt2img", "img2img", "inpaint"), "folder", True),
    "sdcpp": Peer(("f16", "q8_0", "f32", "f16-flash", "f16-direct"), ("txt2img", "img2img", "inpaint"), "file", False),
}


def start(name: str, variant: str, models: Models, python: Path, log: Path, threads: int = 2) -> "Worker":
    """A session with one of ``PEERS`` through ``python``, the interpreter that ``environments.ensure`` gives."""
    model = getattr(models, PEERS[name].model)
    script = [str(python), str(HERE / f"{name}_worker.py")]
    return Worker([*script, "--model", str(model), "--variant", variant, "--threads", str(threads)], log, threads)


class Worker:
    """A peer's process, which answers a line with a line; ``variables`` are of its environment, ``folder`` its own."""

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        threads: int,
        variables: Mapping[str, str] = MappingProxyType({}),
        folder: Path | None = None,
    ) -> None:
        quiet = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1"}
        self._log = log
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                encoding="utf-8",
                cwd=folder,
                env=os.environ | quiet | {"OMP_NUM_THREADS": str(threads)} | dict(variables),
            )
        assert self._process.stdin is not None and self._process.stdout is not None  # both are pipes
        self._requests, self._answers = self._process.stdin, self._process.stdout
        try:
            self.ready = Ready(**self._read()["ready"])
        except BaseException:
            self.close()
            raise

    def draw(self, drawing: Drawing) -> Answer:
        with contextlib.suppress(BrokenPipeError):  # it has ended, as reading will tell
            print(json.dumps(asdict(drawing)), file=self._requests, flush=True)
        return Answer(**self._read())

    def processor_s(self) -> float:
        """Seconds that its threads have had a processor so far, whatever else the machine does; 0 but on Linux."""
        spent_ns = 0
        for file in Path(f"/proc/{self._process.pid}/task").glob("*/schedstat"):
            with contextlib.suppress(OSError):  # a thread that has just ended
                spent_ns += int(file.read_text("ascii").split()[0])
        return spent_ns / 1e9

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._requests.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._answers.close()

    def _read(self) -> dict[str, Any]:
        line = self._answers.readline()
        if not line:
            said = self._log.read_text("utf-8", "replace").split("\n")
            last = next((line.strip() for line in reversed(said) if line.strip()), "nothing")
            raise Unavailable(f"it ended with code {self._process.wait()}, saying: {last}")
        message: dict[str, Any] = json.loads(line)
        if "error" in message:
            raise Unavailable(message["error"])
        return message
