"""A1111's bodies and answers as values, without a server."""

import base64
import io
import json

import pytest
from PIL import Image as PilImages

from webui.core import a1111
from webui.core.a1111 import NotFound, Options, read_options, read_request
from webui.core.checkpoint import Checkpoint
from webui.core.events import Image, Loading, Step
from webui.core.executor import Catalog
from webui.core.library import DEMO_MODEL, ModelFile, VaeFile, find_models
from webui.core.recipe import Recipe
from webui.core.request import Request, RequestError
from webui.core.settings import Settings

SAMPLERS = {"DPM++ 2M": ("Default", "Karras"), "Euler a": ("Default",)}
FIELDS_OF_A_CLIENT = {  # what webuiapi sends besides, with its defaults
    "enable_hr": False,
    "hr_upscaler": "Latent",
    "firstphase_width": 0,
    "styles": [],
    "subseed": -1,
    "subseed_strength": 0.0,
    "seed_resize_from_h": 0,
    "restore_faces": False,
    "eta": 1.0,
    "s_churn": 0,
    "script_name": None,
    "script_args": [],
    "alwayson_scripts": {},
    "override_settings": {},
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Checkpoint:
    found = find_models(Settings(data_dir=tmp_path_factory.mktemp("data")))["demo"].checkpoint
    assert found
    return found


@pytest.fixture
def catalog(tmp_path, checkpoint) -> Catalog:
    models = {"demo": ModelFile("demo", DEMO_MODEL, checkpoint)}
    for name in ("v1-5", "sub/v1-5", "broken"):
        path = tmp_path / f"{name}.safetensors"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
        models[name] = ModelFile(name, path, None if name == "broken" else checkpoint)
    return Catalog(models, {}, {"soft": VaeFile("soft", tmp_path / "soft.pt")}, {}, SAMPLERS)


def as_text(image: PilImages.Image, prefix: str = "") -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return prefix + base64.b64encode(buffer.getvalue()).decode()


def read(catalog, with_picture=False, options=None, **body) -> Request:
    return read_request(body, catalog, options or Options(), with_picture)


class TestRequest:
    def test_fields_have_our_names_and_all_else_is_ignored(self, catalog):
        body = {"prompt": "a fox", "negative_prompt": "blurry", "seed": 4, "steps": 9, "cfg_scale": 6.5}
        body |= {"width": 128, "height": 64, "batch_size": 2, "n_iter": 3}
        request = read(catalog, **body, **FIELDS_OF_A_CLIENT, unheard_of={"a": 1})
        assert request.model_dump(exclude_unset=True) == {
            "prompt": "a fox",
            "negative": "blurry",
            "seed": 4,
            "steps": 9,
            "guidance": 6.5,
            "width": 128,
            "height": 64,
            "count": 2,
            "repeat": 3,
            "model": "demo",
        }

    def test_what_is_null_or_missing_is_as_if_nobody_had_asked(self, catalog):
        nothing = dict.fromkeys([*a1111.FIELDS, *a1111.REFUSED, "sampler_name", "scheduler", "alwayson_scripts"])
        assert read(catalog, **nothing) == read(catalog) == Request(model="demo")

    @pytest.mark.parametrize(
        ("names", "sampler", "schedule"),
        [
            ({"sampler_name": "DPM++ 2M Karras"}, "DPM++ 2M", "Karras"),
            ({"sampler_name": "DPM++ 2M Karras", "scheduler": "Automatic"}, "DPM++ 2M", "Karras"),
            ({"sampler_name": "DPM++ 2M", "scheduler": "Karras"}, "DPM++ 2M", "Karras"),
            ({"sampler_name": "DPM++ 2M", "scheduler": "automatic"}, "DPM++ 2M", "Default"),
            ({"sampler_name": "k_euler_a"}, "Euler a", "Default"),
            ({"sampler_index": "Euler a"}, "Euler a", "Default"),
            ({"sampler_name": "Euler a", "sampler_index": "DPM++ 2M"}, "Euler a", "Default"),
        ],
    )
    def test_samplers_by_any_of_their_names(self, catalog, names, sampler, schedule):
        request = read(catalog, **names)
        assert (request.sampler, request.schedule) == (sampler, schedule)

    @pytest.mark.parametrize(
        ("body", "reason"),
        [
            ({"cfg_scale": 99}, "cfg_scale must be at most 30, not 99"),
            ({"n_iter": 0, "batch_size": "x"}, "batch_size must be a whole number, not 'x'; n_iter must be at least 1"),
            ({"width": 63}, "width must be a multiple of 8 from 64 to 2048; near sizes: 64"),
            ({"negative_prompt": 3}, "negative_prompt must be text"),
            (
                {"scheduler": "Karras", "sampler_name": "Euler a"},
                "scheduler: 'Karras' does not go with Euler a; Default does",
            ),
            ({"refiner_checkpoint": "gone"}, "refiner_checkpoint: the model 'gone' is not here"),
            ({"enable_hr": True}, "enable_hr True is not supported here"),
            ({"restore_faces": True}, "restore_faces True is not supported here"),
            ({"tiling": True}, "tiling True"),
            ({"styles": ["ink"]}, "styles ['ink']"),
            ({"styles": 3}, "styles 3"),
            ({"subseed_strength": 0.5}, "subseed_strength 0.5"),
            ({"seed_resize_from_w": 64}, "seed_resize_from_w 64"),
            ({"script_name": "x/y plot"}, "script_name 'x/y plot'"),
            ({"alwayson_scripts": {"ControlNet": {"args": []}}}, "alwayson_scripts: there is no script 'ControlNet'"),
        ],
    )
    def test_bad_input_is_named_as_its_sender_named_it(self, catalog, body, reason):
        with pytest.raises(RequestError) as raised:
            read(catalog, **body)
        assert str(raised.value).startswith(reason) and not isinstance(raised.value, NotFound)

    def test_an_unknown_sampler_is_not_found(self, catalog):
        with pytest.raises(NotFound, match="Sampler not found: 'Oiler'"):
            read(catalog, sampler_name="Oiler")


class TestStartPicture:
    PICTURE = PilImages.new("RGB", (64, 48), "red")

    def read(self, catalog, **body) -> Request:
        return read(catalog, True, init_images=[as_text(self.PICTURE, "data:image/png;base64,")], **body)

    def test_settings_of_inpainting(self, catalog):
        mask = PilImages.new("L", (64, 48))
        mask.paste(255, (8, 8, 24, 24))
        init = self.read(
            catalog,
            mask=as_text(mask),
            denoising_strength=0.6,
            mask_blur=2,
            inpainting_fill=2,
            inpaint_full_res=True,
            inpaint_full_res_padding=16,
            inpainting_mask_invert=1,
            resize_mode=1,
        ).init
        assert init.image.tobytes() == self.PICTURE.tobytes() and init.mask.tobytes() == mask.tobytes()
        assert (init.strength, init.mask_blur, init.mask_fill, init.padding) == (0.6, 2, "noise", 16)
        assert (init.only_masked, init.invert_mask, init.resize) == (True, True, "crop and resize")

    def test_a_mask_of_another_size_is_brought_to_the_picture_s(self, catalog):
        mask = PilImages.new("L", (128, 96))
        mask.paste(255, (0, 0, 64, 96))
        init = self.read(catalog, mask=as_text(mask)).init
        assert init.mask.size == (64, 48)
        assert init.mask.getpixel((5, 20)) == 255 and init.mask.getpixel((60, 20)) == 0

    @pytest.mark.parametrize("pictures", [None, [], [""]])
    def test_no_picture_is_not_found(self, catalog, pictures):
        with pytest.raises(NotFound, match="Init image not found"):
            read(catalog, True, init_images=pictures)

    @pytest.mark.parametrize(
        ("body", "reason"),
        [
            ({"init_images": ["%%"]}, "init_images is not base64"),
            ({"init_images": [base64.b64encode(b"words").decode()]}, "init_images is not a picture"),
            ({"init_images": ["https://example.org/a.png"]}, "init_images must be a picture as base64; addresses"),
            ({"init_images": "abc"}, "init_images must be a list"),
            ({"init_images": [as_text(PICTURE)] * 2}, "init_images: 2 pictures were given; one is taken"),
            ({"mask": 3}, "mask must be a picture as base64"),
            ({"mask": "HTTP://example.org/a.png"}, "mask must be a picture as base64; addresses"),
            ({"denoising_strength": 2}, "denoising_strength must be at most 1, not 2"),
            ({"inpaint_full_res_padding": -1}, "inpaint_full_res_padding must be at least 0"),
            ({"resize_mode": 4}, "resize_mode must be a number (0 is just resize; 1 is"),
            ({"inpainting_fill": "fill"}, "inpainting_fill must be a number (0 is fill; 1 is original;"),
        ],
    )
    def test_bad_input_is_named(self, catalog, body, reason):
        with pytest.raises(RequestError) as raised:
            read(catalog, True, **({"init_images": [as_text(self.PICTURE)]} | body))
        assert str(raised.value).startswith(reason)


class TestOptions:
    @pytest.mark.parametrize(
        ("name", "found"),
        [
            ("demo", "demo"),
            ("v1-5", "v1-5"),
            ("v1-5.safetensors", "v1-5"),
            ("v1-5.safetensors [2d711642b7]", "v1-5"),
            ("sub/v1-5.safetensors", "sub/v1-5"),
            ("C:\\models\\V1-5.safetensors", "v1-5"),
            ("2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881", "v1-5"),  # of its one byte
        ],
    )
    def test_models_by_title_name_file_or_hash(self, catalog, name, found):
        assert read_options({"sd_model_checkpoint": name}, catalog, Options()).model == found

    def test_every_title_finds_its_model(self, catalog):
        titles = {a1111.title(file): name for name, file in catalog.models.items() if file.checkpoint}
        assert len(titles) == 3
        assert {a1111.find_model("x", title, catalog): title for title in titles} == {
            name: title for title, name in titles.items()
        }

    def test_all_of_it_can_be_sent_back(self, catalog):
        options = Options("sub/v1-5", "soft", 2)
        assert read_options(options.to_json(catalog) | {"further": 1}, catalog, Options()) == options
        assert read_options(Options().to_json(catalog), catalog, options) == Options()

    def test_what_is_not_named_stays(self, catalog):
        now = Options("v1-5", "soft", 2)
        assert read_options({"sd_model_checkpoint": None, "samples_format": "jpg"}, catalog, now) == now
        assert read_options({"sd_vae": "None"}, catalog, now) == Options("v1-5", "", 2)
        assert read_options({"sd_vae": "soft.pt"}, catalog, Options()) == Options(vae="soft")

    @pytest.mark.parametrize(
        ("values", "reason"),
        [
            ({"sd_model_checkpoint": "gone"}, "sd_model_checkpoint: the model 'gone' is not here"),
            ({"sd_model_checkpoint": "broken"}, "sd_model_checkpoint: the model 'broken' is not here"),
            ({"sd_model_checkpoint": ["v1-5"]}, "sd_model_checkpoint: the model"),
            ({"sd_vae": "gone"}, "sd_vae: 'gone' is not here"),
            ({"CLIP_stop_at_last_layers": 40}, "CLIP_stop_at_last_layers must be at most 12, not 40"),
            ([1], "the options must be an object"),
        ],
    )
    def test_what_is_not_here_is_named(self, catalog, values, reason):
        with pytest.raises(RequestError) as raised:
            read_options(values, catalog, Options())
        assert str(raised.value).startswith(reason)

    def test_they_hold_for_a_request(self, catalog):
        request = read(catalog, options=Options("v1-5", "soft", 2))
        assert (request.model, request.vae, request.clip_skip) == ("v1-5", "soft", 2)
        assert not {"vae", "clip_skip"} & read(catalog).model_fields_set  # so that the model's own hold


class TestAnswers:
    def test_info_has_an_entry_a_picture(self):
        request = Request(prompt="a fox", seed=5, count=2, width=64, height=64)
        pictures = [
            Image(k, PilImages.new("RGB", (64, 64)), Recipe(request.model_copy(update={"seed": 5 + k, "count": 1})))
            for k in range(2)
        ]
        found = json.loads(a1111.info(request, pictures))
        assert (found["seed"], found["all_seeds"], found["all_prompts"]) == (5, [5, 6], ["a fox"] * 2)
        assert [text.splitlines()[0] for text in found["infotexts"]] == ["a fox"] * 2
        assert json.loads(a1111.info(request, []))["all_seeds"] == []

    def test_the_echo_leaves_pictures_out_unless_they_are_wanted(self):
        body = {"prompt": "a", "init_images": ["x"], "mask": "y"}
        assert a1111.echo(body) == {"prompt": "a"}
        assert a1111.echo(body | {"include_init_images": True}) == body | {"include_init_images": True}

    def test_progress_counts_batches_and_their_steps(self):
        request = Request(repeat=3, steps=10)
        found = a1111.progress(request, Step(14, 30, 7.0), "20260101000000", waiting=2, stopped=True)
        assert (found["progress"], found["eta_relative"]) == (pytest.approx(14 / 30), pytest.approx(8.0))
        state = found["state"]
        assert (state["job_no"], state["sampling_step"], state["sampling_steps"]) == (1, 4, 10)
        assert (state["job_count"], state["interrupted"], state["job"]) == (5, True, "txt2img")
        last = a1111.progress(request, Step(30, 30, 7.0), "", 0, False)
        assert (last["progress"], last["state"]["job_no"], last["state"]["sampling_step"]) == (1.0, 2, 10)

    def test_progress_before_the_first_step_and_where_nothing_runs(self):
        loading = a1111.progress(Request(), Loading("Loading v1-5", 0.2), "", 0, False)
        assert (loading["progress"], loading["state"]["job_count"], loading["textinfo"]) == (0.0, 1, "Loading v1-5")
        idle = a1111.progress(None, None, "0", 0, False)
        assert (idle["progress"], idle["eta_relative"], idle["state"]["job_count"]) == (0.0, 0.0, 0)
