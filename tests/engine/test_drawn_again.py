"""Pictures drawn again in the same job: bit for bit what enlarging them and img2img make of them by hand."""

from dataclasses import replace

import pytest
from PIL import Image as PilImages

from webui.core.canvas import begun_again
from webui.core.events import Cancelled, Image, Step, to_json
from webui.core.groups.init import Init
from webui.core.groups.upscale import Upscale as UpscaleGroup
from webui.core.groups.variation import Variation
from webui.core.request import LoraRef
from webui.core.stages import Pass, Upscale

LARGE = (96, 96)
STRENGTH = 0.6


@pytest.fixture
def again(darkroom, request_for):
    """``again(count=2, ...)``: the order of such a request with a second pass behind it, from enlarged pictures."""

    def make(**fields):
        order = darkroom.plan(request_for(**{"steps": 4} | fields))
        (first,) = order.stages
        second = replace(first, begin="drawn", size=LARGE, strength=STRENGTH, name="hires")
        enlarged = LARGE if not fields.get("init") else tuple(3 * side // 2 for side in first.result_size)
        enlarge = Upscale(darkroom.library.snapshot().upscalers["realesr-animevideov3"], enlarged)
        return replace(order, stages=(first, enlarge, second))

    return make


def pictures(events):
    return [event for event in events if isinstance(event, Image)]


def hashes(events):
    return [picture.pixels_sha256 for picture in pictures(events)]


@pytest.fixture
def by_hand(darkroom, request_for):
    """The pictures of the same in single jobs: the first pass, its files enlarged, and each drawn again."""

    def make(**fields):
        request = request_for(**{"steps": 4} | fields)
        found = []
        for k, first in enumerate(darkroom.draw(request)):
            only = {"init": Init(image=first.image), "upscale": UpscaleGroup(scale=1.5, only=True)}
            (large,) = darkroom.draw(request_for(**only))
            init = begun_again(large.image, request.init)
            own = request.picture(k).model_copy(
                update={"init": init.model_copy(update={"strength": STRENGTH}), "width": LARGE[0], "height": LARGE[1]}
            )
            found += hashes(darkroom.generate(own))
        return found

    return make


MASK = PilImages.new("L", (64, 64))
MASK.paste(255, (0, 0, 32, 64))
START = Init(image=PilImages.linear_gradient("L").resize((64, 64)).convert("RGB"), mask=MASK, mask_blur=2)


@pytest.mark.parametrize(
    "fields",
    [
        {"count": 2, "sampler": "Euler a"},
        {"count": 2, "variation": Variation(seed=3, strength=0.3), "loras": (LoraRef(name="blueprint", weight=0.8),)},
        {"prompt": "[a red apple:a panda:0.5] <lora:sepia:1@0;0@1>"},
        {"init": START.model_copy(update={"strength": 0.5})},
        {"init": START.model_copy(update={"only_masked": True, "padding": 4}), "count": 2},
    ],
    ids=["ancestral", "variation and LoRA", "scheduled", "mask", "only masked"],
)
def test_pictures_drawn_again_are_those_made_by_hand(darkroom, again, by_hand, fields):
    order = again(**fields)
    drawn = hashes(darkroom.manager.draw(order))
    assert drawn == by_hand(**fields)
    assert len(set(drawn)) == fields.get("count", 1)


def test_steps_tell_their_stage_and_count_through_all_of_them(darkroom, again):
    events = list(darkroom.manager.draw(again(count=2, repeat=2)))
    steps = [event for event in events if isinstance(event, Step)]
    assert [step.index for step in steps] == sorted(step.index for step in steps)
    assert steps[-1].index == steps[-1].total == 2 * (4 + 1 + 2)
    assert list(dict.fromkeys(step.stage for step in steps)) == [("base", 0), ("upscale", 1), ("hires", 2)]
    assert [step.seconds for step in steps] == sorted(step.seconds for step in steps)
    assert to_json(steps[-1]).items() >= {"stage": "hires", "stage_index": 2}.items()
    assert [picture.recipe.sampler["hires"]["class"] for picture in pictures(events)] == [
        "DPMSolverMultistepScheduler"
    ] * 4


def test_it_stops_within_a_step(darkroom, again):
    seen = []
    for event in darkroom.manager.draw(again(count=2), lambda: bool(seen)):
        if isinstance(event, Step) and event.stage == ("hires", 2):
            seen.append(event)
    assert len(seen) == 1 and isinstance(event, Cancelled)


def test_at_strength_0_the_enlarged_picture_is_kept(darkroom, again):
    order = again()
    first, enlarge, second = order.stages
    assert isinstance(second, Pass)
    kept, enlarged = (
        hashes(darkroom.manager.draw(replace(order, stages=stages)))
        for stages in ((first, enlarge, replace(second, strength=0.0)), (first, enlarge))
    )
    assert kept == enlarged
