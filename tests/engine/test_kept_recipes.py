"""Pictures that earlier versions have drawn, each with its recipe inside: they come out the same."""

import json
import shutil
from pathlib import Path

import pytest

from webui.cli.verify import Verifier
from webui.core.recipe import read_picture
from webui.core.settings import Settings

PICTURES = sorted((Path(__file__).parents[1] / "recipes").glob("*/*.png"))
OLDEST = "2026-11-29"


@pytest.fixture(scope="module")
def verifier(tmp_path_factory):
    settings = Settings(data_dir=tmp_path_factory.mktemp("data"), device="cpu", dtype="float32")
    settings.start_dir.mkdir(parents=True)
    for folder in {picture.parent for picture in PICTURES}:
        for kept in (folder / "start-pictures").iterdir():
            shutil.copy(kept, settings.start_dir)
    verifier = Verifier(settings)
    yield verifier
    verifier.close()


def test_each_feature_of_then_is_here():
    names = {picture.stem for picture in PICTURES if picture.parent.name == OLDEST}
    assert names >= {"plain", "batch-1", "lora", "lora-schedule", "prompt-schedule", "inpaint", "variation"}
    assert names >= {"wildcards", "upscale", "refiner", "preset"}


@pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: f"{picture.parent.name}-{picture.stem}")
def test_it_is_drawn_again(verifier, picture):
    verdict = verifier.picture(picture).verdict
    elsewhere = [reason for reason in verdict.reasons if reason.startswith("environment: ")]
    assert verdict.outcome in ("identical", "equal") and list(verdict.reasons) == elsewhere, str(verdict)


def test_they_are_written_in_the_schema_that_they_had():
    for picture in PICTURES:
        recipe = read_picture(picture)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("webui.core.recipe.__version__", "as then")
            body = json.loads(recipe.to_json())
        assert body["schema"] == (1 if picture.stem in SCHEMA_1 else 2), picture.stem


SCHEMA_1 = ("plain", "batch-1", "lora", "inpaint", "refiner", "preset")
