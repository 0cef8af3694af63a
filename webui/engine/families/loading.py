"""From a model's files to its components: configurations, tokenizers, and the weights that fill them.

Everything that can be wrong with a file shows in ``ModelLoader``, before a byte of weights is read.
"""

import json
import re
from collections.abc import Callable, Generator, Hashable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from webui.core.checkpoint import Checkpoint
from webui.core.files import File, ModelFile, VaeFile
from webui.core.memory import READS_WORDS
from webui.core.tensor_file import BadFile
from webui.core.uses import lender_of
from webui.core.weight_files import INDEXES, stamp, weight_files
from webui.engine.families import family_of
from webui.engine.families.base import CannotLoad, PreviewMap
from webui.engine.families.family import Config, Part, Parts
from webui.engine.families.model import Model
from webui.engine.weights import Files, WeightLoader, build_empty

# What is raised for configurations that are not what they say.
UNREADABLE = (
    BadFile,
    OSError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    RuntimeError,
    ArithmeticError,
    AssertionError,
)
PartKey = Hashable
"""The same for the same part of the same files in the same format: its weights are the same then."""


@dataclass(frozen=True)
class Progress:
    """How far reading is: which part, and how many of all bytes."""

    part: str
    done_bytes: int
    total_bytes: int


def check_unchanged(file: ModelFile) -> None:
    """Raises CannotLoad where it is not the file any more that the order was made for."""
    try:
        changed = stamp(file.path) != file.stamp
    except OSError as error:
        raise CannotLoad(f"model {file.name!r}: {file.path.name} cannot be read: {error.strerror}") from None
    if changed:
        raise CannotLoad(f"model {file.name!r}: {file.path.name} was changed after this was asked for; ask again")


def reason(file: File, error: Exception) -> str:
    """Why a file cannot be used, in one line, with the file's name but not where it lies: guests read it too."""
    if isinstance(error, OSError) and error.strerror:
        error = BadFile(f"cannot be read: {error.strerror}")
    if isinstance(error, AssertionError):  # of a network's own program, which says nothing
        error = BadFile("has a configuration whose numbers do not fit together")
    said = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"{file.path.name} {said}" if isinstance(error, BadFile) else said


