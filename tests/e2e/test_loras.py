"""LoRAs from page, command line, HTTP and gradio clients: the same file, the same picture, the same clear words."""

import base64
import io
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError
from PIL import Image as PilImages
from safetensors.torch import load_file, save_file

from webui.library.library import DEMO_MODEL

from .server import SMALL, Server, run_here, wait_for
from .tab import Tab

SEEDED = {"prompt": "a red apple, flat style, on a yellow background", "seed": 7, **SMALL}
HOSTILE = '<script>alert(1)<\\script> 🎨 & "quoted"'
HOSTILE_TAG = 'script alert(1) \\script  🎨 & "quoted"'  # without what no tag can hold
HOSTILE_TEXT = "<img src=x onerror=alert(2)>"


@pytest.fixture(scope="module")
def lora_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose folder holds a LoRA with hostile words, and files that are none."""
    folder = tmp_path_factory.mktemp("loras")
    loras = folder / "data" / "models" / "Lora"
    loras.mkdir(parents=True)
    early = {"modelspec.timestep_range": "600,1000"}
    save_file(load_file(DEMO_MODEL / "loras" / "sepia.safetensors"), loras / f"{HOSTILE}.safetensors", early)
    sidecar = {"activation text": HOSTILE_TEXT, "description": HOSTILE_TEXT, "preferred weight": 0.7}
    (loras / f"{HOSTILE}.json").write_text(json.dumps(sidecar), "utf-8")
    (loras / "saved page.safetensors").write_text("<html>not found</html>")
    (loras / "old.pt").write_bytes(b"\x80\x02}q\x00.")
    server = Server(folder)
    yield server
    server.close()


@pytest.fixture(scope="module")
def host(lora_server: Server) -> Server:
    return lora_server


def open_panel(tab: Tab) -> None:
    tab.page.bring_to_front()
    panel = tab.find("lora-panel")
    if not panel.get_by_label("Search LoRAs").is_visible():
        panel.get_by_role("button", name="LoRAs").click()
    panel.locator(".loras-found button").first.wait_for()
    tab.let_fields_settle()


def use(tab: Tab, name: str) -> None:
    """Finds a LoRA by its name and takes it."""
    open_panel(tab)
    tab.find("lora-panel").get_by_label("Search LoRAs").fill(name)
    exactly = re.compile(f"^{re.escape(name)}$")
    tab.find("lora-panel").locator(".loras-found strong", has_text=exactly).click()
    tab.find("lora-panel").locator(".loras-chosen strong", has_text=exactly).wait_for()


def chosen(tab: Tab) -> list[str]:
    return tab.find("lora-panel").locator(".loras-chosen li strong").all_inner_texts()


def weigh(tab: Tab, name: str, weight: float) -> None:
    field = tab.find("lora-panel").get_by_label(f"Weight of {name} as a number")
    field.fill(str(weight))
    field.blur()


def pixels(png: bytes) -> bytes:
    return PilImages.open(io.BytesIO(png)).convert("RGB").tobytes()


def draw_over_http(server: Server, **fields) -> tuple[bytes, dict]:
    job = server.submit(**fields)
    end = server.finish(job)
    assert end["event"] == "done", end
    return pixels(server.client.get(f"/api/jobs/{job}/images/0").content), end


def test_a_lora_is_found_weighed_and_drawn_with(tab, lora_server):
    tab.draw(**SEEDED)
    plain = pixels(tab.picture_bytes())
    use(tab, "blueprint")
    weigh(tab, "blueprint", 0.8)
    tab.draw()
    assert re.fullmatch(r"Done in \d+\.\d s\. LoRA blueprint:0\.8: merged in \d+ ms\.", tab.message)
    tab.wait_for_infotext("<lora:blueprint:0.8>")
    with_lora = pixels(tab.picture_bytes())
    assert with_lora != plain
    assert with_lora == draw_over_http(lora_server, **SEEDED, loras=[{"name": "blueprint", "weight": 0.8}])[0]
    tab.draw()
    assert "LoRA blueprint:0.8: in place already." in tab.message
    tab.find("lora-panel").get_by_role("button", name="Remove blueprint").click()
    tab.draw()
    assert re.fullmatch(r"Done in \d+\.\d s\.", tab.message)
    assert pixels(tab.picture_bytes()) == plain
    tab.set(prompt=SEEDED["prompt"] + " <lora:blueprint:0.8>")
    tab.draw()
    assert re.search(r"LoRA blueprint:0\.8: switched in \d+\.\d ms\.", tab.message)
    assert pixels(tab.picture_bytes()) == with_lora


def test_the_choice_outlives_a_reload_and_comes_back_with_the_settings(tab):
    use(tab, "sepia")
    weigh(tab, "sepia", -3)
    tab.draw(**SEEDED)
    tab.reload()
    open_panel(tab)
    wait_for(lambda: chosen(tab) == ["sepia"], "the LoRA to be there again")
    slider = tab.find("lora-panel").get_by_label("Weight of sepia", exact=True)
    assert (slider.input_value(), slider.get_attribute("min"), slider.get_attribute("max")) == ("-3", "-10", "10")
    tab.find("lora-panel").get_by_role("button", name="Remove sepia").click()
    assert chosen(tab) == []
    tab.find("reuse-seed").click()
    wait_for(lambda: chosen(tab) == ["sepia"], "the LoRA of the picture")
    tab.wait_for_value("seed", "7")


def panel_of(tab: Tab):
    return tab.find("lora-panel")


def points_of(tab: Tab):
    return panel_of(tab).locator(".curve-point")


def kept(tab: Tab) -> list[dict]:
    """The LoRAs of the page's next request."""
    return json.loads(tab.find("loras").locator("textarea").input_value())


