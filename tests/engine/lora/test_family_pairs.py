"""Every family's LoRAs with every other family's model, in the published shapes: refused with both names."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tests import (
    anima_models,
    checkpoints,
    flux1_models,
    flux2_models,
    krea2_models,
    qwen_image_models,
    sd3_models,
    z_image_models,
)
from webui.core.checkpoint import Checkpoint
from webui.core.files import LoraFile
from webui.core.kinds import KINDS
from webui.core.lora_files import check_family
from webui.core.tensor_file import Header, read_header
from webui.engine.families import family_of, flux1, flux2, sd3
from webui.engine.lora.names import ModuleIndex
from webui.engine.lora.reading import CannotApply, read_lora
from webui.engine.weights import build_empty
from webui.library.checkpoint import check_header

UNETS = {"sd15": "SD 1.x", "sd21": "SD 2.x", "sdxl": "SDXL", "sdxl-refiner": "SDXL refiner"}
NAMES = {
    "diffusers": lambda path: f"unet.{path}",
    "kohya": lambda path: f"lora_unet_{path.replace('.', '_')}",
}
STYLES: Mapping[str, Mapping[str, Any]] = {
    **dict.fromkeys(UNETS.values(), NAMES),
    "Anima": {name: lambda path, own=own: own("transformer", path) for name, own in anima_models.STYLES.items()},
    "FLUX.1": {
        "diffusers": flux1_models.STYLES["diffusers"],
        "ComfyUI": lambda path: f"diffusion_model.{flux1.original_name(path)[0]}",
    },
    "FLUX.2 Klein": {
        "diffusers": flux2_models.STYLES["diffusers"],
        "ComfyUI": lambda path: f"diffusion_model.{flux2.original_name(path)[0]}",
    },
    "Krea 2": krea2_models.STYLES,
    "Qwen-Image": qwen_image_models.STYLES,
    "SD 3.x": {
        "diffusers": sd3_models.STYLES["diffusers"],
        "kohya": lambda path: sd3_models.STYLES["kohya"](sd3.original_name(path)[0]),
    },
    "Z-Image": z_image_models.STYLES,
}
LAYERS = 13
Known = Mapping[str, tuple[Checkpoint, ModuleIndex]]


def published() -> dict[str, dict[str, tuple[int, ...]]]:
    """The names and shapes of one model of each kind."""
    models = (anima_models, flux2_models, krea2_models, qwen_image_models, z_image_models)
    found = [own.published()["diffusion_models"] for own in models]
    found += [flux1_models.published(), sd3_models.published()]
    found += [{name: shape for name, (shape, _) in checkpoints.published(kind).items()} for kind in UNETS]
    return {check_header(Header({}, shapes, {})).family: shapes for shapes in found}


@pytest.fixture(scope="module")
def known() -> Known:
    """What each kind's model is, and the modules of its backbone, which has no weights."""
    found = {}
    for kind, shapes in published().items():
        checkpoint, family = check_header(Header({}, shapes, {})), family_of(kind)
        (part,) = [part for part in family.parts if part.role == "backbone"]
        config = part.config(checkpoint, shapes, checkpoint.prefix_of("backbone"))
        network = build_empty(lambda part=part, config=config: part.make(config))
        found[kind] = checkpoint, ModuleIndex({"backbone": network}, family.parts, kind)
    return found


@pytest.fixture(scope="module")
def loras(known: Known, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, list[LoraFile]]:
    """For each kind a LoRA in each style, of rank 1, that changes some layers of all its depth."""
    folder = tmp_path_factory.mktemp("loras")
    found: dict[str, list[LoraFile]] = {}
    for kind, (_, index) in known.items():
        words = ("attn2.to_k", "attn2.to_v") if kind in UNETS.values() else ("attn", "attention")
        layers = {
            path: layer
            for path, layer in index.components["backbone"].named_modules()
            if isinstance(layer, nn.Linear) and any(word in path for word in words)
        }
        for style, name in STYLES[kind].items():
            state = {}
            for path, layer in list(layers.items())[:: max(1, len(layers) // LAYERS)]:
                joined = "." not in name("a.b.c")
                down, up = ("lora_down", "lora_up") if joined or kind in UNETS.values() else ("lora_A", "lora_B")
                state[f"{name(path)}.{down}.weight"] = torch.zeros(1, layer.in_features, dtype=torch.float16)
                state[f"{name(path)}.{up}.weight"] = torch.zeros(layer.out_features, 1, dtype=torch.float16)
            path = folder / f"{kind}-{style}.safetensors"
            save_file(state, path)
            found.setdefault(kind, []).append(LoraFile(path.stem, path))
    return found


def test_every_kind_is_here(known: Known) -> None:
    assert set(known) == {kind.name for kind in KINDS}


@pytest.mark.parametrize("made_for", sorted(kind.name for kind in KINDS))
def test_a_lora_fits_its_own_family_and_is_refused_by_every_other(
    known: Known, loras: Mapping[str, list[LoraFile]], made_for: str
) -> None:
    for file in loras[made_for]:
        for kind, (checkpoint, index) in known.items():
            if kind == made_for:
                assert not check_family(read_header(file.path), checkpoint)
                continue
            with pytest.raises(CannotApply) as caught:
                read_lora(file, index, torch.device("cpu"))
            said = str(caught.value)
            assert made_for in said and f"this model is {kind}" in said, f"{file.name} on {kind}: {said}"
