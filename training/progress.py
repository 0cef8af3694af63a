"""Clock, status line and checkpoints of a stage, so that it can be stopped, shortened and resumed."""

import os
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch


class Budget:
    """How far a stage has come: the larger of its share of steps and its share of minutes.

    Minutes are processor time per thread, across interruptions: a process that was stopped, or that had to wait
    for others, has not spent them, and a stage can be resumed with a shorter or longer budget. On CUDA they are minutes
    of the clock.
    """

    def __init__(self, steps: int, minutes: float, spent: float = 0.0, device: torch.device | None = None):
        self.steps, self.seconds, self.spent = steps, minutes * 60, spent
        self.on_clock = device is not None and device.type == "cuda"
        self.clock = time.monotonic if self.on_clock else time.process_time
        self.last = self.clock()

    def progress(self, step: int) -> float:
        """From 0 at the start to 1 at the end."""
        now = self.clock()
        self.spent += (now - self.last) / (1 if self.on_clock else torch.get_num_threads())
        self.last = now
        return min(max(step / self.steps, self.spent / self.seconds), 1.0)


def workers() -> int:
    """How many processes may prepare batches beside the training: none where there are few processors."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return count - 2 if count > 3 else 0


def save_checkpoint(file: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint so that an interruption leaves the previous one whole."""
    temporary = file.with_suffix(".tmp")
    torch.save(content, temporary)
    os.replace(temporary, file)


def load_checkpoint(file: Path) -> dict[str, Any] | None:
    """The checkpoint's content, or None where there is none yet."""
    return torch.load(file, map_location="cpu", weights_only=True) if file.exists() else None


def report(work: Path, text: str) -> None:
    """Print one line and keep it as the current state in `work/STATUS.txt`."""
    line = f"{time.strftime('%H:%M:%S')} {text}"
    print(line, flush=True)
    (work / "STATUS.txt").write_text(line + "\n", encoding="utf-8")


class Threads:
    """Chooses one thread or all of them, by which trains faster just now.

    Where another program holds a core, the thread that shares it keeps all the others waiting, and one thread
    alone can be faster. After every `interval` steps the other choice is tried for `trial` steps.
    """

    def __init__(self, interval: int = 30, trial: int = 3):
        self.most = torch.get_num_threads()
        self.interval, self.trial = interval, trial
        self.count = interval - 2 * trial  # the first trial comes early
        self.seconds: dict[int, list[float]] = {}
        self.now = self.most
        self.started = time.monotonic()

    def step(self) -> None:
        """To be called after each training step."""
        now = time.monotonic()
        self.seconds.setdefault(self.now, []).append(now - self.started)
        self.started = now
        if self.most == 1:
            return
        self.count += 1
        if self.count == self.interval:
            self.use(1 if self.now == self.most else self.most)
        elif self.count == self.interval + self.trial:
            means = {threads: median(values[-self.trial :]) for threads, values in self.seconds.items()}
            self.use(min(means, key=means.__getitem__))
            self.seconds.clear()
            self.count = 0

    def use(self, threads: int) -> None:
        """Switch the number of threads."""
        if threads != self.now:
            torch.set_num_threads(threads)
            self.now = threads