def test_a_curve_is_edited_by_keys_and_is_what_is_drawn(tab, lora_server):
    use(tab, "night")
    panel_of(tab).get_by_role("button", name="Curve: the weight of night").press("Enter")
    assert kept(tab) == [{"name": "night", "weight": [[0, 1], [1, 1]]}]
    text = panel_of(tab).get_by_label("Weights of night over the steps")
    point = panel_of(tab).get_by_role("slider", name="Point 2 of 2 of night")
    for key in ("ArrowDown", "ArrowDown", "ArrowLeft", "Shift+ArrowLeft", "Shift+ArrowDown"):
        point.press(key)
    assert kept(tab)[0]["weight"] == [[0, 1], [0.94, 0.89]] and text.input_value() == "1@0;0.89@0.94"
    assert point.get_attribute("aria-valuetext") == "weight 0.89 at 94 % of the steps"
    assert (point.get_attribute("aria-valuenow"), point.evaluate("p => p === document.activeElement")) == ("0.89", True)
    panel_of(tab).get_by_role("slider", name="Point 1 of 2 of night").press("Enter")
    assert kept(tab)[0]["weight"] == [[0, 1], [0.47, 0.95], [0.94, 0.89]]
    assert tab.page.locator("#darkroom-announcer").inner_text() == "Point added: weight 0.95 at 47 % of the steps"
    added = panel_of(tab).get_by_role("slider", name="Point 2 of 3 of night")
    assert added.evaluate("p => p === document.activeElement")
    for _ in range(11):  # places stay in their order
        added.press("ArrowRight")
    assert kept(tab)[0]["weight"][1] == [0.94, 0.95]
    points_of(tab).nth(2).press("Delete")
    points_of(tab).nth(1).press("Backspace")
    assert kept(tab)[0]["weight"] == [[0, 1]] and points_of(tab).count() == 1
    points_of(tab).first.press("Delete")
    assert tab.page.locator("#darkroom-announcer").inner_text() == "The last point stays." and len(kept(tab)) == 1
    text.fill("1@0, 0.2@0.5")
    text.blur()
    assert kept(tab)[0]["weight"] == [[0, 1], [0.5, 0.2]] and points_of(tab).count() == 2
    tab.draw(**SEEDED)
    tab.wait_for_infotext("<lora:night:1@0;0.2@0.5>")
    expected, _ = draw_over_http(lora_server, **SEEDED, loras=[{"name": "night", "weight": [[0, 1], [0.5, 0.2]]}])
    assert pixels(tab.picture_bytes()) == expected
    panel_of(tab).get_by_role("button", name="Curve: the weight of night").press("Enter")
    assert kept(tab) == [{"name": "night", "weight": 1}] and points_of(tab).count() == 0


