"""Prompts and LoRAs that change over the steps, several prompts in one: as by hand, in halves and with stock parts."""

import inspect
import json
import shutil

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image as PilImages
from safetensors.torch import save_file

from webui.core.errors import RequestError
from webui.core.events import Image, Loading, Step
from webui.core.groups.init import Init
from webui.core.recipe import Recipe
from webui.core.request import LoraRef
from webui.core.samplers import SAMPLERS
from webui.engine.cpu import conv
from webui.engine.decode import decode
from webui.engine.denoise import ReadySpan, denoise
from webui.engine.guide import Branch
from webui.engine.latents import make_draw, make_generators, prepare
from webui.engine.lora.switcher import LoraSwitcher
from webui.engine.noise import make_noise
from webui.library.library import DEMO_MODEL

pytestmark = pytest.mark.filterwarnings("ignore:The configuration file of this scheduler:FutureWarning")

SEED, STEPS, SIDE_PX, GUIDANCE = 11, 6, 64, 5.0
APPLE, CAR = "a red apple, flat style", "a blue car, flat style"
SORTS = ["Euler", "DPM++ 2M", "Heun", "Euler a", "DPM++ SDE", "PNDM"]
"""Single step, multistep, second order, stochastic, both, and one with an evaluation more than steps."""

WAYS = ("Euler a", "Heun", "DPM2", "PNDM", "DPM++ SDE", "LCM")
"""The first of each way of stepping; which networks are asked does not depend on the others."""
OTHERS = [pytest.param(sampler, marks=pytest.mark.slow) for sampler in SAMPLERS if sampler not in WAYS]


@pytest.fixture(autouse=True)
def _plain(darkroom):
    yield
    darkroom.manager._residence.loras.switch(())


@pytest.fixture
def fresh(darkroom, model):
    """``fresh(budget_bytes)``: nothing is known of prompts and LoRAs; called once already, with room enough."""

    def fresh(budget_bytes=None):
        darkroom.manager._residence.loras.switch(())
        darkroom.manager._residence._resident.loras = LoraSwitcher(model, darkroom.manager.device, budget_bytes)
        darkroom.manager._encoder.clear()

    fresh()
    yield fresh
    fresh()


@pytest.fixture
def picture(run):
    """``picture(prompt=..., ...)``: the one picture of a small job."""

    def picture(**fields):
        (image,) = (event for event in run(**fields) if isinstance(event, Image))
        return image

    return picture


