"""A1111's bodies and answers as values, without a server."""

import base64
import io
import json

import pytest
from PIL import Image as PilImages

from webui.core.catalog import Catalog
from webui.core.checkpoint import Checkpoint
from webui.core.errors import RequestError
from webui.core.files import ModelFile, VaeFile
from webui.core.groups.hires import Hires
from webui.core.groups.variation import Variation
from webui.core.request import Request
from webui.core.settings import Settings
from webui.interop.a1111 import refusals, requests
from webui.interop.a1111.requests import NotFound, Options, read_options, read_request
from webui.library.library import DEMO_MODEL, find_models

SAMPLERS = {"DPM++ 2M": ("Default", "Karras"), "Euler a": ("Default",), "DDIM": ("Default",)}
EVERY_KEY = (*requests.FIELDS, *refusals.REFUSED, "eta", "infotext", "sampler_name", "scheduler", "alwayson_scripts")
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
        broken = name == "broken"
        models[name] = ModelFile(name, path, None if broken else checkpoint, problem="is damaged" if broken else "")
    return Catalog(models, {}, {"soft": VaeFile("soft", tmp_path / "soft.pt")}, {}, SAMPLERS)


def as_text(image: PilImages.Image, prefix: str = "") -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return prefix + base64.b64encode(buffer.getvalue()).decode()