def test_a_curve_is_edited_by_the_mouse(tab):
    use(tab, "night")
    panel_of(tab).get_by_role("button", name="Curve: the weight of night").click()
    plot = panel_of(tab).locator(".curve-plot")
    points_of(tab).first.wait_for()
    plot.scroll_into_view_if_needed()
    sizes = points_of(tab).evaluate_all("all => all.map(p => [p.offsetWidth, p.offsetHeight])")
    assert sizes == [[24, 24], [24, 24]]

    size = plot.bounding_box()

    def at(place: float, weight: float) -> dict[str, float]:
        return {"x": place * size["width"], "y": (1 - weight / 1.5) * size["height"]}

    plot.dblclick(position=at(0.5, 0.3))
    (_, (place, weight), _) = kept(tab)[0]["weight"]
    assert abs(place - 0.5) < 0.02 and abs(weight - 0.3) < 0.03 and points_of(tab).count() == 3
    points_of(tab).nth(1).hover()
    tab.page.mouse.down()
    plot.hover(position=at(0.3, 0.9))
    assert points_of(tab).count() == 3
    tab.page.mouse.up()
    (_, (place, weight), _) = kept(tab)[0]["weight"]
    assert abs(place - 0.3) < 0.02 and abs(weight - 0.9) < 0.03
    text = panel_of(tab).get_by_label("Weights of night over the steps")
    assert text.input_value() == f"1@0;{weight}@{place};1@1"
    panel_of(tab).get_by_role("button", name="Remove point: night").click()
    assert kept(tab)[0]["weight"] == [[0, 1], [1, 1]]
    panel_of(tab).get_by_role("button", name="First half: night").click()
    assert kept(tab)[0]["weight"] == [[0, 1], [0.5, 1], [0.5, 0]] and text.input_value() == "1@0;1@0.5;0@0.5"
    text.fill("1@0;0@10")
    text.blur()
    points_of(tab).nth(1).press("ArrowLeft")
    assert kept(tab)[0]["weight"] == [[0, 1], [9, 0]]
    assert points_of(tab).nth(1).get_attribute("aria-valuetext") == "weight 0 after step 9"
    text.fill("1@x")
    text.blur()
    tab.set(prompt=SEEDED["prompt"])
    tab.find("generate").click()
    wait_for(lambda: "'1@x' is not a weight: 'x' is not a number" in tab.message, "the reason")
    assert text.get_attribute("aria-invalid") == "true" and points_of(tab).filter(visible=True).count() == 0


def test_what_the_curve_does_not_edit_is_kept_and_said(tab, lora_server):
    tag = "<lora:night:0.3:1@0;0.2@0.5:lbw=OUTALL>"
    tab.draw(**SEEDED | {"prompt": f"{SEEDED['prompt']} {tag}"})
    tab.wait_for_infotext(tag)
    tab.find("reuse-seed").click()
    open_panel(tab)
    wait_for(lambda: chosen(tab) == ["night"], "the LoRA of the picture")
    assert panel_of(tab).locator(".loras-also").inner_text() == "Also: text encoder 0.3, lbw=OUTALL"
    points_of(tab).nth(1).press("ArrowUp")
    assert kept(tab) == [
        {"name": "night", "weight": [[0, 1], [0.5, 0.25]], "text_weight": 0.3, "block_weights": "OUTALL"}
    ]
    panel_of(tab).get_by_role("button", name="Write night into the prompt").click()
    tab.wait_for_value("prompt", f"{SEEDED['prompt']} <lora:night:0.3:1@0;0.25@0.5:lbw=OUTALL>")


