"""Controls with their maps, ready for the loop; maps and what networks see in them are kept between jobs."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from cachetools import LRUCache
from PIL.Image import Image as PilImage

from webui.core.files import ControlFile
from webui.core.images import Size
from webui.core.maps import choose_map
from webui.core.maps.networks import state_of
from webui.core.stages import ControlUse
from webui.engine.controls.base import Control, soft_inside, soft_skips
from webui.engine.families.base import Conditioning
from webui.engine.nets.controlnet import ControlNet, ControlNetUnion
from webui.engine.nets.encoder import Added, Prepared
from webui.engine.nets.layers import spread
from webui.engine.nets.t2i_adapter import T2IAdapter
from webui.engine.resident import LoadedControl

KEPT_BYTES = 128 * 2**20
UNDERSTOOD = ("context", "summary", "ids")


class Guides:
    """Keeps the newest maps and what was seen in them, up to ``KEPT_BYTES`` each."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._maps: LRUCache[Hashable, PilImage] = LRUCache(KEPT_BYTES, getsizeof=_picture_bytes)
        self._seen: LRUCache[Hashable, Sequence[torch.Tensor]] = LRUCache(KEPT_BYTES, getsizeof=_tensor_bytes)

    def clear(self) -> None:
        """Lets go of everything."""
        self._maps.clear()
        self._seen.clear()

    def make(self, uses: Sequence[ControlUse], nets: Mapping[ControlFile, LoadedControl], size: Size) -> list[Control]:
        """One control a use, for pictures of ``size`` (width, height)."""
        return [self._make(use, nets[use.file], size) for use in uses]

    @torch.inference_mode()
    def _make(self, use: ControlUse, net: LoadedControl, size: Size) -> Control:
        row = choose_map(use.preprocessor)
        key = (use.pixels, row.name, use.options, use.resize, size, *map(state_of, use.networks))
        module = net.module
        if (seen := self._seen.get((net.key, key))) is None:
            picture = _as_tensor(self._map(key, use, size), module).to(self._device, module.dtype)
            seen = tuple(module(picture)) if isinstance(module, T2IAdapter) else (module.see(picture),)
            _keep(self._seen, (net.key, key), seen)
        if isinstance(module, T2IAdapter):
            return AdapterControl(seen, use.mode)
        kind = use.kind if isinstance(module, ControlNetUnion) else None
        return NetControl(module, seen[0], use.mode, kind)

    def _map(self, key: Hashable, use: ControlUse, size: Size) -> PilImage:
        if (found := self._maps.get(key)) is None:
            found = use.map_at(size)
            _keep(self._maps, key, found)
        return found


class NetControl:
    """A ControlNet with what it sees in its map. ``mode`` is that of ``ControlUse``, ``kind`` as in the network."""

    def __init__(self, net: ControlNet, seen: torch.Tensor, mode: str, kind: int | None) -> None:
        self._net, self._seen, self._kind = net, seen, kind
        self._alone = mode == "control" or net.pools
        self._factors = soft_skips(net.skips) if mode != "balanced" else [1.0] * (net.skips + 1)

    def prepare(
        self, forwards: Sequence[Sequence[Conditioning]], count: int, negative: bool
    ) -> Sequence[tuple[int, Prepared] | None]:
        """As in ``Control``: how many rows nothing is added to, and what the network is told for the others."""
        found: list[tuple[int, Prepared] | None] = []
        for number, group in enumerate(forwards):
            silent = 1 if self._alone and negative and number == 0 else 0
            told = [self._understood(one) for one in group[silent:]]
            found.append((silent * count, self._net.prepare(**_stacked(told, count))) if told else None)
        return found

    def added(
        self, seen: torch.Tensor, time: torch.Tensor, prepared: tuple[int, Prepared] | None, weight: float
    ) -> Added | None:
        """As in ``Control``."""
        if prepared is None:
            return None
        silent, told = prepared
        scales = [weight * factor for factor in self._factors]
        found: Added = self._net(seen.to(self._net.dtype), time, told, self._seen, scales, self._kind)
        if not silent:
            return found
        rows = len(told.attended[0][0]) if told.attended else max(len(one) for one in found.skips)
        assert found.middle is not None
        return Added([_behind(one, silent, rows) for one in found.skips], _behind(found.middle, silent, rows))

    def _understood(self, told: Conditioning) -> Conditioning:
        """What it knows of that its UNet is told."""
        return {name: part for name, part in told.items() if name in UNDERSTOOD}


