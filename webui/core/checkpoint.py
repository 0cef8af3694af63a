"""What a model is: its family, its parts, what its network predicts, as values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

FamilyName = Literal["SD 1.x", "SD 2.x", "SDXL", "SDXL refiner"]
Prediction = Literal["epsilon", "v"]
KeyNames = Literal["diffusers", "ldm"]

TEXT_PARTS: Mapping[FamilyName, tuple[str, ...]] = {
    "SD 1.x": ("text_encoder",),
    "SD 2.x": ("text_encoder",),
    "SDXL": ("text_encoder", "text_encoder_2"),
    "SDXL refiner": ("text_encoder_2",),
}
NATIVE_PX: Mapping[FamilyName, int] = {"SD 1.x": 512, "SD 2.x": 512, "SDXL": 1024, "SDXL refiner": 1024}
INPAINT_CHANNELS = 9  # noisy latents (4), mask (1), latents of the masked picture (4)
SIZE_IDS = 256  # numbers that each of SDXL's sizes becomes: six of them in the base, five in the refiner
VAE_PREFIX = "first_stage_model."


@dataclass(frozen=True)
class Defaults:
    """What suits a model where nothing was asked for."""

    steps: int = 20
    guidance: float = 5.0
    sampler: str = "DPM++ 2M"
    schedule: str = "Default"


@dataclass(frozen=True)
class Checkpoint:
    """What a file or folder holds.

    ``names`` is whose names its tensors go by; ``unet_prefix`` is what the UNet's begin with, ``text_prefixes`` what
    each text encoder's do. ``parts`` are the components in it, by diffusers' names.
    ``prediction`` is what the UNet was trained to predict, ``zero_snr`` whether its last timestep is pure noise.
    ``dtype`` is the format of the UNet's weights as the file names it, ``nbytes`` the size of all it holds.
    ``guides_itself`` marks UNets that are told the guidance (LCM).
    """

    family: FamilyName
    names: KeyNames
    parts: tuple[str, ...]
    in_channels: int
    context_width: int
    native_px: int
    prediction: Prediction = "epsilon"
    zero_snr: bool = False
    guides_itself: bool = False
    defaults: Defaults = field(default_factory=Defaults)
    dtype: str = "F32"
    nbytes: int = 0
    unet_prefix: str = ""
    text_prefixes: tuple[tuple[str, str], ...] = ()

    @property
    def inpaints(self) -> bool:
        """Whether the UNet is shown a mask and the masked picture."""
        return self.in_channels == INPAINT_CHANNELS

    @property
    def missing_parts(self) -> tuple[str, ...]:
        """What another file must lend."""
        return tuple(part for part in (*TEXT_PARTS[self.family], "vae") if part not in self.parts)

    @property
    def prediction_name(self) -> str:
        """As ``Request.prediction`` spells it."""
        return "v zero-SNR" if self.prediction == "v" and self.zero_snr else self.prediction

    @property
    def kind(self) -> str:
        """For people: ``SDXL, inpaint, v``."""
        words = [self.family, "inpaint" if self.inpaints else "", "v" if self.prediction == "v" else ""]
        words.append("zero SNR" if self.zero_snr else "")
        return ", ".join(word for word in words if word)
