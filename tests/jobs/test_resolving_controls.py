"""What is wrong with a request's controls is named before anything is queued; what is right has the files' names."""

from types import SimpleNamespace

import pytest
import torch
from PIL import Image as PilImages
from safetensors.torch import save_file

from tests.ip_adapter_models import adapter_shapes, write_header
from webui.core.allowance import EVERYTHING, Allowance
from webui.core.catalog import Catalog
from webui.core.checkpoint import Checkpoint
from webui.core.errors import RequestError
from webui.core.files import ControlFile, ModelFile
from webui.core.recipe import Recipe, RecipeError
from webui.core.request import Request
from webui.core.settings import Settings
from webui.core.verdict import prepare
from webui.jobs.controls import resolve_controls
from webui.jobs.resolve import make_order
from webui.library.library import Library

RED = PilImages.new("RGB", (64, 64), "red")
DEEP = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"
SHAPES = {
    "controlnet_cond_embedding.conv_in.weight": (16, 3, 3, 3),
    "controlnet_down_blocks.0.weight": (64, 64, 1, 1),
    DEEP: (64, 192),
}


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> Library:
    root = tmp_path_factory.mktemp("data")
    folder = root / "extensions" / "sd-webui-controlnet" / "models"
    folder.mkdir(parents=True)
    files = {
        "Fits": SHAPES,
        "xl": SHAPES | {DEEP: (64, 2048)},
        "wide": SHAPES | {"controlnet_down_blocks.0.weight": (320, 1)},
    }
    for name, shapes in files.items():
        save_file({key: torch.zeros(shape) for key, shape in shapes.items()}, folder / f"{name}.safetensors")
    save_file({"lora_unet_x.lora_down.weight": torch.zeros(4, 4)}, folder / "lora.safetensors")
    (folder / "old.pth").write_bytes(b"PK")
    return Library(Settings(device="cpu", data_dir=root))


def order(library, *controls, allowed=EVERYTHING, **fields):
    return make_order(Request(prompt="a", controls=controls, **fields), library.snapshot(allowed=allowed))


def test_names_are_those_of_the_files_and_hires_has_the_same_controls(library):
    made = order(
        library, {"model": "fits.safetensors", "image": RED, "preprocessor": "CANNY"}, hires={"upscaler": "Latent"}
    )
    assert [(control.model, control.preprocessor) for control in made.request.controls] == [("Fits", "canny")]
    first, second = made.passes
    assert first.controls == second.controls and second.name == "hires"
    assert first.controls[0].file in made.files
    start = order(library, {"model": "Fits"}, init={"image": RED}).request.controls[0]
    assert start.image is None


@pytest.mark.parametrize(
    ("control", "said", "field"),
    [
        ({"model": "fit"}, "control 1: There is no control “fit”; did you mean Fits?", "model"),
        ({"model": "xl"}, "control 1: xl is a ControlNet for SDXL; the model demo is SD 1.x", "model"),
        ({"model": "wide"}, "it is for 320 channels; demo begins with 64", "model"),
        (
            {"model": "lora"},
            "'lora': lora.safetensors is a LoRA; it belongs in the folder for LoRAs",
            "model",
        ),
        ({"model": "old"}, "'old': old.pth is a pickle", "model"),
        ({"model": "Fits", "image": None}, "control 1: there is no picture, and no start picture either", "image"),
        (
            {"model": "Fits", "preprocessor": "cany"},
            "no preprocessor “cany”; did you mean canny?",
            "preprocessor",
        ),
        (
            {"model": "Fits", "preprocessor": "canny", "options": {"low": 999}},
            "low must be 1 to 255",
            "options",
        ),
        ({"model": "Fits", "kind": "depth"}, "Fits is no ControlNet Union, which alone is told a kind", "kind"),
        ({"model": "Fits", "preprocessor": "inpaint"}, "needs a mask", "preprocessor"),
    ],
)
def test_what_cannot_be_drawn_with_is_refused_by_name(library, control, said, field):
    with pytest.raises(RequestError) as error:
        order(library, {"image": RED} | control)
    assert said in str(error.value) and error.value.field == f"controls.1.{field}"


def test_a_second_model_of_the_same_kind_whose_layers_it_does_not_fit_is_named(tmp_path):
    """As a small SD behind a whole one; one of another kind has no controls."""
    models = []
    for name, family, widths in (("one", "SD 1.x", (16, 24)), ("less", "SD 1.x", (16,)), ("other", "SDXL", (16,))):
        keys = ((f"down_blocks.{k}.attentions.0.x.attn2.to_k.weight", (width, 768)) for k, width in enumerate(widths))
        write_header(tmp_path / f"{name}.safetensors", keys)
        about = Checkpoint(family, "diffusers", ("backbone",), 4, 768, 1024)
        models.append(ModelFile(name, tmp_path / f"{name}.safetensors", about))
    style = ControlFile("style", tmp_path / "style.safetensors")
    write_header(style.path, adapter_shapes("plain", (16, 24), context=768, sees=1024))
    files = SimpleNamespace(controls={"style": style}, annotators={}, image_encoders={})
    request = Request(controls=[{"model": "style", "image": RED}])
    with pytest.raises(RequestError, match="for another UNet: its layers do not fit those of less") as error:
        resolve_controls(request, models[:2], files)
    assert error.value.field == "controls.1.model"
    with pytest.raises(RequestError, match="image encoder"):  # as far as that alone
        resolve_controls(request, [models[0], models[2]], files)


def test_guests_have_those_that_they_are_allowed(library):
    allowed = Allowance(models=("demo", "xl"))
    with pytest.raises(RequestError, match="There is no control “Fits”"):
        order(library, {"model": "Fits", "image": RED}, allowed=allowed)


def test_a_recipe_whose_control_is_gone_says_so(library):
    recipe = Recipe(Request(seed=1, controls=[{"model": "gone"}]), {"control": {"gone": "ab" * 32}})
    with pytest.raises(RecipeError, match="control 'gone' .SHA-256 abababababab. not here"):
        prepare(recipe, Catalog.of(library.snapshot()), lambda _: None)
