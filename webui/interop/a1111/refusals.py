"""What A1111's bodies and options may ask for that would change the picture, and that cannot be done here."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from webui.core.errors import RequestError

SAME_AS = {"none", "automatic", "default", "original", "bh1", "time_uniform", "uniform", "full", "#ffffff"}
ADETAILER, CONTROLNET, SOFT_INPAINTING = "adetailer", "controlnet", "soft inpainting"
SCRIPTS = ADETAILER, CONTROLNET, SOFT_INPAINTING
"""The scripts that are known, in small letters."""
MAX_LEVELS = 100  # of lists and objects in a body; pydantic writes no more than 255


def flag(value: Any) -> bool:
    """A truth value in any form that clients send: true, 1, "true", "1"; left out, null and empty are false."""
    if isinstance(value, str):
        return value.strip().casefold() not in ("", "0", "false", "no", "off", "none", "null")
    return bool(value)


def is_other_than(*defaults: float) -> Callable[[Any], bool]:
    """Whether a number in any form is none of ``defaults``, which change nothing; what is no number is other too."""

    def is_other(value: Any) -> bool:
        try:
            return float(value) not in defaults
        except (TypeError, ValueError):
            return True

    return is_other


def _is_positive(value: Any) -> bool:
    try:
        return float(value) > 0
    except (TypeError, ValueError):
        return True


def _is_off(value: Any) -> bool:
    return not flag(value)


def _names_something(value: Any) -> bool:
    entries = value if isinstance(value, list) else [value]
    return any(entry is not None and str(entry).strip().casefold() not in ("", *SAME_AS) for entry in entries)


# What changes the picture there and cannot be done here, where it is as the function says. Both requests and options
# have the noise of the samplers; the defaults are those of A1111's ``shared_options.py`` and ``processing.py``.
NOISE: dict[str, Callable[[Any], bool]] = {
    "s_churn": is_other_than(0),
    "s_noise": is_other_than(1),
    "s_tmin": is_other_than(0),
    "s_tmax": is_other_than(0, math.inf),
    "s_min_uncond": is_other_than(0),
    "initial_noise_multiplier": is_other_than(1),
    "tiling": flag,
}
REFUSED: dict[str, Callable[[Any], bool]] = NOISE | {
    "restore_faces": flag,
    "script_name": _names_something,
    "seed_resize_from_w": _is_positive,
    "seed_resize_from_h": _is_positive,
    "latent_mask": bool,
}
REFUSED_OPTIONS: dict[str, Callable[[Any], bool]] = NOISE | {
    "eta_noise_seed_delta": is_other_than(0),
    "eta_ancestral": is_other_than(1),
    "eta_ddim": is_other_than(0),
    "always_discard_next_to_last_sigma": flag,
    "sgm_noise_multiplier": flag,
    "sigma_min": is_other_than(0),
    "sigma_max": is_other_than(0),
    "rho": is_other_than(0),
    "sd_noise_schedule": _names_something,
    "k_sched_type": _names_something,
    "ddim_discretize": _names_something,
    "uni_pc_variant": _names_something,
    "uni_pc_skip_type": _names_something,
    "uni_pc_order": is_other_than(3),
    "skip_early_cond": is_other_than(0),
    "emphasis": _names_something,
    "randn_source": lambda value: str(value).upper() == "NV",
    "img2img_extra_noise": is_other_than(0),
    "img2img_color_correction": flag,
    "img2img_fix_steps": flag,
    "face_restoration": flag,
    "token_merging_ratio": is_other_than(0),
    "token_merging_ratio_img2img": is_other_than(0),
    "img2img_background_color": _names_something,
    "overlay_inpaint": _is_off,
    "inpainting_mask_weight": is_other_than(1),
    "sd_vae_encode_method": _names_something,
    "sd_vae_decode_method": _names_something,
    "comma_padding_backtrack": is_other_than(20),
    "enable_emphasis": _is_off,
    "enable_batch_seeds": _is_off,
    "use_old_emphasis_implementation": flag,
    "use_old_karras_scheduler_sigmas": flag,
    "use_downcasted_alpha_bar": flag,
    "no_dpmpp_sde_batch_determinism": flag,
    "beta_dist_alpha": is_other_than(0.6),
    "beta_dist_beta": is_other_than(0.6),
    "sdxl_crop_top": is_other_than(0),
    "sdxl_crop_left": is_other_than(0),
    "sdxl_refiner_low_aesthetic_score": is_other_than(2.5),
    "sdxl_refiner_high_aesthetic_score": is_other_than(6),
    "sd_lora": _names_something,
    "sd_hypernetwork": _names_something,
}


def refuse(given: Mapping[str, Any], refused: Mapping[str, Callable[[Any], bool]]) -> None:
    """Raises RequestError for the first field of ``refused`` that asks for something."""
    for field, is_asked in refused.items():
        if (value := given.get(field)) not in (None, "") and is_asked(value):
            raise RequestError(f"{field} {repr(value)[:60]} is not supported here", field=field)


def check_text(value: Any, field: str = "body", levels: int = MAX_LEVELS) -> None:
    """What can be drawn but not answered: half of a surrogate pair, an integer of more than 64 bits, lists in lists in
    lists without end.

    RequestError names the field that holds it.
    """
    if not levels:
        raise RequestError(f"{field} has more than {MAX_LEVELS} levels of lists or objects", field=field)
    if isinstance(value, Mapping):
        for key, entry in value.items():
            check_text(key, field, levels - 1)
            check_text(entry, key if field == "body" else field, levels - 1)
    elif isinstance(value, list):
        for entry in value:
            check_text(entry, field, levels - 1)
    elif isinstance(value, int) and not -(2**63) <= value < 2**64:
        raise RequestError(f"{field} holds a number of {value.bit_length()} bits; 64 can be answered", field=field)
    elif isinstance(value, str) and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise RequestError(f"{field} is not valid Unicode text: {ascii(value[:40])}", field=field) from None
