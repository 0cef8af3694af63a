"""What guests may draw with."""

from pathlib import Path

import pytest

from webui.core.allowance import EVERYTHING, Allowance, check_names
from webui.core.checkpoint import Checkpoint
from webui.core.errors import RequestError
from webui.core.files import LoraFile, ModelFile, VaeFile


def lora(name: str, *namesakes: str) -> LoraFile:
    return LoraFile(name, Path("Lora", f"{name}.safetensors"), place=name, namesakes=namesakes)


LORAS = {name: lora(name) for name in ("ink", "Blueprint", "secret")}
ALIKE = {"a/ink": lora("a/ink", "b/ink", "c/ink"), "b/ink": lora("b/ink", "a/ink", "c/ink"), "c/ink": lora("c/ink")}


def test_without_a_choice_all_is_there():
    assert EVERYTHING.of_loras(LORAS) is LORAS


def test_only_what_was_chosen_is_there_whatever_its_case():
    allowed = Allowance(loras=("INK", "blueprint", "gone")).of_loras(LORAS)
    assert list(allowed) == ["ink", "Blueprint"]
    assert Allowance(loras=()).of_loras(LORAS) == {}


def test_no_file_tells_of_another_that_is_left_out():
    allowed = Allowance(loras=("a/ink", "b/ink")).of_loras(ALIKE)
    assert {name: file.namesakes for name, file in allowed.items()} == {"a/ink": ("b/ink",), "b/ink": ("a/ink",)}


def test_vaes_go_with_models_and_what_cannot_be_used_is_not_told():
    vaes = {name: VaeFile(name, Path(name)) for name in ("tiny", "other")}
    known = Checkpoint("SD 1.x", "diffusers", (), 4, 768, 512)
    good, bad = ModelFile("demo", Path("demo"), known), ModelFile("bad", Path("bad"), problem="is no model")
    models = {"demo": good, "bad": bad}
    allowed = Allowance(models=("demo", "tiny", "bad"), usable=True)
    assert list(allowed.of_vaes(vaes)) == ["tiny"] and list(allowed.of_models(models)) == ["demo"]
    assert list(EVERYTHING.of_models(models)) == ["demo", "bad"]


def test_a_choice_that_is_not_there_is_refused_with_near_names():
    check_names("LoRA", ["ink", "blueprint"], LORAS, {})
    with pytest.raises(RequestError, match="no LoRA “blueprnt”; did you mean Blueprint"):
        check_names("LoRA", ["ink", "blueprnt"], LORAS, {})
