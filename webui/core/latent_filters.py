"""How latents are enlarged without a network: the names that A1111 has for it, and what they are in torch."""

from collections.abc import Mapping

LATENT_FILTERS: Mapping[str, tuple[str, bool]] = {
    "Latent": ("bilinear", False),
    "Latent (antialiased)": ("bilinear", True),
    "Latent (bicubic)": ("bicubic", False),
    "Latent (bicubic antialiased)": ("bicubic", True),
    "Latent (nearest)": ("nearest", False),
    "Latent (nearest-exact)": ("nearest-exact", False),
}
"""``mode`` and ``antialias`` of ``torch.nn.functional.interpolate``, from ``modules/shared.py`` of A1111."""