class AdapterControl:
    """A T2I-Adapter's features, which are the same in all steps. ``mode`` is that of ``ControlUse``."""

    def __init__(self, features: Sequence[torch.Tensor], mode: str) -> None:
        factors = soft_inside(len(features)) if mode != "balanced" else [1.0] * len(features)
        self._features = [one if factor == 1 else one * factor for one, factor in zip(features, factors, strict=True)]
        self._alone = mode == "control"
        self._kept: dict[tuple[float, tuple[int, int]], Added] = {}

    def prepare(
        self, forwards: Sequence[Sequence[Conditioning]], count: int, negative: bool
    ) -> Sequence[tuple[int, int] | None]:
        """As in ``Control``: how many rows nothing is added to, and how many others there are."""
        found: list[tuple[int, int] | None] = []
        for number, group in enumerate(forwards):
            silent = 1 if self._alone and negative and number == 0 else 0
            found.append((silent * count, (len(group) - silent) * count) if len(group) > silent else None)
        return found

    def added(
        self, _seen: torch.Tensor, _time: torch.Tensor, prepared: tuple[int, int] | None, weight: float
    ) -> Added | None:
        """As in ``Control``: the same tensors again while the weight stays."""
        if prepared is None:
            return None
        if (found := self._kept.get((weight, prepared))) is None:
            silent, rows = prepared
            features = [one if weight == 1 else one * weight for one in self._features]
            if silent:
                features = [_behind(one, silent, rows) for one in features]
            self._kept.clear()
            found = self._kept[weight, prepared] = Added(inside=features)
        return found


def _stacked(told: Sequence[Conditioning], count: int) -> dict[str, Any]:
    """All of it in one, each for ``count`` pictures."""
    return {name: torch.cat([one[name].repeat_interleave(count, dim=0) for one in told]) for name in told[0]}


def _behind(added: torch.Tensor, silent: int, rows: int) -> torch.Tensor:
    """In ``rows`` rows, behind ``silent`` ones of zeros."""
    added = spread(added, rows)
    return torch.cat([added.new_zeros(silent, *added.shape[1:]), added])


def _as_tensor(picture: PilImage, module: Any) -> torch.Tensor:
    """A map (1, channels, height, width) of 0..1, float32; -1 where nothing is known, for networks that are told so."""
    channels = module.in_channels if isinstance(module, T2IAdapter) else module.config["conditioning_channels"]
    known = np.asarray(picture.getchannel("A")) >= 128 if picture.mode == "RGBA" else None
    plain = picture.convert("RGB")
    levels = np.asarray(plain.convert("L") if channels == 1 else plain, dtype=np.float32) / 255
    levels = levels.reshape(*levels.shape[:2], -1)
    if known is not None and not isinstance(module, T2IAdapter):
        levels = np.where(known[:, :, None], levels, np.float32(-1))
    return torch.from_numpy(np.ascontiguousarray(levels)).permute(2, 0, 1)[None]


def _keep(cache: Any, key: Hashable, value: Any) -> None:
    """Unless it is larger than all that is kept."""
    if cache.getsizeof(value) <= cache.maxsize:
        cache[key] = value


def _picture_bytes(picture: PilImage) -> int:
    return picture.width * picture.height * 4


def _tensor_bytes(tensors: Sequence[torch.Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)
