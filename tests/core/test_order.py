"""What a request becomes: its stages, and that they are plain data."""

import pickle
from dataclasses import replace

import pytest
from PIL import Image as PilImages

from webui.core.checkpoint import Checkpoint
from webui.core.files import EmbeddingFile, LoraFile, ModelFile, UpscalerFile, VaeFile
from webui.core.groups.init import Init
from webui.core.order import plan
from webui.core.request import LoraRef, Request
from webui.core.stages import LoraSchedule, LoraUse

WHOLE = Checkpoint("SD 1.x", "ldm", ("text_encoder", "backbone", "vae"), 4, 768, 512)


class Shelf:
    """Files that need not be there: planning opens none of them."""

    def __init__(self, tmp_path):
        def model(name, checkpoint):
            return ModelFile(name, tmp_path / f"{name}.safetensors", place=name, checkpoint=checkpoint, stamp=1)

        unet_alone = replace(WHOLE, parts=("backbone",))
        self.models = {
            "whole": model("whole", WHOLE),
            "unet": model("unet", unet_alone),
            "refiner": model(
                "refiner", replace(WHOLE, family="SDXL refiner", parts=("text_encoder_2", "backbone", "vae"))
            ),
            "broken": model("broken", None),
        }
        self.parts: dict[str, ModelFile] = {}
        self.loras = {name: LoraFile(name, tmp_path / name, place=name) for name in ("ink", "gold")}
        self.upscalers = {
            "sharp": UpscalerFile("sharp", tmp_path / "sharp.pth", place="sharp", namesakes=("old/sharp",))
        }
        self.vaes = {"fine": VaeFile("fine", tmp_path / "fine", place="fine", namesakes=("old/fine",))}
        self.embeddings = {
            name: EmbeddingFile(name, tmp_path / name, place=f"light/{name}") for name in ("glow", "shade")
        }

    def embeddings_in(self, text):
        forms = {name: [form for form in (name, f"light/{name}") if form in text] for name in self.embeddings}
        return {name: found for name, found in forms.items() if found}


@pytest.fixture
def files(tmp_path):
    return Shelf(tmp_path)


def resolved(**fields):
    return Request(**{"model": "whole", "width": 512, "height": 384, "seed": 3, "prediction": "epsilon"} | fields)


def test_a_plain_request_is_one_pass_from_noise(files):
    order = plan(resolved(prompt="a cat", steps=7, guidance=4), files)
    (only,) = order.stages
    assert (only.model, only.size, only.steps, only.guidance) == (files.models["whole"], (512, 384), 7, 4)
    assert (only.begin, only.prediction, only.lenders, order.warnings) == ("noise", "auto", (), ())
    assert order.files == (files.models["whole"],)


def test_a_start_picture_is_what_the_pass_begins_from(files):
    init = Init(image=PilImages.new("RGB", (64, 64)), strength=0.4)
    (only,) = plan(resolved(init=init), files).stages
    assert (only.begin, only.strength, only.init) == ("picture", 0.4, init)


@pytest.mark.parametrize("start", [None, Init(image=PilImages.new("RGB", (64, 64)), strength=0.4)])
def test_a_refiner_is_a_second_pass_that_latents_are_handed_to(files, start):
    ask = resolved(refiner="refiner", refiner_at=0.6, loras=(LoraRef(name="ink"),), prediction="v", init=start)
    first, second = plan(ask, files).stages
    assert (first.begin, first.handover_at, first.prediction) == ("picture" if start else "noise", 0.6, "v")
    assert (second.begin, second.handover_at, second.prediction) == ("handover", 0.6, "auto")
    assert second.model == files.models["refiner"] and second.loras == ()
    assert second.init == first.init == start and second.strength == first.strength


def test_a_model_that_refines_its_own_work_goes_on_as_it_was(files):
    ask = resolved(refiner="whole", loras=(LoraRef(name="ink"),), prediction="v")
    first, second = plan(ask, files).stages
    assert second == replace(first, begin="handover", name="refiner") and second.loras and second.prediction == "v"


def test_loras_come_with_their_files_and_both_strengths(files):
    (only,) = plan(resolved(loras=(LoraRef(name="gold", weight=0.5, text_weight=0.2),)), files).stages
    assert only.loras == (LoraUse(files.loras["gold"], unet=0.5, text=0.2),)


