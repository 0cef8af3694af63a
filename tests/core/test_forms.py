"""Forms of a model that shapes do not tell apart: what tells them, what is drawn with where nothing does."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from webui.core.checkpoint import Checkpoint
from webui.core.files import ModelFile
from webui.core.kinds import anima
from webui.core.kinds.forms import Form, told_form
from webui.core.kinds.kind import Defaults, Source
from webui.core.recipe import Recipe
from webui.core.request import Request
from webui.core.tensor_file import Header

TURBO = Form("Turbo", Defaults(steps=8, guidance=1.0, sampler="Euler"), {"shift": 3.0}, is_distilled=True)
BASE = Form("Base", Defaults(steps=30, guidance=4.0, sampler="Euler"), {"shift": 6.0})


def told(metadata: dict[str, str] | None = None, **configs: Any) -> str:
    return told_form((TURBO, BASE), Source(Path(), Header(metadata or {}, {}), configs))


@pytest.mark.parametrize(
    ("says", "form"),
    [
        ({"index": {"is_distilled": True}, "scheduler": {"shift": 6.0}}, "Turbo"),
        ({"index": {}, "scheduler": {"shift": 6.0}}, "Base"),
        ({"scheduler": {"shift": 4.5}}, ""),
        ({"scheduler": {"shift": 6.0, "use_dynamic_shifting": True}}, ""),
        ({"metadata": {"modelspec.title": "My Model, turbo v2"}}, "Turbo"),
        ({"metadata": {"modelspec.title": "Turbocharged"}}, ""),
        ({"metadata": {"modelspec.title": "base and turbo in one"}}, ""),
        ({}, ""),
    ],
)
def test_configurations_tell_a_form_and_then_the_file_s_words(says: dict[str, Any], form: str) -> None:
    assert told(**says) == form


@pytest.fixture
def file(monkeypatch: pytest.MonkeyPatch) -> ModelFile:
    """A model that says nothing, of a kind that has two forms."""
    row = replace(anima.ANIMA, name="Formed", forms=(TURBO, BASE))
    monkeypatch.setattr("webui.core.checkpoint.kind_of", {"Formed": row, "Anima": anima.ANIMA}.__getitem__)
    return ModelFile("x", Path("x"), Checkpoint("Formed", "", (), 16, 32, 1024, defaults=TURBO.defaults))


def test_the_first_is_taken_where_nothing_tells_and_any_can_be_chosen(file: ModelFile) -> None:
    assert file.checkpoint and file.checkpoint.formed is TURBO and not file.checkpoint.form
    assert file.in_form("auto") is file
    base = file.in_form("Base").checkpoint
    assert base and (base.formed, base.defaults, base.form_chosen) == (BASE, BASE.defaults, True)
    plain = replace(file, checkpoint=replace(file.checkpoint, family="Anima"))
    assert plain.in_form("Base") is plain


def test_the_noise_is_the_folder_s_until_another_form_is_chosen(file: ModelFile) -> None:
    from webui.engine.families.family import flow_config

    assert file.checkpoint
    assert flow_config(file.checkpoint, None)["shift"] == 3.0
    assert flow_config(file.checkpoint, {"shift": 4.5})["shift"] == 4.5
    base = file.checkpoint.in_form("Base")
    assert flow_config(base, {"shift": 4.5})["shift"] == flow_config(base, None)["shift"] == 6.0
    assert flow_config(replace(base, form_chosen=False), {"shift": 4.5})["shift"] == 4.5


def test_a_recipe_names_it_and_one_without_is_what_it_was() -> None:
    plain, formed = Recipe(Request(prompt="a")), Recipe(Request(prompt="a", form="Base"))
    assert "form" not in plain.to_json() and plain.schema == 1
    assert Recipe.from_json(formed.to_json()).request.form == "Base" and formed.schema == 3
    assert "Form: Base" in formed.infotext() and "Form" not in plain.infotext()
