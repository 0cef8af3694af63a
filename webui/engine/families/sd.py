"""Stable Diffusion 1.x and 2.x in the diffusers folder layout: one CLIP text encoder, a UNet, a KL autoencoder."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.utils import logging as diffusers_logging
from safetensors import SafetensorError
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from webui.core.library import ModelFile, content_hash
from webui.core.request import RequestError
from webui.engine.families.base import CannotLoad, Conditioning, Posterior, PreviewMap

# What the libraries raise for files that are missing, cut short or not what they say.
UNREADABLE = (
    OSError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    RuntimeError,
    ArithmeticError,
    SafetensorError,
)

for library in (diffusers_logging, transformers_logging):  # our own events say how far loading is
    library.disable_progress_bar()
    library.set_verbosity_error()

PIPELINES = ("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline", "StableDiffusionInpaintPipeline")
INPAINT_CHANNELS = 9  # noisy latents (4), mask (1), latents of the masked picture (4)


class StableDiffusionModel:
    """The components, resident on one device in one dtype. See ``base.Model`` for the contract."""

    latent_channels = 4

    def __init__(
        self,
        file: ModelFile,
        tokenizer: CLIPTokenizer,
        text_encoder: CLIPTextModel,
        unet: UNet2DConditionModel,
        vae: AutoencoderKL,
        scheduler_config: Mapping[str, Any],
    ) -> None:
        self.file = file
        self.content_hash = content_hash(file)
        self.tokenizer, self.text_encoder, self.unet, self.vae = tokenizer, text_encoder, unet, vae
        self.components: Mapping[str, torch.nn.Module] = {"unet": unet, "text_encoder": text_encoder}
        self.scheduler_config = scheduler_config
        config: Any = vae.config
        unet_config: Any = unet.config
        self.latent_scale = 2 ** (len(config.block_out_channels) - 1)
        self._scaling_factor = float(config.scaling_factor)
        self.inpaints = int(unet_config.in_channels) == INPAINT_CHANNELS
        self.preview_map = _read_preview_map(file.path, unet.device)

    def encode_prompt(self, text: str, clip_skip: int) -> tuple[Conditioning, int]:
        """``clip_skip`` counts as A1111 does: 1 reads the last layer, 2 the one before, always normalised."""
        layers = self.text_encoder.config.num_hidden_layers
        if clip_skip > layers:
            raise RequestError(f"clip_skip {clip_skip} is more than this model's {layers} text layers", "clip_skip")
        tokens = self.tokenizer(text, truncation=False, verbose=False).input_ids
        unused = max(0, len(tokens) - self.tokenizer.model_max_length)
        ids = self.tokenizer(text, padding="max_length", truncation=True, return_tensors="pt").input_ids
        output = self.text_encoder(ids.to(self.text_encoder.device), output_hidden_states=clip_skip > 1)
        if clip_skip == 1:
            context = output.last_hidden_state
        else:
            text_model = getattr(self.text_encoder, "text_model", self.text_encoder)
            context = text_model.final_layer_norm(output.hidden_states[-clip_skip])
        return {"encoder_hidden_states": context.to(self.unet.dtype)}, unused

    def predict(self, latents: torch.Tensor, timestep: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
        """One UNet forward; ``latents`` (n, 4 or 9, h, w) in any float type, the result (n, 4, h, w) in float32."""
        output = self.unet(latents.to(self.unet.dtype), timestep, return_dict=False, **conditioning)[0]
        return output.float()

    def encode(self, picture: torch.Tensor) -> Posterior:
        """The autoencoder's encoder; mean and standard deviation scaled like the latents."""
        latents = self.vae.encode(picture.to(self.vae.dtype), return_dict=False)[0]
        return Posterior(latents.mean.float() * self._scaling_factor, latents.std.float() * self._scaling_factor)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Undoes the scaling of the latents, then the autoencoder's decoder."""
        return self.vae.decode(latents.to(self.vae.dtype) / self._scaling_factor, return_dict=False)[0].float()


class StableDiffusion:
    """Loads folders that hold ``model_index.json`` and safetensors; never a pickle, never over the network."""

    name = "Stable Diffusion"

    def recognises(self, file: ModelFile) -> bool:
        """Whether the index names this family's pipeline."""
        try:
            index = json.loads((file.path / "model_index.json").read_text("utf-8"))
        except (OSError, ValueError):
            return False
        return isinstance(index, dict) and index.get("_class_name") in PIPELINES

    def load(
        self,
        file: ModelFile,
        device: torch.device,
        dtype: torch.dtype,
        progress: Callable[[str, float], None],
    ) -> StableDiffusionModel:
        """Each part goes to the device as it is read. An autoencoder that overflows float16 stays in float32."""
        options: dict[str, Any] = {"local_files_only": True, "use_safetensors": True}
        try:
            progress("text encoder", 0.0)
            tokenizer = CLIPTokenizer.from_pretrained(file.path / "tokenizer", local_files_only=True)
            loaded: Any = CLIPTextModel.from_pretrained(
                file.path / "text_encoder", dtype=dtype, output_loading_info=True, **options
            )
            text_encoder, report = loaded
            if missing := sorted(report["missing_keys"]):  # transformers would go on with random numbers
                raise ValueError(f"the text encoder's file lacks {missing[0]}")
            progress("UNet", 0.2)
            unet = UNet2DConditionModel.from_pretrained(file.path / "unet", torch_dtype=dtype, **options)
            progress("autoencoder", 0.8)
            config = json.loads((file.path / "vae" / "config.json").read_text("utf-8"))
            fragile = dtype == torch.float16 and config.get("force_upcast", True)
            vae_dtype = torch.float32 if fragile else dtype
            vae = AutoencoderKL.from_pretrained(file.path / "vae", torch_dtype=vae_dtype, **options)
            for part in (text_encoder, unet, vae):
                torch.nn.Module.to(part, device).eval().requires_grad_(False)
            scheduler_config = read_scheduler_config(file.path)
            return StableDiffusionModel(file, tokenizer, text_encoder, unet, vae, scheduler_config)
        except UNREADABLE as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise CannotLoad(f"model {file.name!r} cannot be loaded: {reason}") from error


def read_scheduler_config(folder: Path) -> dict[str, Any]:
    """The folder's scheduler settings, with the two that ``StableDiffusionPipeline`` insists on for this family.

    A file written for a scheduler that does not have them would leave DDIM, DDPM, LCM and TCD at defaults that are
    not meant for latents.
    """
    config = json.loads((folder / "scheduler" / "scheduler_config.json").read_text("utf-8"))
    return {**config, "steps_offset": 1, "clip_sample": False}


def _read_preview_map(folder: Path, device: torch.device) -> PreviewMap:
    """The folder's own ``preview.json``, else a grey-scale map of the first channel."""
    try:
        factors = json.loads((folder / "preview.json").read_text("utf-8"))
    except OSError:
        factors = {"weight": [[0.2, 0.0, 0.0, 0.0]] * 3, "bias": [0.5] * 3}
    weight, bias = torch.tensor(factors["weight"]), torch.tensor(factors["bias"])
    if weight.shape != (3, 4) or bias.shape != (3,):
        raise ValueError("preview.json does not hold a map from 4 latent channels to 3 colours")
    return PreviewMap(weight.to(device), bias.to(device))