@pytest.mark.slow  # the test of a curve draws one and reads its text
def test_weights_over_the_steps_are_drawn_and_kept_in_the_panel(tab, lora_server):
    tag = "<lora:night:1@0;0.2@0.5>"
    tab.draw(**SEEDED | {"prompt": f"{SEEDED['prompt']} <lora:night:1@0,0.2@0.5>"})
    tab.wait_for_infotext(tag)
    drawn = pixels(tab.picture_bytes())
    over_http, _ = draw_over_http(lora_server, **SEEDED, loras=[{"name": "night", "weight": [[0, 1], [0.5, 0.2]]}])
    assert drawn == over_http != draw_over_http(lora_server, **SEEDED, loras=["night:1"])[0]
    tab.find("reuse-seed").click()
    open_panel(tab)
    wait_for(lambda: chosen(tab) == ["night"], "the LoRA of the picture")
    weights = tab.find("lora-panel").get_by_label("Weights of night over the steps")
    assert weights.input_value() == "1@0;0.2@0.5"
    tab.draw()
    assert pixels(tab.picture_bytes()) == drawn
    weights.fill("1")
    weights.blur()
    assert tab.find("lora-panel").get_by_label("Weight of night as a number").input_value() == "1"
    tab.find("reuse-seed").click()
    weights.wait_for()
    tab.find("lora-panel").get_by_role("button", name="Write night into the prompt").click()
    tab.wait_for_value("prompt", f"{SEEDED['prompt']} {tag}")


def test_a_new_file_is_there_after_refresh(tab, lora_server):
    open_panel(tab)
    tab.find("lora-panel").locator('.loras-found button[data-name="sepia"]').wait_for()
    folder = lora_server.data_dir / "models/Lora/later"
    folder.mkdir()
    shutil.copy(DEMO_MODEL / "loras" / "sepia.safetensors", folder / "just now.safetensors")
    tab.find("lora-panel").get_by_role("button", name="Refresh").click()
    tab.find("lora-panel").locator('.loras-found button[data-name="just now"]').wait_for()
    use(tab, "just now")
    tab.draw(**SEEDED)
    assert "LoRA just now:1" in tab.message


def test_trigger_words_and_the_tag_go_into_the_prompt(tab):
    tab.set(prompt="a panda")
    use(tab, "night")
    tab.find("lora-panel").get_by_role("button", name='Add "night" to the prompt').click()
    tab.wait_for_value("prompt", "a panda, night")
    tab.find("lora-panel").get_by_role("button", name="Write night into the prompt").click()
    tab.wait_for_value("prompt", "a panda, night <lora:night:1>")
    assert chosen(tab) == []


def test_a_strangers_words_are_text_and_a_broken_file_says_why(tab):
    use(tab, HOSTILE)
    row = tab.find("lora-panel").locator(".loras-chosen li")
    assert row.get_by_label("as a number").input_value() == "0.7"
    assert HOSTILE_TEXT in row.inner_text()
    tab.draw(**SEEDED)
    assert f"LoRA {HOSTILE}:0.7" in tab.message
    card = tab.find("lora-panel").locator(".loras-found").text_content()
    assert f"In a prompt: <lora:{HOSTILE_TAG}>" in card
    assert "Trained for the first steps only (noise from 600 of 1000)" in card
    row.get_by_text("To prompt").click()
    tab.wait_for_value("prompt", f"{SEEDED['prompt']} <lora:{HOSTILE_TAG}:0.7>")
    tab.draw()
    assert f"LoRA {HOSTILE}:0.7" in tab.message
    tab.find("lora-panel").get_by_label("Search LoRAs").fill("saved page")
    broken = tab.find("lora-panel").locator(".loras-found button")
    assert broken.is_disabled()
    assert "saved page.safetensors is not a safetensors file" in broken.inner_text()
    tab.find("lora-panel").get_by_label("Search LoRAs").fill("no such thing")
    tab.find("lora-panel").get_by_text("LoRAs matches").wait_for()


