"""From a model's files to its components: configurations, tokenizers, and the weights that fill them.

Everything that can be wrong with a file shows in ``ModelLoader``, before a byte of weights is read.
"""

import json
import re
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from webui.core.checkpoint import TEXT_PARTS, VAE_PREFIX, Checkpoint, FamilyName
from webui.core.file_kinds import recognize
from webui.core.files import File, ModelFile, VaeFile
from webui.core.tensor_file import BadFile
from webui.core.text_encoders import has_open_clip_names
from webui.core.weight_files import stamp, weight_files
from webui.engine.families import configs
from webui.engine.families.base import CannotLoad, PreviewMap
from webui.engine.families.ldm import keys_of
from webui.engine.nets.autoencoder import Autoencoder
from webui.engine.nets.clip import ClipText
from webui.engine.nets.tiny import TinyAutoencoder
from webui.engine.nets.unet import UNet
from webui.engine.tokens import Tokenizer
from webui.engine.weights import Files, Key, WeightLoader, build_empty

# What is raised for configurations that are not what they say.
UNREADABLE = (BadFile, OSError, ValueError, TypeError, AttributeError, LookupError, RuntimeError, ArithmeticError)
PART_NAMES = {
    "text_encoder": "text encoder",
    "text_encoder_2": "second text encoder",
    "unet": "UNet",
    "vae": "autoencoder",
}
PADS_WITH_ZERO = ("SD 2.x", "SDXL refiner")
CLIP_WORDS = 49_408
PartKey = Hashable
"""The same for the same part of the same files in the same format: its weights are the same then."""
LATENT_CHANNELS = 4


@dataclass(frozen=True)
class Progress:
    """How far reading is: which part, and how many of all bytes."""

    part: str
    done_bytes: int
    total_bytes: int


@dataclass
class Components:
    """The loaded parts of a model by diffusers' names, and what goes with them."""

    modules: dict[str, Any]
    tokenizers: dict[str, Tokenizer]
    scheduler_config: Mapping[str, Any]
    pipeline_config: Mapping[str, Any] = field(default_factory=dict)
    preview_map: PreviewMap | None = None
    warnings: tuple[str, ...] = ()


def check_unchanged(file: ModelFile) -> None:
    """Raises CannotLoad where it is not the file any more that the order was made for."""
    try:
        changed = stamp(file.path) != file.stamp
    except OSError as error:
        raise CannotLoad(f"model {file.name!r}: {file.path.name} cannot be read: {error.strerror}") from None
    if changed:
        raise CannotLoad(f"model {file.name!r}: {file.path.name} was changed after this was asked for; ask again")


def _reason(file: File, error: Exception) -> str:
    """In one line, with the file's name but not where it lies: guests read it too."""
    if isinstance(error, OSError) and error.strerror:
        error = BadFile(f"cannot be read: {error.strerror}")
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"{file.path.name} {reason}" if isinstance(error, BadFile) else reason