class ModelLoader:
    """All that loading a model takes, found and checked; ``read`` does it.

    ``lenders`` are models that may lend what the file lacks, a text encoder or an autoencoder. ``rests_in_files`` has
    the large ones of what reads words be in memory a layer at a time, which a processor can. Raises CannotLoad.
    """

    def __init__(
        self, file: ModelFile, lenders: Iterable[ModelFile], dtype: torch.dtype, rests_in_files: bool = False
    ) -> None:
        if file.checkpoint is None:
            raise CannotLoad(f"model {file.name!r}: {file.path.name} {file.problem}")
        self.file, self.checkpoint = file, file.checkpoint
        self.family, self._rests_in_files = family_of(file.checkpoint.family), rests_in_files
        self._rows = {row.role: row for row in self.family.parts}
        self.warnings: list[str] = []
        self.lenders: list[ModelFile] = []
        self.keys: dict[str, PartKey] = {}
        self._loaders: dict[str, WeightLoader] = {}
        self._ready: dict[str, nn.Module] = {}
        self._dtypes: dict[str, torch.dtype] = {}
        self._tokenizers: dict[str, Any] = {}
        owners = {part: (file, part) for part in file.checkpoint.parts}
        for part in file.checkpoint.missing_parts:
            if found := self._find_lender(part, lenders):
                owners[part] = found
        self._owners = {part: owner for part, (owner, _) in owners.items()}
        try:
            for part in filter(owners.__contains__, self.checkpoint.row.parts):
                owner, role = owners[part]
                try:
                    self._plan(self._rows[part], owner, role, dtype)
                except BadFile as error:
                    raise ValueError(reason(owner, error)) from error
            self.scheduler_config, self.pipeline_config = self._read_configs()
            self._preview_map = _read_preview_map(file.path, self.family.latents.channels)
        except UNREADABLE as error:
            raise CannotLoad(f"model {file.name!r} cannot be loaded: {reason(file, error)[:400]}") from error

    @property
    def file_bytes(self) -> int:
        """How much there is to read."""
        return sum(loader.file_bytes for part, loader in self._loaders.items() if part not in self._ready)

    @property
    def part_bytes(self) -> Mapping[str, int]:
        """How much memory the loaded weights of each part take."""
        return {part: loader.nbytes(self._dtypes[part]) for part, loader in self._loaders.items()}

    @property
    def layer_bytes(self) -> int:
        """How much memory the largest tensor takes."""
        return max((loader.layer_bytes(self._dtypes[part]) for part, loader in self._loaders.items()), default=0)

    @property
    def memory_bytes(self) -> int:
        """How much memory the loaded weights take."""
        return sum(self.part_bytes.values())

    @property
    def modules(self) -> dict[str, nn.Module]:
        """The parts by role, without weights before they are read."""
        return {part: self._ready.get(part, loader.module) for part, loader in self._loaders.items()}

    def use(self, part: str, module: nn.Module) -> None:
        """Has a network that was read before, by the same key, be this part."""
        self._ready[part] = module

    def find_not_finite(self) -> str:
        """What of the files' weights is not finite, for people: the part and a tensor; empty where all is well."""
        for part, loader in self._loaders.items():
            if key := loader.find_not_finite():
                names = " and ".join(path.name for path in loader.files.paths)
                return f"{names} holds not-a-number values in its {self._rows[part].title} ({key[:120]}): it is damaged"
        return ""

    def read(self, place: Callable[[str], torch.device]) -> Generator[Progress, None, dict[str, nn.Module]]:
        """Reads each part to the device that ``place`` says; raises CannotLoad. After a failure it holds no weights."""
        done, total, part = 0, self.file_bytes, "backbone"
        try:
            for part, loader in self._loaders.items():
                if part in self._ready:
                    continue
                for nbytes in loader.read(self._dtypes[part], place(part)):
                    done += nbytes
                    yield Progress(self._rows[part].title, done, total)
        except BaseException as error:
            self._loaders.clear()
            self._ready.clear()
            if not isinstance(error, BadFile | OSError):
                raise
            said = reason(self._owners[part], error)
            raise CannotLoad(f"model {self.file.name!r} cannot be loaded: {said}") from error
        return self.modules

    def assemble(self, modules: dict[str, nn.Module], device: torch.device) -> Model:
        """The model of these networks; it computes on ``device``."""
        parts = Parts(self.checkpoint, modules, device, self._tokenizers, self.pipeline_config)
        warnings = tuple(self.warnings)
        lenders = tuple(self.lenders)
        return Model(self.file, self.family, parts, self.scheduler_config, self._preview_map, warnings, lenders)

    def _read_configs(self) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """Of the scheduler, and of the pipeline as a whole."""
        if self.file.path.is_dir():
            said = _read_json(self.file.path / "scheduler" / "scheduler_config.json")
            return self.family.scheduler(self.checkpoint, said), _read_index(self.file.path)
        return self.family.scheduler(self.checkpoint, None), {}

    def _find_lender(self, part: str, lenders: Iterable[ModelFile]) -> tuple[ModelFile, str] | None:
        """The file that lends a part, and the part's role in it; None for one that is optional and nowhere."""
        own, title = self.checkpoint, self._rows[part].title
        if lender := lender_of(part, self.file, lenders):
            if part not in own.exchanged:
                self.warnings.append(f"{self.file.name} has no {title}; the one of {lender.name} is used.")
            self.lenders.append(lender)
            assert lender.checkpoint
            if (network := own.networks.get(part)) and network.twin == lender.checkpoint.family:
                alike = f"{network.name} or {network.twin}, which look alike"
                self.warnings.append(f"{lender.name} may be {alike}: choose another where colours are wrong.")
            return lender, lender.checkpoint.role_of(part, own) or part
        if part in own.row.optional:
            wanted = own.networks[part].wanted(own.width_of(part))
            self.warnings.append(f"{self.file.name} has no {title} and draws without it; that would be {wanted}.")
            return None
        raise CannotLoad(
            f"model {self.file.name!r} has no {title}, and no other {own.family} model is here to lend one"
        )

    def _plan(self, row: Part, owner: ModelFile, role: str, dtype: torch.dtype) -> None:
        """A part as its row has it, from a file where its role may be another one."""
        part, checkpoint = row.role, owner.checkpoint
        assert checkpoint
        folder = owner.path if owner.path.is_dir() else None
        place = checkpoint.row.folder(role) if folder else ""
        files = Files(weight_files(owner.path)[place])
        prefix = "" if folder else checkpoint.prefix_of(role)
        config = (
            _read_json(folder / place / "config.json") if folder else _derive_config(row, checkpoint, files, prefix)
        )
        _check_depth(config, len(files.shapes))
        module = build_empty(partial(row.make, config))
        names = "diffusers" if folder else row.names(checkpoint, files.shapes, prefix)
        self._loaders[part] = WeightLoader(
            module, files, lambda name: row.keys(name, module, names, prefix), part != "vae"
        )
        self._dtypes[part] = row.dtype(config, dtype)
        if self._rests_in_files and part.startswith(READS_WORDS):
            self._loaders[part].leave_in_files(self._dtypes[part])
        said = json.dumps({key: config[key] for key in config if key[:1] != "_"}, sort_keys=True, default=str)
        self.keys[part] = (row.make, self._dtypes[part], files.identity, prefix, names, said)
        others = () if folder else tuple(begin for other, begin in checkpoint.prefixes if other != role)
        own = self._loaders[part].unread(prefix)
        unread = [key for key in own if not (prefix + key).startswith(others) and _means_something(key, module, config)]
        if unread:
            keys = "key matches" if len(unread) == 1 else "keys match"
            self.warnings.append(
                f"{owner.name}: {len(unread)} {keys} nothing in its {row.title} and did nothing,"
                f" for example {prefix}{unread[0][:120]}."
            )
        if row.tokenizer:
            self._tokenizers[part] = row.tokenizer(folder, checkpoint, config)


