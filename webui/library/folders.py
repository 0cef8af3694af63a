"""Where files of each kind lie: A1111's and ComfyUI's names, below the program's folder or that of its models."""

from pathlib import Path

CONTROLS = Path(__file__).resolve().parents[1] / "demo/controls"
"""Those that ship."""

CHECKPOINT_FOLDERS = (
    "models/Stable-diffusion",
    "models/checkpoints",
    "models/unet",
    "models/diffusion_models",
    "Stable-diffusion",
    "checkpoints",
    "unet",
    "diffusion_models",
)
LORA_FOLDERS = ("models/Lora", "models/LyCORIS", "models/loras", "Lora", "LyCORIS", "loras")
VAE_FOLDERS = ("models/VAE", "models/vae", "models/VAE-approx", "models/vae_approx", "VAE", "vae", "vae_approx")
TEXT_FOLDERS = tuple(
    f"{above}{name}" for above in ("models/", "") for name in ("text_encoders", "clip", "text_encoder")
)
EMBEDDING_FOLDERS = ("embeddings", "models/embeddings")
UPSCALER_FOLDERS = tuple(
    f"{above}{name}" for above in ("models/", "") for name in ("ESRGAN", "RealESRGAN", "upscale_models")
)
FINDER_FOLDERS = tuple(f"{above}{name}" for above in ("models/", "") for name in ("adetailer", "ultralytics"))
CONTROL_FOLDERS = (
    *(f"{above}{name}" for above in ("models/", "") for name in ("ControlNet", "controlnet", "t2i_adapter")),
    *(f"{above}{name}" for above in ("models/", "") for name in ("ipadapter", "ip-adapter")),
    "extensions/sd-webui-controlnet/models",
)
ANNOTATOR_FOLDERS = (
    *("models/annotators", "annotators", "extensions/sd-webui-controlnet/annotator/downloads"),
    "custom_nodes/comfyui_controlnet_aux/ckpts",
)
"""Ours, and where the extensions of A1111 and ComfyUI keep theirs."""
