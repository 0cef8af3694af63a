"""Notices that a device has stopped working: it is silent for far longer than a step takes, or says so itself."""

import threading
import time
from collections.abc import Callable

LEAST_S = 600.0
"""No silence shorter than this counts: a large picture's decoding is one, too."""
FIRST_S = 1800.0
"""Before a job's first step, when nothing says how long one takes."""
STEPS = 20
"""So many times the longest step of the job."""
RECOVERABLE = (
    "out of memory",
    "no kernel image is available",
    "invalid argument",
    "invalid configuration argument",
    "invalid device function",
    "invalid resource handle",
    "operation not supported",
    "ALLOC_FAILED",
    "NOT_INITIALIZED",
    "NOT_SUPPORTED",
    "INVALID_VALUE",
)
"""CUDA errors after which the next call may work (CUDA runtime API, ``cudaError_t``; the others end the context)."""


class Watchdog:
    """Told when work begins, goes on and ends; says when it has been silent for too long. ``clock`` is in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._last: float | None = None
        self._longest_s: float | None = None

    def begin(self) -> None:
        """The device is at work from now on."""
        with self._lock:
            self._last, self._longest_s = self._clock(), None

    def ping(self, is_step: bool = False) -> None:
        """It went on, by a step or by something else."""
        with self._lock:
            now, before = self._clock(), self._last
            if is_step and before is not None:
                self._longest_s = max(self._longest_s or 0.0, now - before)
            self._last = now

    def end(self) -> None:
        """Nothing is at work any more."""
        with self._lock:
            self._last = None

    @property
    def silent_s(self) -> float | None:
        """For how long there was no sign, where that is too long; else None."""
        with self._lock:
            silent_s = 0.0 if self._last is None else self._clock() - self._last
            limit_s = FIRST_S if self._longest_s is None else max(LEAST_S, STEPS * self._longest_s)
            return silent_s if silent_s > limit_s else None

    @property
    def trouble(self) -> str:
        """What is wrong, for people; empty where nothing is."""
        if (silent_s := self.silent_s) is None:
            return ""
        return f"No step for {silent_s / 60:.0f} minutes: the device may have stopped answering. Restart the server."


def is_lost(error: BaseException | None) -> bool:
    """Whether the device will not work for this process any more: CUDA answers every later call with the same error."""
    while error is not None:
        text = str(error)
        if isinstance(error, RuntimeError) and ("CUDA error:" in text or "HIP error:" in text):
            return not any(words in text.splitlines()[0] for words in RECOVERABLE)
        error = error.__cause__ or error.__context__
    return False
