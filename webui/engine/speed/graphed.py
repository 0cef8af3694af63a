"""``--cuda-graphs``: what the UNet launches on an NVIDIA GPU, recorded once a size and replayed in every step.

A graph replays with one call what takes the processor hundreds of launches, on fixed addresses. Inputs are copied into
it; LoRAs are copied into the weights (``WeightCache``, ``in_place``) instead of taking their place.
(https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs)
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from cachetools import LRUCache
from torch.utils import _pytree as pytree

from webui.engine.devices import release_memory
from webui.engine.nets.encoder import Added, Prepared
from webui.engine.nets.unet import UNet
from webui.engine.speed.compiled import shape_key
from webui.engine.speed.shortcuts import Shortcuts

logger = logging.getLogger(__name__)

MAX_GRAPHS = 4
"""So many sizes, batches and prompt lengths are kept; each holds memory for one forward."""

WARM_UPS = 3
"""Runs before a recording, in which libraries choose their kernels and take their own memory."""

Run = Callable[[], torch.Tensor]


def record(run: Run) -> Run:
    """Records what ``run`` launches, on the addresses that it uses now.

    The result replays it, and gives the output that the next replay overwrites.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UPS):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    # A recording that fails leaves torch on the stream that it was made on; the outer one goes back to ours.
    with (
        torch.cuda.stream(torch.cuda.current_stream()),
        torch.cuda.graph(graph, capture_error_mode="thread_local"),
    ):
        output = run()

    def replay() -> torch.Tensor:
        graph.replay()
        return output

    return replay


@dataclass
class _Graph:
    """A recording with the tensors that it reads, and what was told it last."""

    replay: Run
    latents: torch.Tensor
    timestep: torch.Tensor
    prepared: Prepared
    known: Prepared


class GraphedUNet:
    """Replays the UNet, after recording it at the first call for a size.

    With shortcuts or controls the plain UNet runs. So it does after a recording that failed, which the log says once.
    """

    is_compiled = False
    """It replays the very kernels of the plain UNet."""

    def __init__(self, unet: UNet) -> None:
        self._unet = unet
        self._graphs: LRUCache[Any, _Graph] = LRUCache(MAX_GRAPHS)
        self._failed = False

    def __call__(
        self,
        latents: torch.Tensor,
        timestep: torch.Tensor,
        prepared: Prepared,
        shortcuts: Shortcuts | None = None,
        added: Added | None = None,
    ) -> torch.Tensor:
        """As ``UNet.forward``."""
        if shortcuts is not None or added is not None or self._failed:
            return self._unet(latents, timestep, prepared, shortcuts, added)
        key = shape_key(latents, timestep, prepared)
        if (graph := self._graphs.get(key)) is None:
            try:
                graph = self._graphs[key] = self._make(latents, timestep, prepared)
            except RuntimeError as error:
                logger.warning("The UNet is not recorded and runs as it is: %s", str(error).partition("\n")[0])
                self._failed = True
        if graph is None:  # not before ``except`` is left: until then its traceback holds the tensors of what failed
            self.close()
            return self._unet(latents, timestep, prepared)
        graph.latents.copy_(latents)
        graph.timestep.copy_(timestep)
        if graph.known is not prepared:  # the same in all steps of a picture
            for own, given in zip(pytree.tree_leaves(graph.prepared), pytree.tree_leaves(prepared), strict=True):
                if isinstance(own, torch.Tensor):
                    own.copy_(given)
            graph.known = prepared
        return graph.replay().clone()

    def take_ran(self) -> set[bool]:
        """As in ``CompiledUNet``."""
        return {False}

    def close(self) -> None:
        """Lets go of all recordings and their memory."""
        self._graphs.clear()
        release_memory(self._unet.device)

    def _make(self, latents: torch.Tensor, timestep: torch.Tensor, prepared: Prepared) -> _Graph:
        own_latents, own_timestep = latents.clone(), timestep.to(latents.device, copy=True)
        own = pytree.tree_map_only(torch.Tensor, torch.clone, prepared)
        replay = record(lambda: self._unet(own_latents, own_timestep, own))
        return _Graph(replay, own_latents, own_timestep, own, prepared)