def test_what_cannot_be_applied_is_told_on_the_page(tab, lora_server):
    for prompt, message in (
        ("a cat <lora:blueprnt:1>", "no LoRA “blueprnt”; did you mean blueprint"),
        ("a cat <lora:old:1>", "old.pt is a pickle"),
        ("a dog [<lora:sepiaa:1>::0.5]", "no LoRA “sepiaa”; did you mean sepia"),
        ("<lora:night:1> a cat <lora:night:0.5>", "LoRA “night” is named more than once: night:1 and night:0.5"),
        ("a cat <lora:night:1:lbw=OUTAL>", "(lbw) must be values, one a block, or a preset: NONE, ALL"),
    ):
        tab.set(prompt=prompt)
        tab.find("generate").click()
        tab.wait_for_message(message)
        assert tab.state == "failed"
    assert lora_server.is_idle()


def test_http_lists_loras_with_previews_and_applies_them(lora_server):
    listed = {entry["name"]: entry for entry in lora_server.client.get("/api/loras").json()}
    assert {"blueprint", "sepia", "night", HOSTILE, "saved page", "old"} <= set(listed)
    assert listed["blueprint"]["trigger_words"] == ["blueprint"]
    assert "pickle" in listed["old"]["problem"]
    picture = lora_server.client.get("/" + listed["blueprint"]["preview"])
    assert picture.headers["content-type"] == "image/png"
    assert PilImages.open(io.BytesIO(picture.content)).size == (128, 128)
    for name in ("old", "../../webui/demo/README", "no such"):
        assert lora_server.client.get("/api/loras/preview", params={"name": name}).status_code == 404
    tagged, _ = draw_over_http(lora_server, **SEEDED | {"prompt": SEEDED["prompt"] + "<lora:night:0.5:1>"})
    given, end = draw_over_http(lora_server, **SEEDED, loras=[{"name": "night", "weight": 1, "text_weight": 0.5}])
    assert tagged == given
    assert end["loras"] == {"applied": ["night:0.5:1"], "how": "unchanged", "seconds": end["loras"]["seconds"]}
    assert end["loras"]["seconds"] < 0.001
    refused = lora_server.client.post("/api/jobs", json={"loras": ["nigth"]})
    assert refused.status_code == 422 and "did you mean night" in refused.json()["detail"]
    for body, message in (
        ({"prompt": "[<lora:nigth:1>|a]"}, "did you mean night"),
        ({"loras": ["night", {"name": "night", "weight": 0.5}]}, "named more than once: night:1 and night:0.5"),
        ({"loras": [{"name": "night", "block_weights": [1, 0]}]}, "(it has 2)"),
        ({"loras": [{"name": "night", "block_elements": "ATTN"}]}, "(lbwe) must be one of ATTNDEEPON"),
        ({"prompt": "<lora:night:1:start=0.2:stop=5>"}, "start=0.2 is a share of the steps and stop=5 is a step"),
    ):
        refused = lora_server.client.post("/api/jobs", json=body)
        assert refused.status_code == 422 and message in refused.json()["detail"], refused.text


def test_weights_by_block_over_http_and_as_a_tag_are_one_picture(lora_server):
    listed = [1, *[0] * 7, *[1] * 9]
    plain, _ = draw_over_http(lora_server, **SEEDED, loras=["night"])
    by_name, end = draw_over_http(lora_server, **SEEDED, loras=[{"name": "night", "block_weights": "OUTALL"}])
    assert end["loras"]["applied"] == ["night:1:lbw=OUTALL"] and by_name != plain
    assert by_name == draw_over_http(lora_server, **SEEDED, loras=[{"name": "night", "block_weights": listed}])[0]
    for tag in ("<lora:night:1:lbw=OUTALL>", "<lora:night:1:OUTALL>", "<lora:night:te=1:unet=1:lbw=OUTALL>"):
        assert by_name == draw_over_http(lora_server, **SEEDED | {"prompt": f"{SEEDED['prompt']} {tag}"})[0]
    assert plain == draw_over_http(lora_server, **SEEDED, loras=["night:1:lbw=ALL"])[0]
    answer = lora_server.client.post(
        "/sdapi/v1/txt2img",
        json={"prompt": f"{SEEDED['prompt']} <lora:night:1:lbw=OUTALL>", "seed": 7, "sampler_name": "DPM++ 2M", **SMALL}
        | {"cfg_scale": 5},
    ).json()
    assert pixels(base64.b64decode(answer["images"][0])) == by_name
    assert "<lora:night:1:lbw=OUTALL>" in json.loads(answer["info"])["infotexts"][0]