def test_loras_that_change_come_with_their_points_and_tags_in_brackets_with_their_text(files):
    until = ((0.0, 1.0), (0.4, 1.0), (0.4, 0.0))
    ask = resolved(prompt="a [<LORA:Gold:0.5>::0.4]", loras=(LoraRef(name="ink", weight=until),))
    (only,) = plan(ask, files).stages
    assert only.loras == () and only.prompt == "a [<LORA:Gold:0.5>::0.4]"
    assert only.lora_schedules == (
        LoraSchedule(files.loras["ink"], until, until),
        LoraSchedule(files.loras["gold"], 0.5, 0.5, "<LORA:Gold:0.5>"),
    )
    assert set(only.files) >= {files.loras["ink"], files.loras["gold"]}
    first, second = plan(ask.model_copy(update={"refiner": "refiner"}), files).stages
    assert first.lora_schedules == only.lora_schedules and second.lora_schedules == ()


def test_marks_of_the_first_syntax_are_words_to_a_pass(files):
    order = plan(resolved(prompt="[a|b] AND c", negative="[a:b:3]", syntax=1), files)
    assert order.request.prompt == "[a|b] AND c" and order.request.syntax == 1
    (only,) = order.stages
    assert (only.prompt, only.negative) == (r"[a\|b] \AND c", r"[a\:b\:3]")


def test_a_tag_that_is_left_in_words_of_the_first_syntax_is_none(files):
    (only,) = plan(resolved(prompt="a <lora:ink:1>", syntax=1), files).stages
    assert (only.loras, only.lora_schedules) == ((), ())


def test_an_embedding_may_be_named_by_words_that_change(files):
    (only,) = plan(resolved(prompt="a [gl|sh][ow|ade]", negative="[a:light/glow:5]"), files).stages
    assert [(use.file.name, use.forms) for use in only.embeddings] == [
        ("glow", ("glow", "light/glow")),
        ("shade", ("shade",)),
    ]


def test_embeddings_are_looked_for_once_whatever_is_said_over_the_steps(files, monkeypatch):
    asked: list[str] = []
    monkeypatch.setattr(files, "embeddings_in", lambda text: asked.append(text) or {})
    plan(resolved(prompt="[a|b|c|d] cat", negative="[x|y]"), files)
    assert len(asked) == 1 and all(word in asked[0] for word in ("a cat", "d cat", "x", "y"))


def test_only_what_lacks_a_part_is_lent_one(files):
    (only,) = plan(resolved(model="unet"), files).stages
    assert only.lenders == (files.models["whole"],)


def test_embeddings_come_with_the_words_that_may_mean_them(files):
    (only,) = plan(resolved(prompt="a glow", negative="light/glow"), files).stages
    (use,) = only.embeddings
    assert use.file == files.embeddings["glow"] and use.forms == ("glow", "light/glow")
    assert use.forms_in("A GLOW") == ["glow"]


def test_embeddings_come_in_the_order_of_their_files_whichever_is_named_first(files):
    (only,) = plan(resolved(prompt="a shade", negative="glow, shade"), files).stages
    assert [use.file.name for use in only.embeddings] == ["glow", "shade"]


@pytest.mark.parametrize("text", ["ink:0.8", "ink:-1", "ink:0.5:0.25"])
def test_a_lora_in_use_is_written_as_in_a_request(files, text):
    (only,) = plan(resolved(loras=(text,)), files).stages
    assert str(only.loras[0]) == text == str(LoraRef.model_validate(text))


def test_what_people_should_know_is_said_once(files):
    order = plan(resolved(vae="fine", negative="ugly", guidance=1, reuse=2), files)
    doubt, approximate, useless = order.warnings
    assert "2 files are called “fine”" in doubt
    assert approximate == "Approximate: step caching every 2 steps."
    assert useless == "A negative prompt has no effect at guidance 1."


def test_an_order_is_plain_data(files):
    init = Init(image=PilImages.new("RGB", (64, 64), "red"), mask=PilImages.new("L", (64, 64), 255))
    order = plan(resolved(refiner="refiner", vae="fine", init=init, loras=(LoraRef(name="ink"),)), files)
    again = pickle.loads(pickle.dumps(order))
    assert again == order and hash(again.stages) == hash(order.stages)