class ModelLoader:
    """All that loading a model takes, found and checked; ``read`` does it.

    ``lenders`` are models that may lend what the file lacks, a text encoder or an autoencoder. Raises CannotLoad.
    """

    def __init__(self, file: ModelFile, lenders: Iterable[ModelFile], dtype: torch.dtype) -> None:
        if file.checkpoint is None:
            raise CannotLoad(f"model {file.name!r}: {file.path.name} {file.problem}")
        self.file, self.checkpoint = file, file.checkpoint
        self.warnings: list[str] = []
        self.lenders: list[ModelFile] = []
        self.keys: dict[str, PartKey] = {}
        self._loaders: dict[str, WeightLoader] = {}
        self._ready: dict[str, nn.Module] = {}
        self._dtypes: dict[str, torch.dtype] = {}
        self._tokenizers: dict[str, Tokenizer] = {}
        owners = {part: file for part in file.checkpoint.parts}
        for part in file.checkpoint.missing_parts:
            owners[part] = self._find_lender(part, lenders)
        try:
            for part in (*TEXT_PARTS[self.checkpoint.family], "unet", "vae"):
                self._plan(part, owners[part], dtype)
            self.scheduler_config, self.pipeline_config = self._read_configs()
            self._preview_map = _read_preview_map(file.path)
        except UNREADABLE as error:
            raise CannotLoad(f"model {file.name!r} cannot be loaded: {_reason(file, error)[:400]}") from error

    @property
    def file_bytes(self) -> int:
        """How much there is to read."""
        return sum(loader.file_bytes for part, loader in self._loaders.items() if part not in self._ready)

    @property
    def part_bytes(self) -> Mapping[str, int]:
        """How much memory the loaded weights of each part take."""
        return {part: loader.numbers * self._dtypes[part].itemsize for part, loader in self._loaders.items()}

    @property
    def memory_bytes(self) -> int:
        """How much memory the loaded weights take."""
        return sum(self.part_bytes.values())

    @property
    def modules(self) -> dict[str, nn.Module]:
        """The parts by diffusers' names, without weights before they are read."""
        return {part: self._ready.get(part, loader.module) for part, loader in self._loaders.items()}

    def use(self, part: str, module: nn.Module) -> None:
        """Has a network that was read before, by the same key, be this part."""
        self._ready[part] = module

    def find_not_finite(self) -> str:
        """What of the files' weights is not finite, for people: the part and a tensor; empty where all is well."""
        for part, loader in self._loaders.items():
            if key := loader.find_not_finite():
                names = " and ".join(path.name for path in loader.files.paths)
                return f"{names} holds not-a-number values in its {PART_NAMES[part]} ({key[:120]}): it is damaged"
        return ""

    def read(self, place: Callable[[str], torch.device]) -> Generator[Progress, None, Components]:
        """Reads each part to the device that ``place`` says; raises CannotLoad. After a failure it holds no weights."""
        done, total = 0, self.file_bytes
        try:
            for part, loader in self._loaders.items():
                if part in self._ready:
                    continue
                for nbytes in loader.read(self._dtypes[part], place(part)):
                    done += nbytes
                    yield Progress(PART_NAMES[part], done, total)
        except BaseException as error:
            self._loaders.clear()
            self._ready.clear()
            if not isinstance(error, BadFile | OSError):
                raise
            raise CannotLoad(f"model {self.file.name!r} cannot be loaded: {self.file.path.name} {error}") from error
        return Components(
            self.modules,
            self._tokenizers,
            self.scheduler_config,
            self.pipeline_config,
            self._preview_map,
            tuple(self.warnings),
        )

    def _read_configs(self) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """Of the scheduler, and of the pipeline as a whole."""
        if self.file.path.is_dir():
            return read_scheduler_config(self.file.path), _read_json(self.file.path / "model_index.json")
        return configs.scheduler_config(self.checkpoint.prediction, self.checkpoint.zero_snr), {}

    def _find_lender(self, part: str, lenders: Iterable[ModelFile]) -> ModelFile:
        own = self.checkpoint
        for lender in lenders:
            other = lender.checkpoint
            if other and part in other.parts and (other.family, other.context_width) == (own.family, own.context_width):
                self.warnings.append(f"{self.file.name} has no {PART_NAMES[part]}; the one of {lender.name} is used.")
                self.lenders.append(lender)
                return lender
        raise CannotLoad(
            f"model {self.file.name!r} has no {PART_NAMES[part]}, and no other {own.family} model is here to lend one"
        )

    def _plan(self, part: str, owner: ModelFile, dtype: torch.dtype) -> None:
        checkpoint = owner.checkpoint
        assert checkpoint
        all_files = weight_files(owner.path)
        files = Files(all_files[part if owner.path.is_dir() else ""])
        folder = owner.path if owner.path.is_dir() else None
        prefix = "" if folder else _prefix(part, checkpoint)
        config = (
            _read_json(folder / part / "config.json") if folder else _derive_config(part, checkpoint, files, prefix)
        )
        module = build_empty(partial(_make, part, config))
        names: str = "diffusers" if folder else checkpoint.names
        if part.startswith("text_encoder") and not has_open_clip_names(files.shapes, prefix):
            names = "diffusers"
        self._loaders[part] = WeightLoader(module, files, lambda name: keys_of(part, name, module, names, prefix))
        self._dtypes[part] = _vae_dtype(config, dtype) if part == "vae" else dtype
        said = json.dumps({key: config[key] for key in config if key[:1] != "_"}, sort_keys=True, default=str)
        self.keys[part] = (part, self._dtypes[part], files.identity, prefix, names, said)
        alone = folder or prefix or len(checkpoint.parts) == 1  # else the other parts' keys begin so, too
        unread = [key for key in self._loaders[part].unread(prefix) if alone and _means_something(key, config)]
        if unread:
            keys = "key matches" if len(unread) == 1 else "keys match"
            self.warnings.append(
                f"{owner.name}: {len(unread)} {keys} nothing in its {PART_NAMES[part]} and did nothing,"
                f" for example {prefix}{unread[0][:120]}."
            )
        if part.startswith("text_encoder"):
            self._tokenizers[part] = _tokenizer(part, folder, checkpoint, config)


