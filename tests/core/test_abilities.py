"""What a kind of models lacks is refused by its name before anything is drawn; the page is told of its fields."""

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image as PilImages

from webui.core.abilities import ASKED, check_abilities, lacking, suited_sampler
from webui.core.checkpoint import Checkpoint
from webui.core.errors import RequestError
from webui.core.files import ModelFile
from webui.core.groups.detail import Detail
from webui.core.groups.hires import Hires
from webui.core.groups.init import Init
from webui.core.kinds import KINDS, kind_of
from webui.core.kinds.parts import QWEN3
from webui.core.request import Request
from webui.core.samplers import FLOWING, SAMPLERS
from webui.library.model_info import describe

GREY = PilImages.new("RGB", (64, 64))
WANTED = {
    "negative prompt": {"negative": "blurry"},
    "clip skip": {"clip_skip": 2},
    "text encoder": {"text_encoder": "another"},
    "prediction": {"prediction": "v"},
    "masks": {"init": Init(image=GREY, mask=PilImages.new("L", (64, 64), 255))},
    "hires": {"hires": Hires()},
    "details": {"detail": (Detail(),)},
    "refiner": {"refiner": "another"},
    "token merging": {"token_merging": 0.5},
    "reuse": {"reuse": 2},
    "int8": {"int8": True},
    "pag": {"pag": {}},
    "nag": {"nag": {}},
}


@pytest.fixture
def model(monkeypatch):
    """``model(lacks, **more)``: a file of a kind that lacks these, and is a flow model where that is said."""

    def make(*lacks, **more) -> ModelFile:
        kind = replace(kind_of("SDXL"), name="Anima", lacks=frozenset(lacks), networks={"text_encoder": QWEN3})
        monkeypatch.setitem(kind_of.__globals__["_BY_NAME"], "Anima", kind)
        return ModelFile("ani", Path("ani"), checkpoint=Checkpoint("Anima", "diffusers", (), 4, 1024, 1024, **more))

    return make


def test_a_negative_prompt_of_a_later_pass_is_one_too(model):
    own = {"hires.negative": {"hires": Hires(negative="dull")}}
    own["detail.2.negative"] = {"detail": (Detail(), Detail(negative="dull"))}
    for field, fields in own.items():
        with pytest.raises(RequestError, match=f"^{field}: Anima, as 'ani' is, has no negative prompt$") as caught:
            check_abilities(Request(**fields), model("negative prompt"))
        assert caught.value.field == field
        check_abilities(Request(**fields), model())
    check_abilities(Request(hires=Hires(negative="dull", model="another")), model("negative prompt"))


@pytest.mark.parametrize("ability", ASKED)
def test_what_a_kind_lacks_is_refused_with_its_name_and_field(model, ability):
    request = Request(**WANTED[ability])
    with pytest.raises(RequestError, match="Anima, as 'ani' is, has no ") as caught:
        check_abilities(request, model(ability))
    assert caught.value.field == ASKED[ability].field and str(caught.value).startswith(f"{caught.value.field}: ")
    if ability in ("negative prompt", "clip skip", "text encoder", "prediction", "refiner", "token merging", "int8"):
        mended = request.model_copy(update={caught.value.field: caught.value.mend.value})
        check_abilities(mended, model(ability))
    check_abilities(request, model())
    check_abilities(Request(), model(*ASKED))


def test_stable_diffusion_lacks_nothing():
    assert {kind.name for kind in KINDS if not kind.lacks} == {"SD 1.x", "SD 2.x", "SDXL", "SDXL refiner"}


def test_a_flow_model_is_drawn_with_samplers_that_can(model):
    flow, other = model(prediction="flow"), model()
    for name in SAMPLERS:
        assert suited_sampler(other, name, "Default") == (name, "Default")
        if name in FLOWING:
            assert suited_sampler(flow, name.lower(), "Default") == (name, "Default")
            continue
        with pytest.raises(
            RequestError, match=f"sampler '{name}' cannot draw with 'ani', which predicts flow; .*Euler"
        ):
            suited_sampler(flow, name, "Default")
    with pytest.raises(RequestError, match="schedule “Karras” does not go with 'ani'") as caught:
        suited_sampler(flow, "DPM++ 2M Karras", "Default")
    assert caught.value.field == "schedule"


def test_the_page_is_told_what_means_nothing_to_a_model(model):
    assert describe(model("clip skip", "refiner", prediction="flow")).lacks == ("clip_skip", "refiner")
    assert lacking(kind_of("SDXL")) == ("text_encoder",), "its files have them"
    assert describe(model(prediction="flow")).samplers == FLOWING
    assert describe(model()).samplers == ()