def read(catalog, with_picture=False, options=None, **body) -> Request:
    return read_request(body, catalog, options or Options(), with_picture).request


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
        nothing = dict.fromkeys(EVERY_KEY)
        assert read(catalog, **nothing) == read(catalog) == Request(model="demo")

    def test_so_is_what_is_empty(self, catalog):
        assert read(catalog, **dict.fromkeys(EVERY_KEY, "")) == Request(model="demo", prompt="", negative="")
        assert read(catalog, refiner_checkpoint="none") == Request(model="demo")
        assert read(catalog, styles=[""], alwayson_scripts=[], override_settings="") == Request(model="demo")

    def test_numbers_and_truth_values_may_be_text(self, catalog):
        body = {"steps": "9", "seed": "4", "cfg_scale": "6.5", "width": "128", "batch_size": "2"}
        off = dict.fromkeys(("restore_faces", "tiling", "disable_extra_networks"), "false")
        request = read(catalog, **body, **off, subseed_strength="0.0", s_noise="1", s_tmax="inf")
        assert (request.steps, request.seed, request.guidance, request.width, request.count) == (9, 4, 6.5, 128, 2)
        assert read(catalog, **body, enable_hr="false", hr_scale="3").hires is None
        assert read(catalog, **body, enable_hr="true", hr_scale="3").hires == Hires(scale=3)

    def test_the_second_pass_has_our_names(self, catalog):
        body = {
            "enable_hr": True,
            "hr_scale": 1.5,
            "hr_resize_x": 0,
            "hr_resize_y": 640,
            "hr_upscaler": "Latent (nearest-exact)",
            "hr_second_pass_steps": 7,
            "denoising_strength": 0.4,
            "hr_checkpoint_name": "v1-5.safetensors",
            "hr_sampler_name": "DPM++ 2M Karras",
            "hr_prompt": "a dog <lora:a:1>",
            "hr_negative_prompt": "red",
            "hr_cfg": 3,
        }
        request = read(catalog, **body)
        assert request.init is None and request.hires == Hires(
            scale=1.5,
            height=640,
            upscaler="Latent (nearest-exact)",
            steps=7,
            strength=0.4,
            model="v1-5",
            sampler="DPM++ 2M",
            schedule="Karras",
            prompt="a dog <lora:a:1>",
            negative="red",
            guidance=3,
        )
        same = {
            "hr_checkpoint_name": "Use same checkpoint",
            "hr_sampler_name": "Use same sampler",
            "hr_upscaler": "None",
        }
        same |= {"hr_scheduler": "Use same scheduler", "hr_prompt": "", "hr_second_pass_steps": 0, "hr_resize_x": 0}
        assert read(catalog, enable_hr=True, **same).hires == Hires(upscaler="Lanczos")
        own = read(catalog, enable_hr=True, sampler_name="DPM++ 2M", hr_scheduler="karras").hires
        assert (own.sampler, own.schedule) == ("", "Karras")

    def test_a_text_that_says_a_second_pass_is_overruled(self, catalog):
        told = "a cat\nSteps: 9, Sampler: DDIM, Seed: 3, Size: 64x64, Hires upscale: 2, Hires upscaler: Latent"
        assert read(catalog, infotext=told).hires == Hires(upscaler="Latent")
        assert read(catalog, infotext=told, enable_hr=False).hires is None

    def test_a_variation_is_drawn_and_off_at_strength_0(self, catalog):
        varied = read(catalog, seed=4, subseed="9", subseed_strength="0.25").variation
        assert varied == Variation(seed=9, strength=0.25)
        assert read(catalog, subseed_strength=0.25).variation == Variation(strength=0.25)
        assert read(catalog, subseed=9).variation is None
        told = "a fox\nSteps: 3, Seed: 987, Variation seed: 12, Variation seed strength: 0.5, Size: 128x64"
        assert read(catalog, infotext=told).variation == Variation(seed=12, strength=0.5)
        assert read(catalog, infotext=told, subseed=3).variation == Variation(seed=3, strength=0.5)
        assert read(catalog, infotext=told, subseed_strength=0).variation is None

    def test_a_schedule_alone_is_that_of_the_model_s_sampler(self, catalog):
        request = read(catalog, scheduler="karras")
        assert (request.sampler, request.schedule) == ("DPM++ 2M", "Karras")
        with pytest.raises(RequestError, match="scheduler: “Polyexponential” is not known here"):
            read(catalog, scheduler="Polyexponential")

    def test_an_eta_of_a_sampler_that_has_none_is_nothing(self, catalog):
        assert read(catalog, sampler_name="DPM++ 2M", eta=0.3) == read(catalog, sampler_name="DPM++ 2M")
        assert read(catalog, sampler_name="DDIM", eta="0") == read(catalog, sampler_name="DDIM")

    def test_the_eta_that_clients_send_unasked_is_drawn_without_and_told(self, catalog):
        asked = read_request({"sampler_name": "DDIM", "eta": 1.0}, catalog, Options(), False)
        assert asked.comments == ("eta: DDIM is drawn here with 0",)

    def test_an_infotext_says_what_no_key_says(self, catalog):
        text = (
            "a fox\nNegative prompt: fog\nSteps: 3, Sampler: Euler a, CFG scale: 6.5, Seed: 987, Size: 128x64, Ink: 3"
        )
        asked = read_request({"infotext": text, "seed": 4}, catalog, Options(), False)
        request = asked.request
        assert (request.prompt, request.negative, request.sampler) == ("a fox", "fog", "Euler a")
        assert (request.steps, request.guidance, request.seed, request.width, request.height) == (3, 6.5, 4, 128, 64)
        assert asked.comments == ("infotext: Ink: 3",)
        with pytest.raises(RequestError, match="infotext"):
            read(catalog, infotext=3)

    def test_tags_are_left_out_of_a_prompt_by_their_sender(self, catalog):
        assert read(catalog, prompt="a fox", disable_extra_networks=True).prompt == "a fox"
        with pytest.raises(RequestError, match="disable_extra_networks is not supported here with a LoRA's tag"):
            read(catalog, prompt="a fox <lora:ink:1>", disable_extra_networks=True)

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
            ({"width": 63}, "width must be a multiple of 8 from 64 to 2048, such as 64"),
            ({"negative_prompt": 3}, "negative_prompt must be text"),
            (
                {"scheduler": "Karras", "sampler_name": "Euler a"},
                "scheduler: “Karras” does not go with Euler a; Default does",
            ),
            ({"refiner_checkpoint": "gone"}, "refiner_checkpoint: the model “gone” is not here"),
            ({"enable_hr": True, "hr_scale": 0.5}, "hr_scale must be at least 1"),
            ({"enable_hr": True, "denoising_strength": 2}, "denoising_strength must be at most 1"),
            ({"enable_hr": True, "hr_checkpoint_name": "gone"}, "hr_checkpoint_name: the model “gone” is not here"),
            ({"enable_hr": True, "hr_sampler_name": "gone"}, "hr_sampler_name: “gone” is not known here"),
            ({"enable_hr": True, "hr_scheduler": "gone"}, "hr_scheduler: “gone” is not known here"),
            ({"restore_faces": True}, "restore_faces True is not supported here"),
            ({"tiling": True}, "tiling True"),
            ({"s_churn": 3}, "s_churn 3 is not supported here"),
            ({"s_noise": "0.5"}, "s_noise '0.5' is not"),
            ({"s_tmin": 1}, "s_tmin 1"),
            ({"s_tmax": 9}, "s_tmax 9"),
            ({"s_min_uncond": 0.1}, "s_min_uncond 0.1"),
            ({"initial_noise_multiplier": 0.5}, "initial_noise_multiplier 0.5"),
            ({"subseed_strength": "x"}, "subseed_strength must be a number, not 'x'"),
            ({"subseed_strength": 0.5, "subseed": -2}, "subseed must be at least -1, not -2"),
            ({"sampler_name": "Euler a", "eta": 0}, "eta 0 is not supported here with Euler a; 1 is"),
            ({"sampler_name": "DDIM", "eta": 0.9}, "eta 0.9 is not supported here with DDIM; 0 is"),
            ({"unheard_of": {"a": ["\ud800"]}}, "unheard_of is not valid Unicode text: '\\ud800'"),
            ({"unheard_of": json.loads("[" * 500 + "]" * 500)}, "unheard_of has more than 100 levels"),
            ({"unheard_of": json.loads('{"a":' * 500 + "1" + "}" * 500)}, "unheard_of has more than 100 levels"),
            ({"unheard_of": [10**30]}, "unheard_of holds a number of 100 bits"),
            ({"\ud800": 1}, "body is not valid Unicode text"),
            ({"subseed_strength": 1.5}, "subseed_strength must be at most 1, not 1.5"),
            ({"seed_resize_from_w": 64}, "seed_resize_from_w 64"),
            ({"script_name": "x/y plot"}, "script_name 'x/y plot'"),
            ({"alwayson_scripts": {"Roop": {"args": []}}}, "alwayson_scripts: there is no script 'Roop'"),
            ({"alwayson_scripts": "ControlNet"}, "alwayson_scripts must be an object of scripts"),
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

    def test_soft_inpainting_as_clients_send_it(self, catalog):
        def asked(args, name="Soft Inpainting"):
            body = {"init_images": [as_text(self.PICTURE)], "alwayson_scripts": {name: args}}
            return read_request(body, catalog, Options(), True)

        plain = asked({"args": [True, 1, 0.5, 4, 0, 0.5, 2]})
        assert (plain.request.init.softness, plain.comments) == (0.5, ())
        named = {
            "Soft inpainting": True,
            "Schedule bias": 2,
            "Preservation strength": 8,
            "Transition contrast boost": 4,
        }
        strong = asked({"args": named}, "soft inpainting")
        assert (strong.request.init.softness, strong.comments) == (
            1.0,
            ("soft inpainting: Schedule bias has no effect here",),
        )
        assert asked({"args": [False, 1, 9]}).request.init.softness == asked({}).request.init.softness == 0.0
        for args in ([True, "much"], [True] * 8, "on", [True, 1, -1]):
            with pytest.raises(RequestError, match="alwayson_scripts: soft inpainting: "):
                asked({"args": args})

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
        assert (
            init
            == self.read(
                catalog,
                mask=as_text(mask),
                denoising_strength="0.6",
                mask_blur_x="2",
                mask_blur_y=2,
                inpainting_fill="2",
                inpaint_full_res="true",
                inpaint_full_res_padding="16",
                inpainting_mask_invert="1",
                resize_mode="1",
            ).init
        )
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
            ({"inpaint_full_res": 2}, "inpaint_full_res must be true or false, not 2"),
            ({"inpaint_full_res_padding": -1}, "inpaint_full_res_padding must be at least 0"),
            ({"mask_blur_x": 16}, "mask_blur_x and mask_blur_y must be equal here"),
            ({"latent_mask": "abc"}, "latent_mask 'abc' is not supported here"),
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
        titles = {requests.title(file): name for name, file in catalog.models.items() if file.checkpoint}
        assert len(titles) == 3
        assert {requests.find_model("x", title, catalog): title for title in titles} == {
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
            ({"sd_model_checkpoint": "gone"}, "sd_model_checkpoint: the model “gone” is not here"),
            ({"sd_model_checkpoint": "broken"}, "sd_model_checkpoint: 'broken': broken.safetensors is damaged"),
            (
                {"sd_model_checkpoint": "broken.safetensors [0123456789]"},
                "sd_model_checkpoint: 'broken': broken.safetensors is damaged",
            ),
            ({"sd_model_checkpoint": ["v1-5"]}, "sd_model_checkpoint: the model"),
            ({"sd_vae": "gone"}, "sd_vae: “gone” is not here"),
            ({"CLIP_stop_at_last_layers": 40}, "CLIP_stop_at_last_layers must be at most 12, not 40"),
            ({"eta_noise_seed_delta": 31337}, "eta_noise_seed_delta 31337 is not supported here"),
            ({"randn_source": "NV"}, "randn_source 'NV' is not"),
            ({"emphasis": "No norm"}, "emphasis 'No norm'"),
            ({"img2img_background_color": "#ff0000"}, "img2img_background_color '#ff0000'"),
            ({"overlay_inpaint": False}, "overlay_inpaint False"),
            ({"use_old_karras_scheduler_sigmas": "true"}, "use_old_karras_scheduler_sigmas 'true'"),
            ({"sd_vae_decode_method": "TAESD"}, "sd_vae_decode_method 'TAESD'"),
            ({"beta_dist_alpha": 0.3}, "beta_dist_alpha 0.3"),
            ([1], "the options must be an object"),
        ],
    )
    def test_what_is_not_here_is_named(self, catalog, values, reason):
        with pytest.raises(RequestError) as raised:
            read_options(values, catalog, Options())
        assert str(raised.value).startswith(reason)

    def test_a1111_s_own_defaults_change_nothing(self, catalog):
        defaults = {"eta_noise_seed_delta": 0, "eta_ancestral": 1.0, "s_tmax": 0, "sd_noise_schedule": "Default"}
        defaults |= {"emphasis": "Original", "randn_source": "GPU", "uni_pc_variant": "bh1", "sd_lora": "None"}
        defaults |= {"img2img_background_color": "#FFFFFF", "overlay_inpaint": True, "inpainting_mask_weight": 1.0}
        defaults |= {"sd_vae_encode_method": "Full", "comma_padding_backtrack": 20, "beta_dist_alpha": "0.6"}
        assert read_options(defaults | {"CLIP_stop_at_last_layers": "2"}, catalog, Options()) == Options(clip_skip=2)
        assert read_options(dict.fromkeys(refusals.REFUSED_OPTIONS), catalog, Options()) == Options()

    def test_they_hold_for_a_request(self, catalog):
        request = read(catalog, options=Options("v1-5", "soft", 2))
        assert (request.model, request.vae, request.clip_skip) == ("v1-5", "soft", 2)
        assert not {"vae", "clip_skip"} & read(catalog).model_fields_set  # so that the model's own hold