@pytest.fixture
def halves(darkroom, model, request_for):
    """``halves(sampler, one, other, at)``: a picture of two runs, the second going on with the latents of the first;
    each is told its own fields of a request."""

    @torch.inference_mode()
    def halves(sampler, one, other, at=STEPS // 2):
        device, switcher = darkroom.manager.device, darkroom.manager._residence.loras
        generators = make_generators([SEED])
        noise = make_noise(sampler, "Default", model.scheduler_config, "auto", STEPS, 1.0, generators, device)
        latents, first = prepare(model, noise, (SIDE_PX, SIDE_PX), make_draw(generators), device).latents, 0
        for fields, step in ((one, at), (other, STEPS)):
            switcher.switch(darkroom.plan(request_for(loras=fields.get("loras", ()))).stages[0].loras)
            words, negative = (
                model.condition(
                    model.encode_prompt(fields.get(field, ""), 1, {}, field == "negative"), (64, 64), GUIDANCE, False
                )
                for field in ("prompt", "negative")
            )
            spans = [ReadySpan(len(noise), [Branch(words)], negative, GUIDANCE)]
            for done in denoise(model.backbone, noise, latents, spans, lambda: False, first, noise.first(step)):
                latents = done.latents
            first = noise.first(step)
        return decode(model, latents, darkroom.manager._residence.unhooked)

    return halves


@pytest.fixture
def by_hand(stock_parts, device):
    """``by_hand(sampler, said)``: a loop over diffusers' own parts; ``said(step)`` are (text, weight) pairs."""

    def encode(text):
        tokenizer, encoder = stock_parts["tokenizer"], stock_parts["text_encoder"]
        ids = tokenizer(
            text, padding="max_length", max_length=tokenizer.model_max_length, return_tensors="pt"
        ).input_ids
        return encoder(ids.to(device))[0]

    @torch.inference_mode()
    def draw(sampler, said, negative=lambda step: "", guidance=GUIDANCE):
        row = SAMPLERS[sampler]
        config = json.loads((DEMO_MODEL / "scheduler/scheduler_config.json").read_text("utf-8"))
        scheduler = getattr(diffusers, row.scheduler).from_config(config, **row.config)
        scheduler.set_timesteps(STEPS, device=device)
        generator, vae, unet = torch.Generator().manual_seed(SEED), stock_parts["vae"], stock_parts["unet"]
        side = SIDE_PX // 2 ** (len(vae.config.block_out_channels) - 1)
        latents = torch.randn(1, 4, side, side, generator=generator).to(device) * scheduler.init_noise_sigma
        extra = {"generator": generator} if "generator" in inspect.signature(scheduler.step).parameters else {}
        further = max(0, len(scheduler.timesteps) - STEPS * scheduler.order)
        for index, timestep in enumerate(scheduler.timesteps):
            step = max(0, index - further) // scheduler.order
            seen = scheduler.scale_model_input(latents, timestep)
            without = unet(seen, timestep, encode(negative(step))).sample
            output = without.clone()
            for text, weight in said(step):
                output += weight * guidance * (unet(seen, timestep, encode(text)).sample - without)
            latents = scheduler.step(output, timestep, latents, **extra).prev_sample
        drawn = vae.decode(latents / vae.config.scaling_factor).sample
        return ((drawn[0] / 2 + 0.5).clamp(0, 1) * 255).round().permute(1, 2, 0).cpu().numpy().astype(np.int16)

    return draw


def assert_same(ours, theirs):
    """Within 1 of 255 levels, and no picture of one colour."""
    mine = np.asarray(ours.image).astype(np.int16)
    assert abs(mine - theirs).max() <= 1 and mine.std() > 1


@pytest.mark.parametrize("sampler", SORTS)
class TestAgainstStockParts:
    def test_a_prompt_that_changes(self, picture, by_hand, sampler):
        ours = picture(sampler=sampler, prompt="a [red apple:blue car:0.5], flat style")
        assert_same(ours, by_hand(sampler, lambda step: [(APPLE if step < 3 else CAR, 1.0)]))

    def test_words_that_take_turns(self, picture, by_hand, sampler):
        ours = picture(sampler=sampler, prompt="a [red apple|blue car], flat style")
        assert_same(ours, by_hand(sampler, lambda step: [((APPLE, CAR)[step % 2], 1.0)]))

    def test_several_prompts_and_a_negative_one_that_changes(self, picture, by_hand, sampler):
        ours = picture(sampler=sampler, prompt=f"{APPLE} AND {CAR} :0.6", negative="[blurry::2]")
        negative = lambda step: "blurry" if step < 2 else ""  # noqa: E731
        assert_same(ours, by_hand(sampler, lambda step: [(APPLE, 1.0), (CAR, 0.6)], negative))


def test_several_prompts_at_guidance_1_are_guided_still(picture, by_hand):
    ours = picture(sampler="Euler", prompt=f"{APPLE} AND {CAR} :0.6", guidance=1)
    assert_same(ours, by_hand("Euler", lambda step: [(APPLE, 1.0), (CAR, 0.6)], guidance=1.0))


@pytest.mark.parametrize("sampler", [*WAYS, *OTHERS])
def test_a_prompt_that_changes_is_two_halves(picture, halves, sampler):
    whole = picture(sampler=sampler, prompt="a [red apple:blue car:0.5], flat style").image
    assert whole.tobytes() == halves(sampler, {"prompt": APPLE}, {"prompt": CAR}).tobytes()
    assert whole.tobytes() != picture(sampler=sampler, prompt=APPLE).image.tobytes()


@pytest.mark.parametrize(
    "sampler", [pytest.param(s, marks=pytest.mark.slow if s in ("DPM2", "LCM") else ()) for s in WAYS] + OTHERS
)
def test_a_lora_that_changes_is_two_halves_and_leaves_the_base_as_it_is(picture, halves, model, sampler):
    base = [parameter.clone() for part in model.components.values() for parameter in part.parameters()]
    points = LoraRef.model_validate("night:1@0;1@0.5;0.4@0.5")
    whole = picture(sampler=sampler, prompt=APPLE, loras=[points, LoraRef(name="blueprint", weight=0.3)]).image
    one, other = (
        {"prompt": APPLE, "loras": [LoraRef(name="night", weight=weight), LoraRef(name="blueprint", weight=0.3)]}
        for weight in (1.0, 0.4)
    )
    assert whole.tobytes() == halves(sampler, one, other).tobytes()
    assert whole.tobytes() != picture(sampler=sampler, **one).image.tobytes()
    picture(sampler=sampler, prompt=APPLE)
    after = [parameter for part in model.components.values() for parameter in part.parameters()]
    assert all(map(torch.equal, base, after))


def test_a_lora_in_a_bracket_acts_while_its_words_are_said(picture, halves):
    whole = picture(sampler="DPM++ 2M", prompt=f"{APPLE}[<lora:night:1>::0.34]").image
    one = {"prompt": APPLE, "loras": [LoraRef(name="night")]}
    assert whole.tobytes() == halves("DPM++ 2M", one, {"prompt": APPLE}, 2).tobytes()
    turns = picture(sampler="DPM++ 2M", prompt=f"{APPLE}[<lora:night:1>|<lora:sepia:0.5>]").image
    assert turns.tobytes() != whole.tobytes()


def test_a_lora_from_start_to_end_is_the_same_as_points(picture):
    told = [picture(prompt=f"{APPLE} <lora:night:{weights}>") for weights in ("1:start=0:end=0.5", "1@0,1@0.5,0@0.5")]
    assert told[0].image.tobytes() == told[1].image.tobytes()
    assert told[0].recipe.request.loras == (LoraRef(name="night", weight=((0, 1), (0.5, 1), (0.5, 0))),)


@pytest.mark.parametrize(
    ("weights", "encoded"), [("te=1@0,1@0.5,0@0.5:unet=1", 4), ("te=1:unet=1@0,1@0.5,0@0.5", 2), ("1@0,1@0.5,0@0.5", 4)]
)
def test_prompts_are_encoded_anew_for_what_changes_the_text_encoder(picture, encoded_prompts, fresh, weights, encoded):
    picture(prompt=APPLE, loras=[LoraRef.model_validate(f"night:{weights}")])
    assert len(encoded_prompts) == encoded  # each time the prompt and the negative one


def test_a_job_can_be_stopped_between_the_texts_that_it_encodes(darkroom, encoded_prompts, request_for):
    changing = request_for(prompt="[first|second|third] words of a job that is stopped", steps=3)
    events = list(darkroom.generate(changing, lambda: bool(encoded_prompts)))
    assert type(events[-1]).__name__ == "Cancelled" and len(encoded_prompts) <= 2


def test_half_of_the_steps_from_a_picture_is_half_of_those_that_are_taken(picture):
    start = Init(image=PilImages.linear_gradient("L").resize((SIDE_PX, SIDE_PX)), strength=0.5)
    drawn = [
        picture(prompt=f"a [red apple:blue car:{when}], flat style", steps=8, init=start).pixels_sha256
        for when in ("0.5", "2", "0.25", "4")
    ]
    assert drawn[0] == drawn[1] and len({*drawn}) == 3


def test_a_second_pass_goes_on_where_the_first_one_was(picture):
    fields = {"prompt": "a [red apple|blue car], flat style", "loras": [LoraRef.model_validate("night:1@0;0@1")]}
    whole = picture(sampler="Euler", **fields)
    handed = picture(sampler="Euler", refiner="demo", refiner_at=0.5, **fields)
    assert handed.pixels_sha256 == whole.pixels_sha256


@pytest.mark.parametrize("fields", [{"count": 2}, {"repeat": 2}, {"guidance_until": 0.5}, {"reuse": 2}])
def test_all_else_goes_on_beside_it(run, fields):
    one = {"prompt": f"{APPLE} AND [{CAR}:a panda:0.5] :0.7 [<lora:night:1>::0.5]", "negative": "[blurry|grey]"}
    first, again = ([event.pixels_sha256 for event in run(**one, **fields) if isinstance(event, Image)] for _ in "ab")
    assert first == again and len({*first}) == fields.get("count", fields.get("repeat", 1))


def test_a_prompt_that_counts_nothing_is_not_there(picture):
    for text in (f"{APPLE} AND {CAR}:0", f"{CAR}:0 AND {APPLE}"):
        assert picture(prompt=text).image.tobytes() == picture(prompt=APPLE).image.tobytes()


def test_a_recipe_with_marks_draws_the_same_again_and_one_of_words_its_words(darkroom, picture, halves):
    prompt = "a [red apple:blue car:0.5] AND (flat style:1.2) :0.5"
    first = picture(prompt=prompt, negative="[blurry|grey]", loras=[LoraRef.model_validate("night:1@0;0@1")])
    recipe = Recipe.from_json(first.recipe.to_json())
    (again,) = (event for event in darkroom.generate(recipe.drawn_as()) if isinstance(event, Image))
    assert again.pixels_sha256 == first.pixels_sha256 and '"schema": 2' in first.recipe.to_json()
    words = "a [red apple:blue car:0.5], flat style"
    plain = picture(sampler="Euler", prompt=words, syntax=1)
    assert plain.image.tobytes() == halves("Euler", {"prompt": words}, {"prompt": words}).tobytes()
    assert plain.recipe.request.prompt == words and '"schema": 1' in plain.recipe.to_json()


def test_all_sets_are_merged_before_the_first_step(run, fresh):
    events = run(prompt=APPLE, loras=[LoraRef.model_validate("night:1@0,0.5@1")])
    kinds = [type(event).__name__ for event in events]
    assert kinds.count("Loading") == STEPS and "Loading" not in kinds[kinds.index("Step") :]
    assert events[-1].warnings == ()


@pytest.mark.parametrize(
    ("prompt", "merges"),
    [(f"{APPLE} <lora:night:1@0,0.5@1>", "6 merges"), (f"{APPLE} [<lora:night:1>|<lora:sepia:1>]", "6 merges"),
     (f"{APPLE} [<lora:night:1>::0.5]", "1 merge")],
)  # fmt: skip
def test_what_sets_that_do_not_fit_will_cost_is_said_before_the_first_step(run, picture, fresh, prompt, merges):
    whole = picture(prompt=prompt)
    fresh(1)
    events = run(prompt=prompt, repeat=2)
    text = "The memory for LoRAs (--lora-cache) is too small for all sets of this job"
    text += f": {merges} in the middle of each picture."
    first = next(k for k, event in enumerate(events) if isinstance(event, Step))
    said = [k for k, event in enumerate(events) if isinstance(event, Loading) and event.what == text]
    assert len(said) == 1 and said[0] < first and text in events[-1].warnings
    assert next(event for event in events if isinstance(event, Image)).pixels_sha256 == whole.pixels_sha256
    steps = [event for event in events[first:] if isinstance(event, Step | Image)]
    assert len(steps) == 2 * (STEPS + 1)


@pytest.mark.parametrize(("budget_bytes", "inside"), [(None, False), (1, True)], ids=["all fit", "merged again"])
@pytest.mark.parametrize("prompt", [f"{APPLE} <lora:sepia:1@0,1@0.5,0@0.5>", f"{APPLE} [a|b] [<lora:night:1>|]"])
def test_nothing_is_prepared_between_steps(
    darkroom, model, request_for, fresh, monkeypatch, prompt, budget_bytes, inside
):
    fresh(budget_bytes)
    happened, own = [], model.backbone.prepare
    monkeypatch.setattr(model.backbone, "prepare", lambda *told: happened.append("prepare") or own(*told))
    for event in darkroom.generate(request_for(prompt=prompt, guidance_until=0.7)):
        happened.append(type(event).__name__)
    assert happened.count("prepare") >= 3
    assert ("prepare" in happened[happened.index("Step") :]) is inside


@pytest.mark.skipif(not conv.convolves(torch.float32), reason="oneDNN does not convolve here")
def test_no_step_with_a_change_orders_a_convolution(darkroom, model, request_for, fresh, monkeypatch, random_lora):
    if darkroom.manager.device.type != "cpu":
        pytest.skip("only convolutions on a CPU are put in order")
    folder, pack, happened = darkroom.settings.data_dir / "models/Lora", conv._pack, []
    folder.mkdir(parents=True)
    save_file(random_lora({"backbone": model.network}, 5, "conv1|conv_out"), folder / "convolved.safetensors")
    monkeypatch.setattr(conv, "_pack", lambda *given: happened.append("order") or pack(*given))
    lora, drawn = LoraRef.model_validate("convolved:1@0,1@0.5,0.6@0.5,0.6@0.8,0@0.8"), []

    def orders(budget_bytes=None, **fields):
        """Of a first picture: those before the first step, and those in steps."""
        fresh(budget_bytes)
        happened.clear()
        for event in darkroom.generate(request_for(loras=[lora], **fields)):
            happened.append(type(event).__name__)
            if isinstance(event, Image):
                drawn.append(event.pixels_sha256)
        first, last = happened.index("Step"), len(happened) - happened[::-1].index("Step")
        assert event.warnings == () and "Loading" in happened[: happened.index("order")]
        return happened[:first].count("order"), happened[first:last].count("order")

    try:
        for fields in ({}, {"width": 96, "count": 2}, {"guidance": 1}):
            before, inside = orders(**fields)
            assert before > 30 and inside == 0
        before, inside = orders()
        assert before > 30 and inside == 0
        before, inside = orders(40 * 2**20)  # the sets have room, their ordered copies not all
        assert inside > 10 and drawn[-1] == drawn[-2] == drawn[0]
    finally:
        shutil.rmtree(folder)


def test_a_lora_that_is_exchanged_while_it_is_drawn_with_is_said(darkroom, request_for):
    file = darkroom.settings.data_dir / "models/Lora/mine.safetensors"
    file.parent.mkdir(parents=True)
    shutil.copy(DEMO_MODEL / "loras/night.safetensors", file)
    try:
        with pytest.raises(RequestError, match="^LoRA mine: a file was changed while it was drawn with; ask again$"):
            for event in darkroom.generate(request_for(prompt="a [:<lora:mine:1>:2] cat")):
                if isinstance(event, Step):
                    shutil.copy(DEMO_MODEL / "loras/sepia.safetensors", file)
    finally:
        shutil.rmtree(file.parent)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompt": "a [<lora:nowhere:1>::0.5]"}, "“nowhere”"),
        ({"prompt": "a [<lora:night:strong>::0.5]"}, "<lora:night:strong> cannot be read"),
        ({"prompt": "a <lora:night:1@0,x@1>"}, "<lora:night:1@0,x@1> cannot be read"),
        ({"negative": "[<lora:night:1>::0.5]"}, "negative: a LoRA acts on the whole picture"),
    ],
)
def test_what_cannot_be_drawn_is_refused_by_name(darkroom, request_for, fields, message):
    with pytest.raises(RequestError, match=message):
        darkroom.plan(request_for(**fields))
