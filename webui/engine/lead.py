"""How far a loop runs ahead of a GPU, which has only queued what it is asked for when the call returns.

One that nothing holds back has told of its last step before the GPU has done its second one, and then nobody can stop
it: CUDA graphs are a call a step, so that a whole picture is queued within milliseconds.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch

EVENTS: Mapping[str, Callable[[], Any]] = {"cuda": partial(torch.cuda.Event, blocking=True), "xpu": torch.xpu.Event}
"""What makes a mark in the queue of a device that has one; without ``blocking`` who waits for it keeps a core busy."""


class Lead:
    """Keeps a loop one step ahead of a device: it has always something to do, and what is told of steps is true."""

    def __init__(self, device: torch.device) -> None:
        self._mark = EVENTS.get(device.type)
        self._last: Any = None

    def follow(self, is_last: bool = False) -> None:
        """To be called after each step: waits until the one before is done, and the last one itself."""
        if self._mark is None:
            return
        before, self._last = self._last, self._mark()
        self._last.record()
        if is_last:
            self._last.synchronize()
        elif before is not None:
            before.synchronize()


def wait_for(device: torch.device) -> None:
    """Until a device has done all that it was asked for."""
    if mark := EVENTS.get(device.type):
        last = mark()
        last.record()
        last.synchronize()