def _means_something(key: str, config: Mapping[str, Any]) -> bool:
    """Whether a key, its prefix cut off, that is not read could change pictures."""
    layer = _LAYER.search(key)
    further = layer and "num_hidden_layers" in config and int(layer[1]) >= config["num_hidden_layers"]
    return not (further or _HARMLESS.search(key))


_LAYER = re.compile(r"\b(?:resblocks|encoder\.layers)\.(\d+)\.")  # text encoders are read up to the layer in use
_HARMLESS = re.compile(
    r"(^|\.)(position_ids|logit_scale|attn_mask|text_projection(\.weight)?|v_pred|ztsnr)$"
    r"|^(loss|model_ema|vision_model|visual|visual_projection)\."
)
"""What training leaves behind, and the half of CLIP that looks at pictures."""


def read_vae(file: VaeFile, family: FamilyName, dtype: torch.dtype, device: torch.device) -> nn.Module:
    """An autoencoder from a file of its own: KL in LDM's or diffusers' names, or a tiny one (TAESD). CannotLoad."""
    try:
        files = Files([file.path])
        prefix = VAE_PREFIX if f"{VAE_PREFIX}decoder.conv_in.weight" in files.shapes else ""
        if f"{prefix}decoder.conv_in.weight" in files.shapes:
            names = "diffusers" if f"{prefix}decoder.mid_block.resnets.0.conv1.weight" in files.shapes else "ldm"
            config = configs.vae_config(family, files.shapes, prefix, names)
            if config["latent_channels"] != LATENT_CHANNELS:
                raise BadFile(
                    f"has latents of {config['latent_channels']} channels and belongs to another kind of model;"
                    f" {family} has {LATENT_CHANNELS}"
                )
            module = build_empty(partial(_make, "vae", config))
            loader = WeightLoader(module, files, lambda name: keys_of("vae", name, module, names, prefix))
            dtype = _vae_dtype(config, dtype)
        else:
            module, loader = _tiny_vae(file, files)
        for _ in loader.read(dtype, device):
            pass
        return module
    except UNREADABLE as error:
        raise CannotLoad(f"VAE {file.name!r} cannot be used: {_reason(file, error)}") from error


