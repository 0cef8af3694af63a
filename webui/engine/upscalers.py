"""Upscaler files -> networks in float32 on the CPU."""

import pickle
import re
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import nn

from webui.core.files import UpscalerFile
from webui.core.tensor_file import PICKLE_ENDINGS, BadFile
from webui.core.upscaler_file import FURTHER, check_upscaler, network_of
from webui.engine.families.base import CannotLoad
from webui.engine.nets.compact import Compact
from webui.engine.nets.rrdb import Rrdb
from webui.engine.weights import Files, build_empty, read_all

State = Mapping[str, torch.Tensor]
WRAPPERS = ("params_ema", "params", "state_dict", "model_state_dict")
"""Under which training programs put the weights; the averaged ones count more."""
NEW_WORDS = {"RRDB_trunk": "body", "RDB": "rdb", "trunk_conv": "conv_body", "upconv": "conv_up", "HRconv": "conv_hr"}
UNKNOWN = "is a network that is not known here"


class Network(Protocol):
    """What enlarges (1, 3, h, w) in 0..1 ``scale`` times, where h and w are multiples of ``multiple``.

    Pixels further than ``reach_px`` away make no difference that anybody would see. ``tile_px`` is the side of what it
    does at once.
    """

    scale: int
    multiple: int
    tile_px: int

    @property
    def reach_px(self) -> int: ...
    def __call__(self, picture: torch.Tensor) -> torch.Tensor: ...


def read_upscaler(file: UpscalerFile) -> Network:
    """The network in a file; raises CannotLoad naming the file and the reason."""
    try:
        check_upscaler(file)
        state = _read_state(file)
        kind = network_of(state)
        if kind is None:
            return _read_further(state)
        network = _make_compact(state) if kind == "compact" else _make_rrdb(state)
    except (BadFile, LookupError, ValueError) as error:
        error = error if isinstance(error, BadFile) else BadFile(UNKNOWN)
        raise CannotLoad(f"upscaler {file.name[:80]!r}: {file.path.name} {error}") from None
    return network


def _read_state(file: UpscalerFile) -> State:
    if file.path.suffix.lower() not in PICKLE_ENDINGS:
        return read_all(Files([file.path]))
    try:
        held = torch.load(file.path, map_location="cpu", weights_only=True)
    except (RuntimeError, ValueError, EOFError, OSError, KeyError, pickle.UnpicklingError) as error:
        raise BadFile(f"cannot be read as weights: {str(error).splitlines()[0][:120]}") from None
    for wrapper in WRAPPERS:
        if isinstance(held, Mapping) and isinstance(held.get(wrapper), Mapping):
            held = held[wrapper]
            break
    if not isinstance(held, Mapping):
        raise BadFile("holds no weights by name")
    return {
        str(key).removeprefix("module."): tensor.float() if tensor.is_floating_point() else tensor
        for key, tensor in held.items()
        if isinstance(tensor, torch.Tensor)
    }


def _fill(network: nn.Module, state: State) -> None:
    """Gives every parameter its tensor; nothing may be missing, misshapen or left over."""
    wanted = {name: tuple(parameter.shape) for name, parameter in network.named_parameters()}
    given = {name: tuple(tensor.shape) for name, tensor in state.items()}
    for name in wanted.keys() | given.keys():
        if wanted.get(name) != given.get(name):
            raise BadFile(f"{UNKNOWN}: of {name} it has {given.get(name, 'nothing')}")
    if any(not tensor.isfinite().all() for tensor in state.values()):
        raise BadFile("holds values that are not numbers (NaN or infinity)")
    network.load_state_dict(state, assign=True)
    network.eval().requires_grad_(False)


def _make_compact(state: State) -> Compact:
    kernels = {int(key.split(".")[1]): tensor for key, tensor in state.items() if tensor.ndim == 4}
    first, last = kernels[min(kernels)], kernels[max(kernels)]
    width, channels = first.shape[:2]
    scale = round((len(last) / max(channels, 1)) ** 0.5)
    _check_sizes(channels, scale, len(kernels) - 1)
    network = build_empty(lambda: Compact(channels, width, len(kernels) - 2, scale))
    _fill(network, state)
    return network


