"""A1111's API, asked by a client of its own (webuiapi) and as other programs ask it."""

import base64
import io
import json
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from PIL import Image as PilImages
from PIL import ImageChops, ImageStat
from webuiapi import ADetailer, WebUIApi, raw_b64_img

from .server import ENDLESS, SMALL, Server, wait_for


@pytest.fixture
def client(server: Server) -> Iterator[WebUIApi]:
    server.settle()
    yield WebUIApi(baseurl=f"{server.url.rstrip('/')}/sdapi/v1", steps=2)
    server.settle()


def ask(server: Server, path: str, body: Any = None, client: httpx.Client | None = None) -> Any:
    method = "GET" if body is None else "POST"
    answer = (client or server.client).request(method, f"/sdapi/v1/{path}", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def read_info(answer: dict[str, Any]) -> dict[str, Any]:
    return json.loads(answer["info"])


def opened(text: str) -> PilImages.Image:
    return PilImages.open(io.BytesIO(base64.b64decode(text, validate=True)))


class Waiting:
    """A call whose answer is waited for in a thread."""

    def __init__(self, server: Server, **body: Any) -> None:
        self.body: dict[str, Any] = {}
        self._thread = threading.Thread(target=lambda: self.body.update(ask(server, "txt2img", body)))
        self._thread.start()

    def end(self) -> dict[str, Any]:
        self._thread.join(90)
        assert self.body, "there is no answer"
        return self.body


def test_a_picture_is_the_one_that_our_own_api_draws(client, server):
    saved = len(server.pictures())
    found = client.txt2img(
        prompt="a red apple <lora:blueprint:0.8>",
        negative_prompt="blurry",
        seed=7,
        cfg_scale=4,
        width=64,
        height=64,
        batch_size=2,
        n_iter=2,
        sampler_name="DPM++ 2M Karras",
    )
    assert found.info["all_seeds"] == [7, 8, 9, 10] and len(found.images) == 4
    assert (found.info["sd_model_name"], found.parameters["cfg_scale"]) == ("demo", 4)
    job = server.submit(
        prompt="a red apple",
        negative="blurry",
        loras=["blueprint:0.8"],
        seed=7,
        guidance=4,
        count=2,
        repeat=2,
        sampler="DPM++ 2M",
        schedule="Karras",
        **SMALL,
    )
    server.finish(job)
    for k, picture in enumerate(found.images):
        ours = PilImages.open(io.BytesIO(server.client.get(f"/api/jobs/{job}/images/{k}").content))
        assert picture.tobytes() == ours.tobytes() and picture.text["parameters"] == ours.text["parameters"]
        assert found.info["infotexts"][k] == picture.text["parameters"]
    assert len(server.pictures()) == saved + 4  # ours are saved, a call's only where it asks
    ask(server, "txt2img", {**SMALL, "save_images": True})
    assert len(server.pictures()) == saved + 5


def test_a_second_pass_is_the_one_that_our_own_api_draws(server):
    modes = [mode["name"] for mode in ask(server, "latent-upscale-modes")]
    assert modes[0] == "Latent" and "Latent (nearest-exact)" in modes
    fields = {"prompt": "a red apple", "steps": 2, "seed": 7, **SMALL}
    second = {"hr_scale": 1.5, "hr_upscaler": modes[2], "denoising_strength": 0.6, "hr_second_pass_steps": 4}
    found = ask(server, "txt2img", {**fields, "enable_hr": True, **second})
    picture, info = opened(found["images"][0]), read_info(found)
    hires = {"scale": 1.5, "upscaler": modes[2], "strength": 0.6, "steps": 4}
    job = server.submit(**fields, hires=hires)
    server.finish(job)
    ours = PilImages.open(io.BytesIO(server.client.get(f"/api/jobs/{job}/images/0").content))
    assert picture.size == (96, 96) and picture.tobytes() == ours.tobytes()
    assert info["denoising_strength"] == 0.6 and info["extra_generation_params"]["Hires upscaler"] == modes[2]
    assert "Denoising strength: 0.6, Hires upscale: 1.5, Hires steps: 4, " in picture.text["parameters"]


def test_what_is_not_asked_for_is_the_model_s_own_and_pictures_can_stay_away(server):
    found = ask(server, "txt2img", {"steps": 1, "send_images": False, "seed": None, "unheard_of": {}})
    assert found["images"] == [] and found["parameters"]["unheard_of"] == {}
    info = read_info(found)
    assert info["seed"] >= 0 and info["width"] == info["height"] == 128 and len(info["infotexts"]) == 1


def test_img2img_and_inpaint(client):
    start = PilImages.effect_noise((64, 64), 80).convert("RGB")
    kept = client.img2img(images=[start], denoising_strength=0, width=64, height=64)
    assert kept.image.convert("RGB").tobytes() == start.tobytes()
    mask = PilImages.new("L", (64, 64))
    mask.paste(255, (16, 16, 48, 48))
    painted = client.img2img(
        [start], mask_image=mask, mask_blur=0, inpainting_fill=1, inpaint_full_res=False, width=64, height=64, seed=3
    )
    inside, whole = painted.image.crop((20, 20, 44, 44)), start.crop((20, 20, 44, 44))
    assert inside.convert("RGB").tobytes() != whole.tobytes()
    for corner in ((0, 0, 12, 12), (52, 52, 64, 64)):
        assert painted.image.convert("RGB").crop(corner).tobytes() == start.crop(corner).tobytes()
    assert painted.info["denoising_strength"] == 0.75 and not {"mask", "init_images"} & painted.parameters.keys()


def test_a_picture_s_own_text_is_read(client, server):
    picture = client.txt2img(prompt="a fox", seed=5, width=64, height=64).image
    assert client.png_info(picture).info == picture.text["parameters"]
    found = ask(server, "png-info", {"image": raw_b64_img(picture)})
    assert found["parameters"].items() >= {"Prompt": "a fox", "Seed": 5, "Size-1": 64, "Model": "demo"}.items()


def test_adetailer_s_arguments_are_details(client):
    face = ADetailer(ad_model="demo-subject", ad_prompt="a strawberry", ad_denoising_strength=0.5, ad_confidence=0.05)
    found = client.txt2img(prompt="a red apple", seed=3, width=64, height=64, adetailer=[face])
    assert ", ADetailer model: demo-subject, ADetailer prompt: a strawberry, " in found.info["infotexts"][0]
    plain = client.txt2img(prompt="a red apple", seed=3, width=64, height=64)
    assert "ADetailer" not in plain.info["infotexts"][0] and plain.image.tobytes() != found.image.tobytes()
    with pytest.raises(RuntimeError, match=r"yolo export model=face_yolov8n\.pt format=onnx"):
        client.txt2img(prompt="a", adetailer=[ADetailer(ad_model="face_yolov8n.pt")])


def test_the_lists_that_programs_ask_for(client, server):
    scripts = ["x/y/z plot", "adetailer", "controlnet"]
    assert client.get_scripts() == {"txt2img": scripts, "img2img": [*scripts, "soft inpainting"]}
    assert client.util_get_model_names() == ["demo"]
    client.util_set_model("demo")
    assert {"Euler a", "DPM++ 2M"} <= {entry["name"] for entry in client.get_samplers()}
    assert [entry["label"] for entry in client.get_schedulers()][:2] == ["Automatic", "Karras"]
    loras = {entry["name"]: entry for entry in client.get_loras()}
    assert loras["blueprint"]["path"] == "blueprint.safetensors"  # no folder of the server's
    assert loras["blueprint"]["metadata"]["ss_base_model_version"]
    assert client.get_embeddings() == {"loaded": {}, "skipped": {}}
    assert client.get_memory()["ram"]["total"] > 2**28
    for path in ("sd-vae", "upscalers", "latent-upscale-modes", "prompt-styles"):
        assert isinstance(ask(server, path), list)
    for path in ("refresh-checkpoints", "refresh-loras", "refresh-embeddings", "skip", "interrupt", "interrupt"):
        assert ask(server, path, {}) is None


def test_styles_are_laid_around_the_prompt(server):
    styles = {style["name"]: style for style in ask(server, "prompt-styles")}
    assert styles["By night"] == {"name": "By night", "prompt": "{prompt}, night", "negative_prompt": ""}
    body = SMALL | {"prompt": "a fox", "seed": 3, "styles": ["3D style", "by night", "None", ""]}
    found = ask(server, "txt2img", body)
    assert read_info(found)["infotexts"][0].startswith("a fox, 3d style, night <lora:night:0.6>\n")
    same = SMALL | {"prompt": "a fox, 3d style, night", "seed": 3, "loras": ["night:0.6"]}
    server.finish(job := server.submit(**same))
    own = PilImages.open(io.BytesIO(server.client.get(f"/api/jobs/{job}/images/0").content))
    assert opened(found["images"][0]).tobytes() == own.tobytes()


def test_options_are_read_changed_and_sent_back_whole(server):
    """As Open WebUI does before each picture."""
    options = ask(server, "options")
    assert options["sd_model_checkpoint"] == "demo"
    assert ask(server, "options", options | {"sd_model_checkpoint": "demo", "CLIP_stop_at_last_layers": 2}) is None
    try:
        assert ask(server, "options")["CLIP_stop_at_last_layers"] == 2
        assert read_info(ask(server, "txt2img", SMALL))["clip_skip"] == 2
        overridden = {"CLIP_stop_at_last_layers": 1}
        assert read_info(ask(server, "txt2img", SMALL | {"override_settings": overridden}))["clip_skip"] == 1
        assert ask(server, "options")["CLIP_stop_at_last_layers"] == 2
        stays = {"override_settings": overridden, "override_settings_restore_afterwards": False}
        ask(server, "txt2img", SMALL | stays)
        assert ask(server, "options")["CLIP_stop_at_last_layers"] == 1
    finally:
        ask(server, "options", options)


def test_progress_is_watched_until_idle_and_interrupt_gives_what_is_there(client, server):
    """As SillyTavern does."""
    assert ask(server, "progress")["state"]["job_count"] == 0
    call = Waiting(server, prompt="a cat", n_iter=100, **(SMALL | {"steps": 20}))
    wait_for(lambda: ask(server, "progress")["state"]["job_no"] >= 1, "the second picture to be drawn")
    found = ask(server, "progress")
    assert 0 < found["progress"] < 1 and found["eta_relative"] > 0
    assert found["state"]["job_count"] == 100 and found["state"]["sampling_steps"] == 20
    preview = wait_for(lambda: ask(server, "progress")["current_image"], "a preview")
    assert opened(preview).size[0] > 0
    assert ask(server, "progress?skip_current_image=true")["current_image"] is None
    at = ask(server, "progress")["state"]["job_no"]
    assert ask(server, "skip", {}) is None
    wait_for(lambda: ask(server, "progress")["state"]["job_no"] > at + 1, "the pictures behind the one that is skipped")
    assert ask(server, "interrupt", {}) is None
    answer = call.end()
    images, info = answer["images"], read_info(answer)
    assert 1 <= len(images) <= 100 and {opened(image).size for image in images} == {(64, 64)}
    left_out = set(range(info["seed"], info["all_seeds"][-1])) - {*info["all_seeds"]}
    assert len(info["all_seeds"]) == len(images) and len(left_out) == 1
    if not opened(images[-1]).info:  # stopped between two pictures it has none that is half drawn
        assert info["comments"] == ["interrupted: what was being drawn is a coarse preview"]
    after = ask(server, "progress")
    assert after["progress"] == 0.0 and after["state"]["job_count"] == 0


def test_a_call_that_is_stopped_in_its_first_picture_gives_what_it_had_come_to(client, server):
    call = Waiting(server, prompt="a cat", batch_size=2, seed=5, width=64, height=128, steps=150)
    wait_for(lambda: ask(server, "progress")["current_image"], "a preview")
    ask(server, "interrupt", {})
    answer = call.end()
    assert [opened(image).size for image in answer["images"]] == [(64, 128)] * 2
    assert all(opened(image).convert("L").getextrema()[1] > 0 for image in answer["images"])
    assert read_info(answer)["all_seeds"] == [5, 6] and len(read_info(answer)["infotexts"]) == 2


def test_a_batch_that_is_stopped_in_its_second_pass_gives_what_the_first_has_made_of_each(client, server):
    fields = {**SMALL, "prompt": "a cat", "seed": 5, "steps": 40, "batch_size": 2}
    whole = [opened(image).convert("RGB") for image in ask(server, "txt2img", fields)["images"]]
    second = {"enable_hr": True, "hr_resize_x": 128, "hr_resize_y": 64, "hr_second_pass_steps": 150}
    call = Waiting(server, **fields, **second, hr_upscaler="Lanczos", denoising_strength=0.9)

    def is_drawn_again() -> bool:
        preview = ask(server, "progress")["current_image"]
        return bool(preview) and opened(preview).size == (16, 8)

    wait_for(is_drawn_again, "a preview of the second pass")
    ask(server, "interrupt", {})
    half = [opened(image) for image in call.end()["images"]]
    assert [image.size for image in half] == [(64, 64)] * 2
    for k in (0, 1):
        apart = [sum(ImageStat.Stat(ImageChops.difference(half[k], image)).mean) for image in whole]
        assert apart[k] < apart[1 - k] / 2


def test_a_picture_that_cannot_be_saved_is_told(start_server, tmp_path):
    server = start_server()
    (server.data_dir / "outputs").write_text("in the way")
    answer = ask(server, "txt2img", SMALL | {"save_images": "true"})
    assert len(answer["images"]) == 1
    assert "could not be saved" in read_info(answer)["comments"][0]


def test_interrupt_stops_no_other_job_and_who_goes_away_stops_their_own(client, server):
    job = server.submit(**ENDLESS)
    wait_for(lambda: server.show(job)["state"] == "running", "the job to run")
    assert ask(server, "progress")["state"]["job_count"] == 0  # it did not come through here
    ask(server, "interrupt", {})
    with pytest.raises(httpx.ReadTimeout):
        server.client.post("/sdapi/v1/txt2img", json={"steps": 150, "n_iter": 100}, timeout=0.5)
    assert server.show(job)["state"] == "running"
    server.cancel(job)
    wait_for(server.is_idle, "the call that nobody waits for to end")


REFUSED = [
    ("txt2img", {"sampler_name": "Oiler"}, 404, "Sampler not found: 'Oiler'"),
    ("txt2img", {"cfg_scale": 99}, 422, "cfg_scale must be at most 30"),
    ("txt2img", {"prompt": "<lora:nothing:1>"}, 422, "no LoRA “nothing”"),
    ("txt2img", {"negative_prompt": "7" * 4_801}, 422, "negative_prompt: it comes to more than 64 chunks"),
    ("txt2img", {"alwayson_scripts": {"Roop": {}}}, 422, "no script 'Roop'"),
    ("txt2img", {"override_settings": {"sd_model_checkpoint": "gone"}}, 422, "the model “gone” is not here"),
    ("txt2img", {"override_settings": 3}, 422, "the options must be an object"),
    ("txt2img", {"styles": ["By nihgt"]}, 422, "did you mean By night"),
    ("txt2img", {"styles": ["Flat sticker"]}, 422, "is not a style"),
    ("txt2img", [1], 422, "body"),
    ("img2img", {"init_images": None}, 404, "Init image not found"),
    ("img2img", {"init_images": ["http://127.0.0.1/x.png"]}, 422, "addresses are not fetched"),
    ("options", {"sd_model_checkpoint": "../../etc/passwd"}, 422, "is not here"),
    ("png-info", {"image": "%%%"}, 422, "image is not base64"),
    ("png-info", {"image": base64.b64encode(b"words").decode()}, 422, "image is not a picture"),
    ("png-info", {}, 422, "image must be a picture"),
    ("nothing-here", {}, 404, "POST /sdapi/v1/nothing-here is not supported here"),
    ("interrogate", {"image": ""}, 404, "interrogate is not supported here"),
    ("txt2img", {"sampler_name": "DDIM", "eta": 0.9}, 422, "eta 0.9 is not supported here with DDIM"),
    ("txt2img", {"override_settings": {"eta_noise_seed_delta": 31337}}, 422, "eta_noise_seed_delta 31337 is not"),
    ("options", {"eta_noise_seed_delta": 31337}, 422, "eta_noise_seed_delta 31337 is not"),
]


@pytest.mark.parametrize(("path", "body", "status", "reason"), REFUSED)
def test_refusals_have_a1111_s_four_keys(server, path, body, status, reason):
    answer = server.client.post(f"/sdapi/v1/{path}", json=body)
    assert answer.status_code == status, answer.text
    told = answer.json()
    assert set(told) == {"error", "detail", "body", "errors"}
    assert reason in told["detail"] == told["errors"] and "Traceback" not in answer.text
    assert server.is_idle()


def test_half_a_surrogate_pair_is_refused_before_anything_is_drawn(server):
    body = '{"steps": 1, "width": 64, "height": 64, "unheard_of": "\\ud800"}'
    answer = server.client.post("/sdapi/v1/txt2img", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422 and "unheard_of is not valid Unicode" in answer.json()["detail"]


def test_strangers_neither_see_nor_stop_nor_steer_each_other(start_server):
    server = start_server("--host", "0.0.0.0", "--no-auth")
    call = Waiting(server, prompt="mine", n_iter=8, **(SMALL | {"steps": 8}))
    wait_for(lambda: server.health()["running"], "the call to run")
    stranger = server.visitor()
    found = ask(server, "progress", client=stranger)
    assert found["state"]["job_count"] == 0 and found["current_image"] is None
    ask(server, "interrupt", {}, stranger)
    options = ask(server, "options")
    changed = options | {"CLIP_stop_at_last_layers": 2}
    ask(server, "options", changed, stranger)
    assert ask(server, "options", client=stranger) == changed  # their own
    override = {"override_settings": options, "override_settings_restore_afterwards": False}
    ask(server, "txt2img", SMALL | override, stranger)
    assert ask(server, "options") == options
    assert len(call.end()["images"]) == 8
