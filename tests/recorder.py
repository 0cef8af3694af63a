"""A stand-in for torch's recorder of CUDA graphs, which as a graph does keeps to fixed addresses."""

from collections.abc import Callable
from typing import Any

import torch


class Recorder:
    """Runs what was recorded again, into the same output and with the tensors that were the weights then."""

    def __init__(self, find_unet: Callable[[], Any]) -> None:
        self.find_unet, self.recorded, self.replayed = find_unet, 0, 0

    def __call__(self, run: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
        parameters = dict(self.find_unet().named_parameters())
        weights = {name: parameter.data for name, parameter in parameters.items()}
        output = run()
        self.recorded += 1

        def replay() -> torch.Tensor:
            now = {name: parameter.data for name, parameter in parameters.items()}
            for name, parameter in parameters.items():
                parameter.data = weights[name]
            output.copy_(run())
            for name, parameter in parameters.items():
                parameter.data = now[name]
            self.replayed += 1
            return output

        return replay