def _make_rrdb(state: State) -> Rrdb:
    state = _in_new_names(state)
    first, growth = state["conv_first.weight"], len(state["body.0.rdb1.conv1.weight"])
    blocks = 1 + max(int(key.split(".")[1]) for key in state if key.startswith("body."))
    doublings = sum(bool(re.fullmatch(r"conv_up\d\.weight", key)) for key in state)
    channels = len(state["conv_last.weight"])
    multiple = round((first.shape[1] / max(channels, 1)) ** 0.5)
    _check_sizes(channels, 2**doublings / max(multiple, 1), multiple)
    network = build_empty(lambda: Rrdb(channels, len(first), growth, blocks, doublings, multiple))
    _fill(network, state)
    return network


def _check_sizes(channels: int, scale: float, least: int) -> None:
    if channels != 3:
        raise BadFile(f"is a network for pictures of {channels} channels, and these have 3")
    if scale not in (1, 2, 3, 4, 8) or least < 1:
        raise BadFile(f"{UNKNOWN}: it enlarges {scale:g} times")


def _in_new_names(state: State) -> State:
    """ESRGAN's weights under the names that Real-ESRGAN gives them."""
    if "conv_first.weight" in state:
        words = {
            "RRDB_trunk": "body",
            "RDB": "rdb",
            "trunk_conv": "conv_body",
            "upconv": "conv_up",
            "HRconv": "conv_hr",
        }
        pattern = re.compile("|".join(words))
        return {pattern.sub(lambda found: words[found[0]], key): tensor for key, tensor in state.items()}
    places = (re.match(r"model\.(\d+)\.(?:weight|bias)$", key) for key in state)
    first, *ups, hr, last = sorted({int(place[1]) for place in places if place})
    names = {first: "conv_first", hr: "conv_hr", last: "conv_last"}
    names |= {place: f"conv_up{number}" for number, place in enumerate(ups, start=1)}

    def rename(key: str) -> str:
        key = re.sub(r"^model\.1\.sub\.(\d+)\.RDB(\d)\.conv(\d)\.0\.", r"body.\1.rdb\2.conv\3.", key)
        key = re.sub(r"^model\.1\.sub\.\d+\.(weight|bias)$", r"conv_body.\1", key)
        return re.sub(r"^model\.(\d+)\.", lambda found: f"{names.get(int(found[1]), found[1])}.", key)

    return {rename(key): tensor for key, tensor in state.items()}


class Further:
    """A network of another kind, as the package spandrel has it, behind the same signature."""

    multiple, tile_px, reach_px = 1, 192, 32

    def __init__(self, model: Any) -> None:
        self._model, self.scale = model, int(model.scale)

    def __call__(self, picture: torch.Tensor) -> torch.Tensor:
        """The picture enlarged; sides that do not suit the network are padded on the way."""
        made: torch.Tensor = self._model(picture)
        return made


def _read_further(state: State) -> Further:
    """What the package spandrel makes of weights; raises BadFile."""
    try:
        from spandrel import ImageModelDescriptor, ModelLoader, UnsupportedModelError
    except (ImportError, RuntimeError) as error:  # it needs torchvision, and that one the very build of torch
        raise BadFile(f"needs the package {FURTHER}, which cannot be imported: {str(error)[:120]}") from None
    try:
        model = ModelLoader(device="cpu").load_from_state_dict(dict(state))
    except UnsupportedModelError:
        raise BadFile(f"{UNKNOWN}, and not to {FURTHER} either") from None
    except (RuntimeError, ValueError, LookupError) as error:
        raise BadFile(f"cannot be read by {FURTHER}: {str(error).splitlines()[0][:120]}") from None
    if not isinstance(model, ImageModelDescriptor) or (model.input_channels, model.output_channels) != (3, 3):
        raise BadFile("is a network that does not make one picture of colours out of another")
    return Further(model.eval())