def _means_something(key: str, module: nn.Module, config: Mapping[str, Any]) -> bool:
    """Whether a key, its prefix cut off, that is not read could change pictures."""
    layer = _LAYER.search(key)
    layers = getattr(getattr(module, "config", None), "num_hidden_layers", config.get("num_hidden_layers"))
    further = layer and layers is not None and int(layer[1]) >= layers
    return not (further or _HARMLESS.search(key))


_LAYER = re.compile(r"(?:\bresblocks|\bencoder\.layers|^(?:model\.)?layers)\.(\d+)\.")  # read up to the layer in use
_HARMLESS = re.compile(
    r"(^|\.)(position_ids|logit_scale|attn_mask|text_projection(\.weight)?|v_pred|ztsnr|num_batches_tracked)$"
    r"|(^|\.)time_conv\."
    r"|^(model\.)?norm\.weight$|^(lm_head|loss|model_ema|vision_model|visual|visual_projection)\."
)
"""What training leaves, the half of CLIP that looks at pictures, what makes words of a language model, and what is
between the frames of a film."""


def read_vae(file: VaeFile, checkpoint: Checkpoint, dtype: torch.dtype, device: torch.device) -> nn.Module:
    """An autoencoder from a file of its own, for a model of this kind; raises CannotLoad."""
    try:
        loader, dtype = family_of(checkpoint.family).lone_vae(file, Files([file.path]), checkpoint, dtype)
        for _ in loader.read(dtype, device):
            pass
        return loader.module
    except UNREADABLE as error:
        raise CannotLoad(f"VAE {file.name!r} cannot be used: {reason(file, error)}") from error


def _derive_config(part: Part, checkpoint: Checkpoint, files: Files, prefix: str) -> Config:
    try:
        return part.config(checkpoint, files.shapes, prefix)
    except KeyError as error:
        raise BadFile(f"lacks {prefix}{error.args[0]}") from None
    except (ValueError, LookupError, ArithmeticError, TypeError) as error:  # of shapes with other axes, or of none
        if isinstance(error, BadFile):
            raise
        raise BadFile(f"is damaged: its {part.title} has not the shapes of one") from None


def _check_depth(config: Config, tensors: int) -> None:
    """BadFile for a network of more layers than its files have tensors: to build it would take all memory."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            _check_depth(value, tensors)
        elif isinstance(value, int) and value > tensors and _COUNTS.search(key):
            raise BadFile(f"is damaged: it says {key} {value:,}, and has {tensors:,} tensors")


_COUNTS = re.compile(r"(?<!max_window_)layers|blocks|depth$")
"""But for the first of Qwen's layers that would look through a window: 28, however many there are."""


def _read_preview_map(folder: Path, channels: int) -> PreviewMap | None:
    """The folder's own ``preview.json``, if it has one."""
    try:
        factors = _read_json(folder / "preview.json")
    except OSError:
        return None
    weight, bias = torch.tensor(factors["weight"]), torch.tensor(factors["bias"])
    if weight.shape != (3, channels) or bias.shape != (3,):
        raise ValueError(f"preview.json does not hold a map from {channels} latent channels to 3 colours")
    return PreviewMap(weight, bias)


def _read_index(folder: Path) -> dict[str, Any]:
    return _read_json(next(folder / name for name in INDEXES if (folder / name).is_file()))


def _read_json(path: Path) -> dict[str, Any]:
    found = json.loads(path.read_text("utf-8"))
    if not isinstance(found, dict):
        raise ValueError(f"{path.parent.name}/{path.name} does not hold a JSON object")
    return found