def test_weights_by_block_from_the_command_line_verify_and_make_a_preset(tmp_path):
    flags = ("--prompt", "a cat", "--seed", "7", "--steps", "2", "--width", "64", "--height", "64", "--json")
    where = ("--device", "cpu", "--dtype", "float32", "--data-dir", tmp_path)

    def draw(*more: str) -> dict:
        done = run_here("generate", *flags, *more, *where)
        assert done.returncode == 0, done.stderr
        return next(event for event in map(json.loads, done.stdout.splitlines()) if event["event"] == "image")

    random = "night:1:lbw=1,1,1,R,1,1,1,U" + ",1" * 9
    drawn = draw("--lora", random)
    recipe = json.loads(PilImages.open(drawn["path"]).info["darkroom"])
    assert recipe["schema"] == 2 and re.fullmatch(
        r"1,1,1,[01]\.\d{3},1,1,1,-?[01]\.\d{3}(,1){9}", recipe["request"]["loras"][0]["block_weights"]
    )
    moving = draw("--prompt", f"a cat [<lora:{random}>::1] [<lora:sepia:1:lbwe=ATTNDEEPOFF>:1]")
    verified = run_here("verify", drawn["path"], moving["path"], "--data-dir", tmp_path)
    assert verified.returncode == 0 and verified.stdout.count(": identical\n") == 2, verified.stdout
    (tmp_path / "presets").mkdir(exist_ok=True)
    listed = "1,0,0,0,0,0,0,0,1,1,1,1,1,1,1,1,1"
    preset = f'version = 1\nname = "Out"\n[fields]\nprompt = "a cat"\nloras = "night:1:lbw={listed}"\n'
    (tmp_path / "presets/out.toml").write_text(preset)
    assert draw("--preset", "Out")["pixels_sha256"] == draw("--lora", "night:1:lbw=OUTALL")["pixels_sha256"]


def test_gradio_clients_name_loras_as_text(lora_server, tmp_path):
    client = Client(lora_server.url, verbose=False, download_files=tmp_path)
    *_, infotext = client.predict(**SEEDED, loras="sepia:0.5, night", api_name="/txt2img")
    assert "<lora:sepia:0.5> <lora:night:1>" in infotext
    with pytest.raises(AppError, match="did you mean night"):
        client.predict(loras="nigth:1", api_name="/txt2img")


def test_the_command_line_applies_them_and_refuses_what_is_none(tmp_path):
    flags = ("--prompt", "a red apple", "--seed", "7", "--steps", "2", "--width", "64", "--height", "64", "--json")
    where = ("--out", tmp_path / "out", "--device", "cpu", "--data-dir", tmp_path)

    def hashes(*more: str) -> list[str]:
        done = run_here("generate", *flags, *more, *where)
        assert done.returncode == 0, done.stderr
        events = [json.loads(line) for line in done.stdout.splitlines()]
        return [event["pixels_sha256"] for event in events if event["event"] == "image"]

    both = hashes("--lora", "sepia:0.5", "--lora", "night")
    assert both == hashes("--lora", "night:1", "--lora", "sepia:0.5", "--lora-cache", "1MB")
    assert both != hashes()
    for lora, message in (("sepa:1", "did you mean sepia"), ("sepia:x", "weight must be a number")):
        refused = run_here("generate", *flags, "--lora", lora, *where)
        assert refused.returncode == 2
        assert message in refused.stderr and refused.stderr.count("\n") == 1
    cut = Path(tmp_path, "models", "Lora", "cut.safetensors")
    cut.parent.mkdir(parents=True)
    cut.write_bytes((DEMO_MODEL / "loras" / "sepia.safetensors").read_bytes()[:-1])
    refused = run_here("generate", *flags, "--lora", "cut", *where)
    assert refused.returncode == 2 and "cut.safetensors is cut short" in refused.stderr
