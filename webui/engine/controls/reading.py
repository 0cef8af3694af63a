"""From control files to networks: diffusers' folders, single files under its names and under the original ones.

Everything that can be wrong with a file shows in ``ControlLoader``, before a byte of weights is read.
"""

import json
import re
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from webui.core.control_file import CONFIG, PREFIX, ControlKind, control_weights, read_control
from webui.core.events import Loading
from webui.core.files import ControlFile, ModelFile
from webui.core.tensor_file import BadFile
from webui.core.weight_files import weight_files
from webui.engine.controls.configs import adapter_config, control_net_config, of_unet, picture_config
from webui.engine.families.base import CannotLoad
from webui.engine.families.configs import unet_config
from webui.engine.families.ldm import unet_keys, unet_name
from webui.engine.families.loading import UNREADABLE, reason
from webui.engine.kept import Kept
from webui.engine.nets.controlnet import ControlNet, ControlNetUnion
from webui.engine.nets.t2i_adapter import T2IAdapter
from webui.engine.weights import Files, Key, WeightLoader, build_empty, read_some

OWN, BASE = "control/", "base/"
"""Before the names of a Control-LoRA's tensors, and of those of the UNet that it changes."""
MARK = "lora_controlnet"
"""A tensor that says nothing but that its file is a Control-LoRA."""
MAKES = {"ControlNet": ControlNet, "ControlNet Union": ControlNetUnion, "Control-LoRA": ControlNet}

Found = tuple[WeightLoader, Mapping[str, Any], str]
"""What reads a network, its configuration, and what the control's own keys begin with."""


class ControlLoader:
    """All that loading a control for a model takes, found and checked; ``read`` does it. Raises CannotLoad.

    ``key`` is the same for the same weights in the same format. A Control-LoRA's are made from the UNet in the model's
    own file, whatever LoRAs do to that. ``unread`` are keys of the file that have no place in the network.
    """

    def __init__(self, file: ControlFile, model: ModelFile, dtype: torch.dtype) -> None:
        self.file, self._dtype = file, dtype
        try:
            kind = read_control(file)
            _check_fits(kind, model)
            read = {"Control-LoRA": self._of_lora, "T2I-Adapter": self._of_adapter}.get(kind.form, self._of_net)
            self._pairs: Mapping[str, str] = {}
            self._loader, said, prefix = read(kind, model)
        except UNREADABLE as error:
            raise self._cannot(error) from error
        self.key: Hashable = ("control", dtype, self._loader.files.identity, json.dumps(said, sort_keys=True))
        paired = {f"{place.removeprefix(OWN)}.{half}" for place in self._pairs.values() for half in ("up", "down")}
        self.unread = [key for key in self._loader.unread(prefix) if key not in {*paired, MARK}]

    @property
    def nbytes(self) -> int:
        """How much memory its weights take."""
        return self._loader.nbytes(self._dtype)

    def read(self, device: torch.device) -> Iterator[int]:
        """Reads the network to a device, which is ``module`` then; yields how many bytes were read. CannotLoad."""
        try:
            yield from self._loader.read(self._dtype, device)
            if self._pairs:
                self._add_pairs(device)
        except (BadFile, OSError) as error:
            raise self._cannot(error) from error

    @property
    def module(self) -> nn.Module:
        """The network, without weights before it is read."""
        return self._loader.module

    def _cannot(self, error: Exception) -> CannotLoad:
        return CannotLoad(f"control {self.file.name!r} cannot be used: {reason(self.file, error)[:400]}", "controls")

    def _of_net(self, kind: ControlKind, _model: ModelFile) -> Found:
        files = Files(control_weights(self.file.path))
        prefix = PREFIX if any(key.startswith(PREFIX) for key in files.shapes) else ""
        own = {key.removeprefix(prefix): shape for key, shape in files.shapes.items()}
        said = _said(self.file.path) or control_net_config(kind, own, self.file.path.stem)
        module: nn.Module = build_empty(partial(MAKES[kind.form], said))
        names = kind.names
        keys = partial(net_keys, root=module, names=names, prefix=prefix)
        return WeightLoader(module, files, keys, keeps_small=True), said, prefix

    def _of_adapter(self, kind: ControlKind, _model: ModelFile) -> Found:
        files = Files(control_weights(self.file.path))
        prefix = "adapter." if any(key.startswith("adapter.") for key in files.shapes) else ""
        own = {key.removeprefix(prefix): shape for key, shape in files.shapes.items()}
        said = _said(self.file.path) or adapter_config(kind, own)
        module = build_empty(partial(T2IAdapter, said))
        layers = 0 if kind.names == "diffusers" else said["num_res_blocks"]
        is_light = said["adapter_type"] == "light_adapter"
        keys = partial(adapter_keys, layers=layers, is_light=is_light, prefix=prefix)
        return WeightLoader(module, files, keys, keeps_small=True), said, prefix

    def _of_lora(self, kind: ControlKind, model: ModelFile) -> Found:
        """The UNet's own half, each weight changed by a product of two small ones; norms and biases are its own."""
        checkpoint = model.checkpoint
        assert checkpoint
        own = Files(control_weights(self.file.path)).shapes
        folder = model.path if model.path.is_dir() else None
        bases = weight_files(model.path)[checkpoint.row.folder("backbone") if folder else ""]
        base_prefix = "" if folder else checkpoint.prefix_of("backbone")
        base_names = "diffusers" if folder else checkpoint.names
        config = _said(folder / "unet") if folder else unet_config(checkpoint, Files(bases).shapes, base_prefix)
        said = of_unet(config) | {"in_channels": 4} | picture_config(own, kind.names == "ldm")
        module = build_empty(partial(ControlNet, said))
        controls = control_weights(self.file.path)
        files = Files([*controls, *bases], [OWN] * len(controls) + [BASE] * len(bases))
        names = kind.names

        def keys(name: str) -> Iterator[Key]:
            yield from net_keys(name, module, names, OWN)
            if not name.startswith("controlnet_"):
                yield from unet_keys(name, module, base_names, BASE + base_prefix)

        self._pairs = {
            name: place
            for name, _ in module.named_parameters()
            if name.endswith(".weight")
            and f"{(place := next(net_keys(name, module, names, OWN)).name.removesuffix('.weight'))}.up" in files.shapes
        }
        loader = WeightLoader(module, files, keys)
        for name, place in self._pairs.items():
            _check_pair(files, place, tuple(module.get_parameter(name).shape))
        return loader, {**said, "base": base_prefix}, OWN

    def _add_pairs(self, device: torch.device) -> None:
        """up (out, r) times down (r, in * kernel) to each weight, in float32 (stabilityai's Control-LoRA; ComfyUI)."""
        wanted = {f"{place}.{half}": name for name, place in self._pairs.items() for half in ("up", "down")}
        halves: dict[str, dict[str, torch.Tensor]] = {}
        for key, tensor in read_some(self._loader.files, wanted, device):
            name = wanted[key]
            pair = halves.setdefault(name, {})
            pair[key.rpartition(".")[2]] = tensor.flatten(1)
            if len(pair) == 2:
                weight = self.module.get_parameter(name)
                more = (pair["up"] @ pair["down"]).view(weight.shape)
                weight.data = (weight.float() + more).to(weight.dtype)
                del halves[name]


