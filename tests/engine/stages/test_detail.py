"""Details: parts of the picture found and drawn again, bit for bit what inpaint gives by hand, one after another."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image as PilImages

from tests.finder_models import write_detector
from webui.core import images
from webui.core.errors import RequestError
from webui.core.events import Cancelled, Done, Image, Step
from webui.core.found import Part, in_order
from webui.core.groups.init import Init
from webui.core.recipe import Recipe
from webui.core.verdict import judge, prepare
from webui.engine.finders.network import Finders

QUICK = {"width": 128, "height": 128, "steps": 4, "seed": 21}
STRENGTH = 0.5


def mask_of(size, box):
    mask = PilImages.new("L", size)
    mask.paste(255, box)
    return mask


def pictures(events):
    return [event for event in events if isinstance(event, Image)]


def by_hand(darkroom, request_for, picture, mask, **fields):
    """What people do: inpaint with this mask, only masked."""
    init = Init(image=picture, mask=mask, only_masked=True, padding=fields.pop("padding", 32), strength=STRENGTH)
    (again,) = darkroom.draw(
        request_for(**{"steps": 4, "seed": 21, "width": None, "height": None, "init": init} | fields)
    )
    return again.image


@pytest.fixture(scope="module")
def first(darkroom, request_for):
    """The picture that details begin from."""
    (picture,) = darkroom.draw(request_for(**QUICK))
    return picture.image


@pytest.fixture
def finder(darkroom):
    """A detector of what is red, in the folder for finders."""
    return write_detector(darkroom.settings.data_dir / "models" / "adetailer" / "red.onnx", masks=True)


def test_two_details_are_two_inpaints_by_hand_bit_for_bit(darkroom, request_for, first, finder):
    details = (
        {"finder": "red", "strength": STRENGTH, "padding": 8, "prompt": "a strawberry", "at_most": 1},
        {"finder": "previous-mask", "strength": STRENGTH, "negative": "blue", "dilate": 6},
    )
    (picture,) = darkroom.draw(request_for(**QUICK, detail=details))
    spots = picture.recipe.found
    assert [len(found) for found in spots] == [1, 1] and spots[0] == spots[1]
    network = Finders().load(darkroom.catalog().finders["red"])
    (part,) = in_order(network.find(first, 0.3), 0.3, 1)
    mask, grown = part.mask, part.mask_of(first.size, 6)
    once = by_hand(darkroom, request_for, first, mask, padding=8, prompt="a strawberry")
    twice = by_hand(darkroom, request_for, once, grown, negative="blue")
    assert twice.tobytes() == picture.image.tobytes() != first.tobytes()
    assert picture.recipe.hashes["finder"].keys() == {"red"} and picture.recipe.environment["onnxruntime"]
    outside = np.asarray(images.blur(images.support(grown), 4)) == 0
    assert (np.asarray(picture.image)[outside] == np.asarray(first)[outside]).all()


def test_each_picture_of_a_batch_is_the_one_that_its_seed_gives_alone(darkroom, request_for, first):
    detail = {"strength": STRENGTH, "padding": 0}
    batch = darkroom.draw(request_for(**QUICK, count=2, detail=(detail,)))
    (alone,) = darkroom.draw(request_for(**QUICK | {"seed": 22}, detail=(detail,)))
    assert levels_apart(batch[1].image, alone.image) <= 1  # two at once in the first pass
    assert batch[1].recipe.found == alone.recipe.found and batch[0].recipe.found != batch[1].recipe.found
    ((spot,),) = batch[0].recipe.found
    assert (
        batch[0].image.tobytes()
        == by_hand(darkroom, request_for, first, mask_of((128, 128), spot.box), padding=0).tobytes()
    )


def test_it_comes_behind_the_hires_pass(darkroom, request_for):
    asked = QUICK | {"hires": {"upscaler": "Lanczos", "scale": 1.5, "steps": 2}}
    (large,) = darkroom.draw(request_for(**asked))
    (picture,) = darkroom.draw(request_for(**asked, detail=({"strength": STRENGTH, "at_most": 1},)))
    ((spot,),) = picture.recipe.found
    assert picture.image.size == (192, 192)
    same = by_hand(darkroom, request_for, large.image, mask_of((192, 192), spot.box))
    assert picture.image.tobytes() == same.tobytes()


def levels_apart(one, other):
    return np.abs(np.asarray(one, int) - np.asarray(other, int)).max()


def test_steps_go_forward_and_are_told_by_stage_and_previews_show_all_of_the_picture(
    darkroom, request_for, preview_each_step
):
    events = list(darkroom.generate(request_for(**QUICK, count=2, detail=({"strength": STRENGTH},))))
    steps = [event for event in events if isinstance(event, Step)]
    assert [step.index for step in steps] == [*range(1, 5), 4, 5, 5, 6] and steps[-1].total == 6
    assert [step.stage for step in steps] == [("base", 0)] * 4 + [("detail", 1)] * 4
    assert isinstance(events[-1], Done) and events[-1].parts_s["find"] > 0
    sizes = {PilImages.open(io.BytesIO(step.preview)).size for step in steps if step.stage[0] == "detail"}
    assert sizes == {(256, 128)}  # both of the batch


def test_where_nothing_is_found_the_picture_is_kept_and_it_is_said(darkroom, request_for, first, finder):
    details = ({"finder": "red", "threshold": 1.0}, {"finder": "previous-mask"}, {"dilate": -128})
    events = list(darkroom.generate(request_for(**QUICK, detail=details)))
    (picture,) = pictures(events)
    assert picture.image.tobytes() == first.tobytes() and [len(found) for found in picture.recipe.found] == [0, 0, 1]
    assert "Detail: red found nothing in the picture, which stays as it is." in events[-1].warnings
    shrunk = "Detail: dilate -128 leaves nothing of what demo-subject found in the picture, which stays as it is."
    assert shrunk in events[-1].warnings


def test_a_job_is_stopped_within_a_step_of_a_detail(darkroom, request_for):
    seen = []

    def cancelled() -> bool:
        return len(seen) >= 5

    for event in darkroom.generate(request_for(**QUICK, detail=({"strength": STRENGTH},)), cancelled):
        seen += [event] if isinstance(event, Step) else []
    assert isinstance(event, Cancelled) and len(seen) == 5 and seen[-1].stage[0] == "detail"


def test_the_painted_mask_is_a_finder_too(darkroom, request_for, first):
    init = Init(image=first, mask=mask_of((128, 128), (30, 30, 60, 70)), strength=0.5)
    asked = QUICK | {"init": init}
    (once,) = darkroom.draw(request_for(**asked))
    (picture,) = darkroom.draw(request_for(**asked, detail=({"finder": "painted-mask", "strength": STRENGTH},)))
    assert picture.recipe.found[0][0].box == (30, 30, 60, 70)
    assert picture.image.tobytes() == by_hand(darkroom, request_for, once.image, init.mask).tobytes()


@pytest.mark.parametrize(
    ("resize", "box"),
    [
        ("just resize", (64, 48, 128, 96)),
        ("crop and resize", (32, 48, 160, 96)),
        ("resize and fill", (64, 72, 128, 96)),
        ("latent resize", (64, 48, 128, 96)),
    ],
)
def test_what_was_painted_is_where_it_is_shown(darkroom, request_for, resize, box):
    init = Init(image=PilImages.new("RGB", (256, 128)), mask=mask_of((256, 128), (85, 32, 171, 64)), resize=resize)
    asked = QUICK | {"steps": 1, "init": init, "hires": {"upscaler": "Lanczos", "scale": 1.5, "strength": 0}}
    (picture,) = darkroom.draw(request_for(**asked, detail=({"finder": "painted-mask", "strength": 0},)))
    ((spot,),) = picture.recipe.found
    assert max(abs(one - other) for one, other in zip(spot.box, box, strict=True)) <= 2  # the filter's soft edge


def test_its_own_words_and_loras_act_on_the_parts_alone(darkroom, request_for, first):
    prompt = "[PROMPT] <lora:night:0.8>, {shiny|shiny}"
    (picture,) = pictures(darkroom.generate(request_for(**QUICK, detail=({"prompt": prompt, "strength": STRENGTH},))))
    (detail,) = picture.recipe.request.detail
    assert [ref.name for ref in detail.loras] == ["night"] and "lora" not in detail.prompt
    assert detail.template == prompt and not picture.recipe.request.loras
    ((spot,),) = picture.recipe.found
    words = "a red apple, flat style, on a blue background, shiny"
    same = by_hand(
        darkroom,
        request_for,
        first,
        mask_of((128, 128), spot.box),
        prompt=words,
        loras=({"name": "night", "weight": 0.8},),
    )
    assert picture.image.tobytes() == same.tobytes() and "night" in picture.recipe.lora_hashes


def test_a_picture_is_drawn_again_from_its_recipe_and_other_boxes_are_named_before_pixels(
    darkroom, request_for, monkeypatch
):
    detail = {"strength": STRENGTH, "prompt": "<lora:night:1>"}
    (picture,) = darkroom.draw(request_for(**QUICK, detail=(detail,), upscale={"upscaler": "Lanczos"}))
    recipe = replace(Recipe.from_json(picture.recipe.to_json()), pixels_sha256=picture.pixels_sha256)
    assert recipe.found == picture.recipe.found and picture.image.size == (256, 256)
    request = prepare(recipe, darkroom.catalog(), lambda _sha256: None)
    (again,) = darkroom.draw(request)
    assert judge(picture.image, recipe, again).outcome == "identical"
    elsewhere = replace(Part((0, 0, 40, 40), 1.0))
    monkeypatch.setattr("webui.engine.stages.detail.find_subject", lambda _picture: [elsewhere])
    (moved,) = darkroom.draw(request)
    verdict = judge(picture.image, recipe, moved)
    box = recipe.found[0][0].box
    assert verdict.outcome == "different" and verdict.reasons[0] == f"detail 1 found {box} then, and (0, 0, 40, 40) now"


@pytest.mark.parametrize(
    ("detail", "said"),
    [
        ({"finder": "demo-subjct"}, r"detail: There is no finder “demo-subjct”; did you mean demo-subject"),
        (
            {"finder": "previous-mask"},
            "detail: previous-mask is what the detail before found, and there is none before",
        ),
        (
            {"finder": "painted-mask"},
            "detail: painted-mask is what was painted over the start picture, and there is no",
        ),
        ({"finder": "face_yolov8n.pt"}, "yolo export model=face_yolov8n.pt format=onnx"),
        ({"finder": "broken"}, r"detail: finder 'broken': broken.onnx is not an ONNX file"),
        ({"prompt": "<lora:nihgt:1>"}, "detail: There is no LoRA “nihgt”; did you mean night"),
    ],
)
def test_bad_input_is_told_before_anything_is_drawn(darkroom, request_for, detail, said):
    broken = darkroom.settings.data_dir / "models" / "adetailer" / "broken.onnx"
    broken.parent.mkdir(parents=True, exist_ok=True)
    broken.write_bytes(b"no")
    with pytest.raises(RequestError, match=said) as error:
        darkroom.generate(request_for(**QUICK, detail=(detail,)))
    assert error.value.field == f"detail.1.{'loras' if 'prompt' in detail else 'finder'}"
