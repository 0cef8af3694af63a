"""Which models a preset is for."""

from dataclasses import replace
from pathlib import Path

import pytest

from webui.core.checkpoint import Checkpoint
from webui.core.errors import RequestError
from webui.core.files import ModelFile
from webui.workspace.preset import make_preset, read_preset
from webui.workspace.preset_family import family_of, fits

SD = Checkpoint("SD 1.x", "ldm", (), 4, 768, 512)
MODELS = {
    "demo": ModelFile("demo", Path("demo"), checkpoint=replace(SD, native_px=128)),
    "photo": ModelFile("photo", Path("photo"), checkpoint=SD),
    "large": ModelFile("large", Path("large"), checkpoint=replace(SD, family="SDXL", native_px=1024)),
    "broken": ModelFile("broken", Path("broken"), problem="is empty"),
}


@pytest.mark.parametrize(
    ("held", "family", "fitting"),
    [
        ({"fields": {"steps": 8}}, "", {"demo", "photo", "large", "broken", "gone"}),
        ({"fields": {"width": 128, "height": 192}}, "demo", {"demo", "broken", "gone"}),
        ({"fields": {"width": 512, "height": 768}}, "SD 1.x", {"photo", "broken", "gone"}),
        ({"fields": {"width": 1024, "height": 1024}}, "SDXL", {"large", "broken", "gone"}),
        ({"fields": {"height": 1216}}, "SDXL", {"large", "broken", "gone"}),
        ({"fields": {"width": 768, "height": 768}}, "", {"demo", "photo", "large", "broken", "gone"}),
        ({"fields": {"model": "PHOTO", "width": 1024}}, "SD 1.x", {"photo", "broken", "gone"}),
        ({"fields": {"model": "elsewhere", "width": 1024}}, "SDXL", {"large", "broken", "gone"}),
        ({"fields": {"model": "demo"}}, "demo", {"demo", "broken", "gone"}),
        ({"family": "SDXL", "fields": {"width": 512}}, "SDXL", {"large", "broken", "gone"}),
    ],
)
def test_it_is_what_it_says_or_its_model_s_or_its_size_s(held, family, fitting):
    preset = make_preset(name="x", **held)
    assert family_of(preset, MODELS) == family
    assert {name for name in (*MODELS, "gone") if fits(preset, name, MODELS)} == fitting


def test_a_family_is_kept_in_the_file_and_an_unknown_one_is_told():
    preset = make_preset(name="x", family="SDXL")
    assert read_preset(preset.text.encode(), "y") == preset and 'family = "SDXL"' in preset.text
    with pytest.raises(RequestError, match="family must be"):
        read_preset(b"family = 'SD 9'", "y")
