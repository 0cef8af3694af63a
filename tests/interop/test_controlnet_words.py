"""Controls in pictures' texts: ours read again, and as A1111's extension has written them over the years."""

from pathlib import Path

import pytest

from webui.core.catalog import Catalog
from webui.core.files import ControlFile
from webui.core.groups.control import Control
from webui.core.recipe import Recipe
from webui.core.request import Request
from webui.interop.picture_info import read_text

CANNY = ControlFile("control_v11p_sd15_canny", Path("ControlNet/control_v11p_sd15_canny.safetensors"))
CATALOG = Catalog({}, {}, {}, {}, {}, controls={CANNY.name: CANNY})
LINE = "a cat\nSteps: 20, Sampler: Euler, Seed: 1, Size: 512x512, "
NEW = (
    'ControlNet 0: "Module: canny, Model: control_v11p_sd15_canny [d14c016b], Weight: 0.8, Resize Mode: Just Resize,'
    " Processor Res: 768, Threshold A: 50.0, Threshold B: 200.0, Guidance Start: 0.1, Guidance End: 0.9,"
    ' Pixel Perfect: False, Control Mode: ControlNet is more important, Hr Option: Both"'
)
OLD = (
    'ControlNet 0: "preprocessor: canny, model: control_v11p_sd15_canny [d14c016b], weight: 0.8, starting/ending:'
    " (0.1, 0.9), resize mode: Just Resize, pixel perfect: False, control mode: ControlNet is more important,"
    ' preprocessor params: (768, 50, 200)"'
)
MEANT = Control(
    model=CANNY.name,
    preprocessor="canny",
    weight=0.8,
    start=0.1,
    end=0.9,
    mode="control",
    resize="just resize",
    options={"low": 50, "resolution": 768},
)


@pytest.mark.parametrize("text", [NEW, OLD])
def test_the_extension_s_text_is_read(text):
    found = read_text(LINE + text, CATALOG)
    assert found.values["controls"] == (MEANT,)
    assert found.unmapped[-1] == "control 1: its picture is not in this text"


def test_our_own_text_says_the_same():
    request = Request(prompt="a cat", seed=1, width=512, height=512, controls=(MEANT, Control(model="other")))
    text = Recipe(request, {"control": {CANNY.name: "d14c016b" * 8}}).infotext()
    assert 'ControlNet 0: "Module: canny, Model: control_v11p_sd15_canny [d14c016b], Weight: 0.8' in text
    found = read_text(text, CATALOG)
    assert found.values["controls"] == (MEANT,) and "control: 'other' is not here" in found.unmapped
    seeded = Control(model=CANNY.name, preprocessor="shuffle", options={"seed": 2**31 - 1})
    assert read_text(Recipe(Request(controls=(seeded,)), {}).infotext(), CATALOG).values["controls"] == (seeded,)
    unknown = read_text(LINE + NEW.replace("Module: canny", "Module: dw_openpose_full"), CATALOG)
    assert unknown.values["controls"][0].preprocessor in ("dw_openpose_full", "pose", "openpose")
    off = read_text(LINE + 'ControlNet 0: "Module: canny, Model: None"', CATALOG)
    assert "controls" not in off.values
