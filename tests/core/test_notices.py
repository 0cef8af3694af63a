"""What a request asks for in vain is said, and nothing is said of one that is drawn as it asks."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PilImages
from safetensors.numpy import save_file

from webui.core import images
from webui.core.checkpoint import Checkpoint
from webui.core.files import VaeFile
from webui.core.groups.init import Init
from webui.core.lora_ref import LoraRef
from webui.core.notices import approximations, notices
from webui.core.request import Request

PLAIN = Checkpoint("SD 1.x", "diffusers", ("text_encoder", "backbone", "vae"), 4, 768, 512)
PICTURE, MASK = PilImages.new("RGB", (16, 16)), PilImages.linear_gradient("L").resize((16, 16))
SOLID = MASK.point(lambda level: 255 if level > 127 else 0)


def lines(checkpoint=PLAIN, **fields) -> tuple[str, ...]:
    return notices(Request(**({"prediction": "epsilon"} | fields)), checkpoint)


def of_init(checkpoint=PLAIN, **options) -> tuple[str, ...]:
    return lines(checkpoint, init=Init(image=PICTURE, **options))


def test_nothing_is_said_of_what_is_drawn_as_asked():
    assert lines() == lines(negative="blur", guidance=0.5) == lines(refiner="second", refiner_at=0.5) == ()
    assert lines(guidance=1) == lines(guidance_until=0.5, reuse=2, token_merging=0.5) == ()
    assert lines(refiner="demo", loras=("night:1",)) == ()  # the model itself
    assert of_init() == of_init(strength=1.0, resize="latent resize", background="#000000") == ()
    assert of_init(mask=MASK, mask_blur=9, mask_fill="noise", invert_mask=True, padding=8) == ()
    assert of_init(outpaint=(8, 0, 0, 0), mask_blur=9, mask_fill="fill", resize="crop and resize") == ()


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"negative": "blur", "guidance": 1}, "A negative prompt has no effect at guidance 1."),
        ({"guidance": 0}, "At guidance 0 the prompt has no effect; 1 is the prompt alone."),
        ({"guidance": 1, "guidance_until": 0.5}, "“Stop guidance after” has no effect at guidance 1."),
        ({"refiner_at": 0.5}, "“Switch to refiner at” has no effect without a refiner."),
        ({"refiner": "second", "loras": ("night:1",)}, "LoRAs have no effect on the refiner."),
        ({"refiner": "second", "prompt": "[<lora:night:1>:3]"}, "LoRAs have no effect on the refiner."),
        ({"prediction": "v"}, "Prediction v was taken, as asked; from its file it would be epsilon."),
    ],
)
def test_what_changes_nothing_is_said(fields, line):
    assert lines(**fields) == (line,)


def test_clip_skip_counts_otherwise_on_sdxl():
    model = replace(PLAIN, family="SDXL")
    assert lines(model) == lines(PLAIN, clip_skip=2) == ()
    assert lines(model, clip_skip=2) == (
        "On SDXL clip skip 1 is the layer that A1111 reads at 1 and 2; 2 is an earlier one.",
    )


def test_a_model_that_guides_itself_takes_no_negative_prompt_and_no_guidance_below_1():
    model = replace(PLAIN, guides_itself=True)
    assert lines(model, negative="blur") == ("A negative prompt has no effect on a model that guides itself.",)
    assert lines(model, negative="blur", prompt="a AND b") == ()  # what each adds is told from the negative one
    assert lines(model, guidance=0) == ("A model that guides itself takes guidance below 1 as 1.",)
    assert lines(model, guidance=0.5, refiner="second") == ()


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"mask_blur": 9, "only_masked": True}, "Without a mask these have no effect: Soft edge, Zoom into the mask."),
        ({"mask": SOLID, "strength": 1, "mask_fill": "noise"}, "“Fill masked area with” has no effect at strength 1"),
        (
            {"mask": SOLID, "only_masked": True, "resize": "crop and resize"},
            "“Resize” has no effect with “Zoom into the mask”.",
        ),
        ({"mask": SOLID, "resize": "latent resize"}, "With a mask “latent resize” is the same as “just resize”."),
    ],
)
def test_what_a_start_picture_asks_for_in_vain_is_said(options, line):
    (said,) = of_init(**options)
    assert said.startswith(line)


def test_forms_of_prompts_that_are_not_done_are_said_once():
    assert lines(prompt="${x}", negative="${x}") == (
        "${x} (a variable) is not supported here and is read as plain words.",
    )
    assert lines(prompt="[a|b]", negative="[a|b]") == ()
    assert lines(prompt="[a|b]", negative="[a|b]", syntax=1) == (
        "[a|b] (alternating words) is not supported here and is read as plain words.",
    )


def test_brackets_that_nothing_closes_are_said():
    assert lines(prompt="a [cat:dog:0.5", negative="x)") == ("The prompt has 1 [ that is never closed.",)


def test_a_weight_for_a_pass_that_there_is_not_is_said():
    loras = (LoraRef.model_validate("night:1:hr=0"),)
    assert lines(loras=loras) == ("LoRA night: its weight for the hires pass has no effect without one.",)


def test_several_prompts_want_the_negative_one_at_any_guidance():
    assert lines(prompt="a AND b", negative="x", guidance=1) == ()


def test_a_file_that_ends_early_is_said():
    cut = PICTURE.copy()
    cut.info[images.ENDS_EARLY] = True
    request = Request(prediction="epsilon", init=Init(image=cut, mask=cut))
    assert notices(request, PLAIN) == (
        "The start picture is a file that ends early; a part of it may be missing.",
        "The mask is a file that ends early; a part of it may be missing.",
    )


def test_a_model_for_inpainting_knows_no_greys():
    model = replace(PLAIN, in_channels=9)
    assert of_init(model, mask=SOLID) == of_init(PLAIN, mask=MASK) == ()
    assert of_init(model, mask=MASK) == (
        "A model for inpainting draws light greys of a mask as white, and keeps dark ones.",
    )


def test_a_tiny_vae_counts_as_an_approximation(tmp_path: Path) -> None:
    vaes = {}
    for name, key in {"tiny": "decoder.layers.0.weight", "real": "decoder.conv_in.weight"}.items():
        vaes[name] = VaeFile(name, tmp_path / f"{name}.safetensors")
        save_file({key: np.zeros(1, np.float32)}, vaes[name].path)
    assert approximations(Request(vae="tiny", reuse=2), vaes) == ("step caching every 2 steps", "a tiny VAE")
    assert approximations(Request(vae="real"), vaes) == approximations(Request(vae="gone"), vaes) == ()
