"""What people should be told of a request beside its pictures: what changes nothing, or is not done as it says."""

from collections.abc import Mapping

from webui.core import images
from webui.core.checkpoint import Checkpoint
from webui.core.files import VaeFile
from webui.core.groups.init import Init
from webui.core.prompt import parse_weights, tags_in, unclosed, unsupported
from webui.core.request import Request
from webui.core.schedule import split_terms

OF_A_MASK = ("mask_blur", "softness", "mask_fill", "invert_mask", "only_masked", "padding")


def notices(request: Request, checkpoint: Checkpoint) -> tuple[str, ...]:
    """A line for people for each such thing in a resolved request; ``checkpoint`` is its model's."""
    several = request.syntax > 1 and len(split_terms(request.prompt)) > 1
    guides_itself, own = checkpoint.guides_itself and not request.refiner, checkpoint.prediction_name
    unheard = request.negative and not several and not (request.nag and request.nag.acts)
    alone = request.guidance == 1 and not several
    lines = {
        "A negative prompt has no effect at guidance 1.": unheard and request.guidance == 1,
        "A negative prompt has no effect on a model that guides itself.": unheard and guides_itself,
        "“Guidance rescale” has no effect without guidance.": request.guidance_rescale and (alone or guides_itself),
        "NAG has an empty negative prompt to go away from.": (
            request.nag and request.nag.acts and not request.negative
        ),
        "A model that guides itself takes guidance below 1 as 1.": guides_itself and request.guidance < 1,
        f"{checkpoint.family} has no emphasis: brackets are plain words.": (
            "emphasis" in checkpoint.row.lacks
            and any(words.weight != 1 for text in request.texts.values() for words in parse_weights(text))
        ),
        "At guidance 0 the prompt has no effect; 1 is the prompt alone.": request.guidance == 0 and not guides_itself,
        f"On SDXL clip skip 1 is the layer that A1111 reads at 1 and 2; {request.clip_skip} is an earlier one.": (
            checkpoint.row.latents == "SDXL" and request.clip_skip > 1
        ),
        "“Stop guidance after” has no effect at guidance 1.": (
            request.guidance == 1 and request.guidance_until < 1 and not request.steers
        ),
        "“Switch to refiner at” has no effect without a refiner.": not request.refiner
        and _is_set(request, "refiner_at"),
        "LoRAs have no effect on the refiner.": (
            request.refiner not in ("", request.model) and (request.loras or tags_in(request.prompt))
        ),
        f"Prediction {request.prediction} was taken, as asked; from its file it would be {own}.": (
            request.prediction not in (own, "auto")
        ),
    }
    said: list[str] = []
    for place, text in request.texts.items():
        is_negative = place.endswith("negative")
        said += unsupported(text, is_negative, request.syntax)
        if brackets := unclosed(text):
            name = "negative prompt" if is_negative else "prompt"
            said.append(f"The {'hires ' if place.startswith('hires') else ''}{name} has {brackets}.")
    said += [
        f"LoRA {ref.name}: its weight for the hires pass has no effect without one."
        for ref in request.loras
        if ref.hires_weight is not None and request.hires is None
    ]
    said += [line for line, is_so in lines.items() if is_so]
    if request.init:
        said += [*of_files(request.init), *_of_init(request.init, checkpoint)]
    return tuple(dict.fromkeys(said))


def of_files(init: Init) -> list[str]:
    """What is wrong with the files of its pictures."""
    files = {"The start picture": init.image, "The mask": init.mask}
    early = [name for name, picture in files.items() if picture and images.ENDS_EARLY in picture.info]
    return [f"{name} is a file that ends early; a part of it may be missing." for name in early]


def _of_init(init: Init, checkpoint: Checkpoint) -> tuple[str, ...]:
    if not init.masked:
        names = [str(Init.model_fields[field].title) for field in OF_A_MASK if _is_set(init, field)]
        return (f"Without a mask these have no effect: {', '.join(names)}.",) if names else ()
    from_noise = init.strength == 1 and init.mask_fill != "original"
    greys = checkpoint.inpaints and init.mask is not None and images.has_greys(images.mask_levels(init.mask))
    lines = {
        "“Fill masked area with” has no effect at strength 1, which starts from noise alone.": from_noise,
        "“Resize” has no effect with “Zoom into the mask”.": init.only_masked and _is_set(init, "resize"),
        "With a mask “latent resize” is the same as “just resize”.": init.resize == "latent resize"
        and not init.only_masked,
        "A model for inpainting draws light greys of a mask as white, and keeps dark ones.": greys,
    }
    return tuple(line for line, is_so in lines.items() if is_so)


def _is_set(values: Request | Init, field: str) -> bool:
    """Whether it is something else than where it is left out."""
    return bool(getattr(values, field) != type(values).model_fields[field].default)


def approximations(request: Request, vaes: Mapping[str, VaeFile]) -> tuple[str, ...]:
    """As ``Request.approximations``, and a tiny autoencoder where one of ``vaes`` is asked for."""
    vae = vaes.get(request.vae)
    return (*request.approximations, *(["a tiny VAE"] if vae and vae.is_tiny else []))
