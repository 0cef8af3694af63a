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
ENUMERATED = NEW.replace("Just Resize", "ResizeMode.RESIZE").replace(
    "ControlNet is more important, Hr Option: Both", "ControlMode.CONTROL, Hr Option: HiResFixOption.BOTH"
)
APART = (
    "ControlNet Enabled: True, ControlNet Preprocessor: canny, ControlNet Model: control_v11p_sd15_canny [d14c016b],"
    " ControlNet Weight: 0.8, ControlNet Starting Step: 0.1, ControlNet Ending Step: 0.9,"
    " ControlNet Resize Mode: Just Resize, ControlNet Pixel Perfect: False,"
    ' ControlNet Control Mode: ControlNet is more important, ControlNet Preprocessor Parameters: "(768, 50, 200)"'
)
FIRST = (
    "ControlNet-0 Enabled: True, ControlNet-0 Module: canny, ControlNet-0 Model: control_v11p_sd15_canny [d14c016b],"
    " ControlNet-0 Weight: 0.8, ControlNet-0 Guidance Start: 0.1, ControlNet-0 Guidance End: 0.9"
)
"""All as the extension's code of its time makes them."""
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
UNION = MEANT.model_copy(update={"kind": "hard edge"})


@pytest.mark.parametrize("text", [NEW, OLD, OLD.replace("ControlNet 0:", "ControlNet:"), ENUMERATED, APART])
def test_the_extension_s_text_is_read(text):
    found = read_text(LINE + text, CATALOG)
    assert found.values["controls"] == (MEANT,)
    sampler, *more = found.unmapped
    assert "Euler" in sampler and more == ["control 1: its picture is not in this text"]


def test_its_first_texts_say_less_and_its_newest_more():
    (control,) = read_text(LINE + FIRST, CATALOG).values["controls"]
    assert control == Control(model=CANNY.name, preprocessor="canny", weight=0.8, start=0.1, end=0.9)
    two = f"{FIRST}, {FIRST.replace('ControlNet-0', 'ControlNet-1').replace('0.8', '0.5')}"
    assert [control.weight for control in read_text(LINE + two, CATALOG).values["controls"]] == [0.8, 0.5]
    perfect = NEW.replace("Pixel Perfect: False", "Pixel Perfect: True")
    assert read_text(LINE + perfect, CATALOG).values["controls"][0].options == {"low": 50}
    once = LINE + "Hires upscale: 2, " + NEW.replace("Both", "Low res only")
    assert "control 1: Low res only there; here it is on in both passes" in read_text(once, CATALOG).unmapped
    for older in ("Scale to Fit (Inner Fit)", "Inner Fit (Scale to Fit)"):
        fitted = read_text(LINE + OLD.replace("Just Resize", older), CATALOG).values["controls"][0]
        assert fitted.resize == "crop and resize"
    # As its own test has it, module and all.
    theirs = (
        'ControlNet 0: "Module: inpaint_only+lama, Model: control_v11p_sd15_inpaint [ebff9138], Weight: 1, Resize Mode:'
        " Resize and Fill, Low Vram: False, Guidance Start: 0, Guidance End: 1, Pixel Perfect: True, Control Mode:"
        ' Balanced, Hr Option: Both, Save Detected Map: True"'
    )
    said = " ".join(read_text(LINE + theirs, CATALOG).unmapped)
    assert "control: “control_v11p_sd15_inpaint” is not here" in said


def test_our_own_text_says_the_same():
    request = Request(prompt="a cat", seed=1, width=512, height=512, controls=(MEANT, Control(model="other")))
    text = Recipe(request, {"control": {CANNY.name: "d14c016b" * 8}}).infotext()
    assert 'ControlNet 0: "Module: canny, Model: control_v11p_sd15_canny [d14c016b], Weight: 0.8' in text
    found = read_text(text, CATALOG)
    assert found.values["controls"] == (MEANT,) and "control: “other” is not here" in found.unmapped
    told = Recipe(Request(controls=(UNION,)), {}).infotext()
    assert "Union Control Type: Hard Edge" in told and read_text(told, CATALOG).values["controls"] == (UNION,)
    seeded = Control(model=CANNY.name, preprocessor="shuffle", options={"seed": 2**31 - 1})
    assert read_text(Recipe(Request(controls=(seeded,)), {}).infotext(), CATALOG).values["controls"] == (seeded,)
    unknown = read_text(LINE + NEW.replace("Module: canny", "Module: dw_openpose_full"), CATALOG)
    assert unknown.values["controls"][0].preprocessor in ("dw_openpose_full", "pose", "openpose")
    off = read_text(LINE + 'ControlNet 0: "Module: canny, Model: None"', CATALOG)
    assert "controls" not in off.values