def _tiny_vae(file: VaeFile, files: Files) -> tuple[nn.Module, WeightLoader]:
    """TAESD: one file as diffusers saves it, or the decoder's with the encoder's beside it."""
    module = build_empty(TinyAutoencoder)
    if "decoder.layers.0.weight" in files.shapes:
        return module, WeightLoader(module, files, lambda name: iter([Key(name)]))
    beside = file.path.with_name(file.path.name.replace("decoder", "encoder"))
    if "1.weight" not in files.shapes:
        kind = recognize(files.shapes)
        raise BadFile(kind.reason if kind and kind.role != "VAE" else "holds no autoencoder")
    if beside == file.path or not beside.is_file():
        raise BadFile("is half of an autoencoder; its encoder (taesd_encoder.safetensors) must lie beside it")
    both = Files([file.path, beside], ["decoder.", "encoder."])

    def find(name: str) -> Iterator[Key]:
        half, _, number, rest = name.split(".", 3)
        yield Key(f"{half}.{int(number) + (half == 'decoder')}.{rest}")  # its decoder begins with a clamp

    return module, WeightLoader(module, both, find)


def _vae_dtype(config: Mapping[str, Any], dtype: torch.dtype) -> torch.dtype:
    """An autoencoder that overflows float16 stays in float32."""
    return torch.float32 if dtype == torch.float16 and config.get("force_upcast", True) else dtype


def _prefix(part: str, checkpoint: Checkpoint) -> str:
    if part == "unet":
        return checkpoint.unet_prefix
    return VAE_PREFIX if part == "vae" else dict(checkpoint.text_prefixes)[part]


def _derive_config(part: str, checkpoint: Checkpoint, files: Files, prefix: str) -> dict[str, Any]:
    try:
        if part == "unet":
            return configs.unet_config(checkpoint.family, files.shapes, prefix, checkpoint.native_px, checkpoint.names)
        if part == "vae":
            return configs.vae_config(checkpoint.family, files.shapes, prefix)
        return configs.text_config(checkpoint.family, part, files.shapes, prefix)
    except KeyError as error:
        raise BadFile(f"lacks {prefix}{error.args[0]}") from None


def _make(part: str, config: Mapping[str, Any]) -> nn.Module:
    if part == "unet":
        return UNet(config)
    if part == "vae":
        return Autoencoder(config)
    return ClipText(config, projects=part == "text_encoder_2")


def _tokenizer(part: str, folder: Path | None, checkpoint: Checkpoint, config: Mapping[str, Any]) -> Tokenizer:
    if folder:
        return Tokenizer.from_folder(folder / part.replace("text_encoder", "tokenizer"))
    if config["vocab_size"] != CLIP_WORDS:
        raise BadFile(f"has a text encoder of {config['vocab_size']} words, where CLIP's has {CLIP_WORDS}")
    zero = checkpoint.family in PADS_WITH_ZERO or part == "text_encoder_2"
    return Tokenizer.clip(pad=0 if zero else None)


def read_scheduler_config(folder: Path) -> dict[str, Any]:
    """The noise that a folder's model was trained on, with two settings that ``StableDiffusionPipeline`` insists on.

    A file written for a scheduler that does not have them would leave DDIM, DDPM, LCM and TCD at defaults that are
    not meant for latents.
    """
    return {**_read_json(folder / "scheduler" / "scheduler_config.json"), "steps_offset": 1, "clip_sample": False}


def _read_preview_map(folder: Path) -> PreviewMap | None:
    """The folder's own ``preview.json``, if it has one."""
    try:
        factors = _read_json(folder / "preview.json")
    except OSError:
        return None
    weight, bias = torch.tensor(factors["weight"]), torch.tensor(factors["bias"])
    if weight.shape != (3, LATENT_CHANNELS) or bias.shape != (3,):
        raise ValueError(f"preview.json does not hold a map from {LATENT_CHANNELS} latent channels to 3 colours")
    return PreviewMap(weight, bias)


def _read_json(path: Path) -> dict[str, Any]:
    found = json.loads(path.read_text("utf-8"))
    if not isinstance(found, dict):
        raise ValueError(f"{path.parent.name}/{path.name} does not hold a JSON object")
    return found
