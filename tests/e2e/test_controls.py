"""Controls as people use them: a picture chosen, its map seen, drawn with, reused; what is wrong is said at its field.
Over HTTP the same."""

import base64
import json
import shutil

import pytest
import torch
from PIL import Image as PilImages
from PIL import ImageDraw
from safetensors.torch import save_file

from webui.engine.nets.t2i_adapter import T2IAdapter

from .server import run_here
from .start_pictures import PASTE, png

QUICK = {"steps": 2, "width": 64, "height": 64}
CONFIG = {"channels": [64, 160, 224], "num_res_blocks": 1, "downscale_factor": 16, "adapter_type": "full_adapter_xl"}
MADE_FOR = {"modelspec.architecture": "darkroom-demo/t2i-adapter"}


@pytest.fixture(scope="module", autouse=True)
def adapter(host):
    """A T2I-Adapter for the embedded model: random, and strong enough to be seen."""
    folder = host.data_dir / "models" / "ControlNet" / "lines"
    folder.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        state = T2IAdapter(CONFIG).state_dict()
    tensors = {f"adapter.{name}": 3 * tensor.contiguous() for name, tensor in state.items()}
    save_file(tensors, folder / "diffusion_pytorch_model.safetensors", MADE_FOR)
    (folder / "config.json").write_text(json.dumps(CONFIG | {"_class_name": "T2IAdapter"}))
    yield
    shutil.rmtree(folder)


def ring(colour="black") -> PilImages.Image:
    picture = PilImages.new("RGB", (64, 64), "white")
    ImageDraw.Draw(picture).ellipse((12, 12, 52, 52), outline=colour, width=4)
    return picture


def held(tab, page="txt2img") -> list[dict]:
    return json.loads(tab.page.locator(f"#{page}-controls textarea").input_value() or "[]")


def test_a_picture_is_chosen_seen_as_a_map_drawn_with_and_reused(tab):
    tab.set(prompt="a red apple", **QUICK)
    tab.find("controls-panel").get_by_role("button", name="Controls").click()
    panel = tab.find("controls-panel")
    panel.get_by_role("button", name="Add").click()
    tab.find("controls-model").wait_for()
    assert tab.find("controls-model").input_value() == "lines"
    tab.find("controls-preprocessor").select_option("canny")
    panel.locator("input[type=file]").set_input_files({"name": "a.png", "mimeType": "image/png", "buffer": png(ring())})
    panel.locator(".controls-picture img").wait_for()
    tab.find("controls-options-low").fill("50")
    tab.find("controls-weight").fill("0.8")
    tab.find("controls-show").click()
    panel.locator(".controls-map img").nth(1).wait_for()
    assert panel.get_by_role("img", name="Map").evaluate("(map) => map.naturalWidth") == 64
    (entry,) = held(tab)
    assert entry == {
        **{"model": "lines", "preprocessor": "canny", "weight": 0.8, "options": {"low": 50}},
        "image": {"sha256": entry["image"]["sha256"]},
    }
    assert panel.locator(".fold-state").inner_text() == "1 on"
    tab.draw()
    tab.wait_for_infotext("ControlNet 0: ")
    assert "Module: canny, Model: lines [" in tab.infotext
    panel.get_by_role("button", name="Remove the picture").click()
    assert "image" not in held(tab)[0]
    tab.find("generate").click()
    tab.wait_for_message("control 1: there is no picture, and no start picture either")
    tab.find("refused").wait_for()
    assert tab.find("controls-image").evaluate("(is) => is === document.activeElement")
    panel.get_by_role("button", name="Remove Control 1").click()
    tab.find("reuse-settings").click()
    tab.page.wait_for_function("() => document.querySelector('#txt2img-controls textarea').value.includes('sha256')")
    assert held(tab) == [entry | {"mode": "balanced"}]  # what auto was for this file
    panel.locator(".controls-picture img").wait_for()


def test_a_union_alone_is_told_what_its_map_shows(tab):
    """As if one of the files were one."""

    def answer(route):
        response = route.fetch()
        known = response.json()
        for info in known:
            info |= {"form": "ControlNet Union"} if info["name"] == "lines" else {}
        route.fulfill(response=response, json=known)

    tab.page.route("**/api/controls?*", answer)
    tab.find("controls-panel").get_by_role("button", name="Controls").click()
    tab.find("controls-panel").get_by_role("button", name="Add").click()
    tab.find("controls-kind").wait_for()
    tab.find("controls-kind").select_option("hard edge")
    assert held(tab)[0]["kind"] == "hard edge"
    tab.find("controls-model").select_option("demo-edges")
    tab.find("controls-kind").wait_for(state="hidden")
    assert "kind" not in held(tab)[0], "what is not seen is not asked for"
    tab.page.unroute("**/api/controls?*")


def test_a_pasted_picture_is_the_control_s_and_not_the_page_s(tab):
    tab.find("controls-panel").get_by_role("button", name="Controls").click()
    tab.find("controls-panel").get_by_role("button", name="Add").click()
    tab.find("controls-image").focus()
    tab.page.evaluate(PASTE, base64.b64encode(png(ring("blue"))).decode())
    tab.find("controls-panel").locator(".controls-picture img").wait_for()
    assert len(held(tab)[0]["image"]["sha256"]) == 64 and tab.page.locator("dialog[open]").count() == 0


def test_over_http_it_is_drawn_kept_and_verified(host):
    picture = base64.b64encode(png(ring())).decode()
    asked = {"prompt": "a red apple", "seed": 1, "strict": True, "upscale": None, **QUICK}
    control = {"model": "lines", "image": picture, "preprocessor": "canny"}

    def drawn(**more) -> dict:
        job = host.submit(**asked, **more)
        assert host.finish(job)["event"] == "done"
        return host.show(job)["images"][0]

    plain, controlled = drawn(), drawn(controls=[control])
    assert plain["pixels_sha256"] != controlled["pixels_sha256"]
    assert drawn(controls=[control | {"weight": 0}])["pixels_sha256"] == plain["pixels_sha256"]
    answer = host.client.post("/api/jobs", json={**asked, "controls": [{"model": "lin", "image": picture}]})
    assert answer.status_code == 422 and "control 1: There is no control “lin”" in answer.json()["detail"]
    verified = run_here("verify", controlled["path"], "--data-dir", host.data_dir)
    assert verified.returncode == 0 and "identical" in verified.stdout, verified.stderr