def read_all(
    loaders: Iterable[ControlLoader],
    kept: Kept,
    device: torch.device,
    check: Callable[[], None],
    install: Callable[[nn.Module], None],
) -> Generator[Loading, None, list[nn.Module]]:
    """The networks, those that were not ``kept`` read to the device and kept; ``check`` may raise to stop."""
    found = []
    for loader in loaders:
        if loader.key not in kept:
            yield Loading(f"Loading {loader.file.name}", 0.0)
            for _ in loader.read(device):
                check()
            if device.type == "cuda":
                loader.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            install(loader.module)
        kept.put(loader.key, loader.module, loader.nbytes, device)
        found.append(kept.find({"": loader.key})[""].module)
    return found


def net_keys(parameter: str, root: nn.Module, names: str, prefix: str) -> Iterator[Key]:
    """Where a ControlNet's parameter may be found; ``names`` is ldm or diffusers."""
    path, _, kind = parameter.rpartition(".")
    if ".attn." in path and path.startswith("transformer_layes."):  # a union's; queries and keys change nothing
        layer, _, part = path.rpartition(".")
        value = part == "value"
        yield Key(f"{prefix}{layer}.in_proj_{kind}" if value else f"{prefix}{parameter}", third=2 if value else None)
    elif names == "ldm":
        yield Key(f"{prefix}{_original_name(path, root)}.{kind}")
    else:
        yield Key(f"{prefix}{parameter}")


def _original_name(path: str, root: nn.Module) -> str | None:
    if match := re.fullmatch(r"controlnet_down_blocks\.(\d+)", path):
        return f"zero_convs.{match[1]}.0"
    if path == "controlnet_mid_block":
        return "middle_block_out.0"
    if path.startswith("controlnet_cond_embedding."):
        layer = path.removeprefix("controlnet_cond_embedding.")
        blocks = len(root.get_submodule("controlnet_cond_embedding.blocks")._modules)
        number = {"conv_in": 0, "conv_out": blocks + 1}.get(layer)
        return f"input_hint_block.{2 * (int(layer.rpartition('.')[2]) + 1 if number is None else number)}"
    return unet_name(path, root)


def adapter_keys(parameter: str, layers: int, is_light: bool, prefix: str) -> Iterator[Key]:
    """Where a T2I-Adapter's parameter may be found: in diffusers' names, or where each resolution has ``layers`` of the
    original ones, in those."""
    name = parameter
    if layers and is_light:
        name = name.replace(".resnets.", ".body.")
    elif layers:
        if match := re.fullmatch(r"body\.(\d+)\.resnets\.(\d+)\.(.+)", parameter):
            name = f"body.{int(match[1]) * layers + int(match[2])}.{match[3]}"
        elif match := re.fullmatch(r"body\.(\d+)\.(in_conv\..+)", parameter):
            name = f"body.{int(match[1]) * layers}.{match[2]}"
    yield Key(prefix + name)


def _said(path: Path) -> dict[str, Any]:
    """A folder's own configuration; empty for a file."""
    if not path.is_dir():
        return {}
    found = json.loads((path / CONFIG).read_text("utf-8"))
    if not isinstance(found, dict):
        raise BadFile(f"has a {CONFIG} that does not hold a JSON object")
    return {key: value for key, value in found.items() if key[:1] != "_"}


def _check_fits(kind: ControlKind, model: ModelFile) -> None:
    """What the request's check has said already, for orders from elsewhere."""
    family = model.checkpoint.family if model.checkpoint else ""
    if kind.form not in (*MAKES, "T2I-Adapter"):
        raise BadFile(f"is a {kind.form}, which adds nothing to a UNet's skips")
    if kind.family != family:
        raise BadFile(f"is a {kind.form} for {kind.family}; the model {model.name} is {family}")


def _check_pair(files: Files, place: str, shape: tuple[int, ...]) -> None:
    up, down = files.shapes[f"{place}.up"], files.shapes.get(f"{place}.down", ())
    if not up or not down or up[0] != shape[0] or up[1] != down[0] or down[1:] != shape[1:][: len(down) - 1]:
        raise BadFile(f"has {place.removeprefix(OWN)}.up and .down in shapes that do not fit its weight")
