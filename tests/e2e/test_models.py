"""Models on the page and over HTTP: found, chosen with what suits them, read again, and refused in words."""

import io
import json
import re
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import small
from PIL import Image as PilImages
from safetensors.torch import save_file

from webui.core.settings import Settings
from webui.core.weight_files import content_hash
from webui.engine.tokens import Tokenizer, count_tokens
from webui.library.library import DEMO_MODEL, find_models

from .server import Server, wait_for
from .tab import Tab

HOSTILE = '<img src=x onerror=alert(1)> & "quoted"'
HOSTILE_FILE = "<svg onload=alert(2)>"
PREVIEW_PX = (48, 32)
LACKS = ["seed", "hires", "reuse", "token_merging"]
SHOWN = ("steps", "guidance", "width", "height")


@pytest.fixture(scope="module")
def model_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with small models, one of a hostile name, files that are none, and an embedding."""
    folder = tmp_path_factory.mktemp("models")
    models, embeddings = folder / "data" / "models" / "Stable-diffusion", folder / "data" / "embeddings"
    for name in ("tiny one", HOSTILE):
        small("sd1", directory=models / name)
    small("sdxl", directory=models / "tiny xl")
    PilImages.new("RGB", PREVIEW_PX, "green").save(models / "tiny one" / "preview.png")
    formed = {"cap_embedder.1.weight": (8, 32), "noise_refiner.0.attention_norm1.weight": (8,), "x_pad_token": (1, 8)}
    save_file({name: torch.zeros(shape) for name, shape in formed.items()}, models / "formed.safetensors")
    (models / f"{HOSTILE_FILE}.safetensors").write_text("<html>not found</html>")
    (models / "old.ckpt").write_bytes(b"\x80\x02}q\x00.")
    (models / "cut.safetensors").write_bytes(struct.pack("<Q", 4000) + b"{")
    embeddings.mkdir()
    save_file({"emb_params": torch.zeros(3, 64)}, embeddings / "charm.safetensors")
    loras = folder / "data" / "models" / "Lora"
    loras.mkdir()
    save_file({"bundle_emb.zorb.clip_l": torch.zeros(4, 192)}, loras / "bundle.safetensors")
    server = Server(folder)
    yield server
    server.close()


@pytest.fixture(scope="module")
def host(model_server: Server) -> Server:
    return model_server


def panel(tab: Tab) -> Any:
    found = tab.find("model-panel")
    tab.page.bring_to_front()
    if not found.get_by_label("Search models").is_visible():
        found.get_by_role("button", name="Models").click()
    found.locator(".models-found button").first.wait_for()
    tab.let_fields_settle()
    return found


def card(tab: Tab, name: str) -> Any:
    panel(tab).get_by_label("Search models").fill(name)
    return panel(tab).locator(".models-found li").filter(has=tab.page.get_by_text(name, exact=True)).locator("button")


def wait_until_pressed(tab: Tab, name: str) -> None:
    panel(tab).get_by_label("Search models").fill("")
    pressed = panel(tab).locator("button[aria-pressed=true] strong")
    wait_for(lambda: pressed.all_inner_texts() == [name], f"{name} to be the chosen one")


def model(tab: Tab) -> str:
    tab.open_settings()
    return tab.find("model").get_by_role("combobox").input_value()


def options(tab: Tab, field: str) -> list[str]:
    """What the list of a field offers."""
    tab.open_settings()
    tab.find(field).get_by_role("combobox").click()
    found = tab.find(field).get_by_role("option")
    found.first.wait_for()
    names = found.all_inner_texts()
    tab.find(field).get_by_role("combobox").blur()
    return [name.removeprefix("✓").strip() for name in names]


def test_the_embedded_model_s_pictures_are_enlarged_unless_somebody_has_said_otherwise(newcomer):
    tab = newcomer
    tab.find("upscale-on").locator("input").wait_for()  # where everybody sees it
    assert enlarging(tab) == (True, "4")
    tab.draw(prompt="a red apple", steps=1)
    assert PilImages.open(io.BytesIO(tab.picture_bytes())).size == (512, 512)
    tab.choose("model", "tiny one")
    wait_for(lambda: enlarging(tab) == (False, "2"), "what suits the other model")
    tab.choose("model", "demo")
    wait_for(lambda: enlarging(tab) == (True, "4"), "what suits the embedded one")
    tab.find("upscale-on").locator("input").uncheck()
    tab.choose("model", "tiny one")
    tab.wait_for_value("guidance", "7")
    tab.choose("model", "demo")
    tab.wait_for_value("guidance", "5")
    assert enlarging(tab)[0] is False
    tab.reload()
    assert enlarging(tab)[0] is False


def test_a_card_chooses_the_model_and_what_suits_it(tab):
    found = panel(tab)
    found.get_by_label("Search models").fill("TINY")
    wait_for(lambda: len(found.locator(".models-found li").all()) == 2, "the two that are called like that")
    assert "SDXL · 59 MB · F32" in card(tab, "tiny xl").inner_text()
    card(tab, "tiny one").focus()
    tab.page.keyboard.press("Enter")
    wait_until_pressed(tab, "tiny one")
    tab.wait_for_value("guidance", "7")
    assert model(tab) == "tiny one"
    assert tab.values(*SHOWN) == {"steps": "20", "guidance": "7", "width": "64", "height": "64"}
    tab.draw(prompt="a cat", steps=2)
    tab.wait_for_infotext("Size: 64x64")
    wait_for(lambda: "Loaded: tiny one (cpu" in found.locator(".models-status").inner_text(), "what is loaded")
    assert found.locator("button:has(em:not([hidden])) strong").all_inner_texts() == ["tiny one"]


def test_what_a_large_model_will_take_of_memory_is_told_below_generate(tab):
    """As if the small one were large, on a card that holds it in blocks, and on one that does not."""
    asked = []

    def list_it(route):
        response = route.fetch()
        known = response.json()
        for info in known:
            info |= {"size_bytes": 7 * 10**9} if info["name"] == "tiny xl" else {}
        route.fulfill(response=response, json=known)

    def answer(route):
        asked.append(route.request.url.partition("?")[2])
        told = {"weight_bytes": 7 * 2**30, "step_bytes": 2**29, "free_bytes": 2**30, "least_bytes": 2 * 2**30}
        fits = "width=64" in asked[-1]
        route.fulfill(json=told | {"device": "cuda", "plan": "blocks" if fits else None, "load_s": 12.2})

    tab.page.route("**/api/models?*", list_it)
    tab.page.route("**/api/models/memory?*", answer)
    tab.page.evaluate("darkroomModels.refresh()")
    card(tab, "tiny xl").click()
    line = tab.page.locator("#txt2img-memory")
    line.filter(
        has_text="Takes 7.5 GiB of memory, 0.5 GiB of it for a step of this size. Memory plan: blocks."
    ).wait_for()
    assert "Loads in about 12 s." in line.inner_text()
    tab.set(width=128)
    line.filter(has_text="This does not fit: 2.0 GiB are needed, and 1.0 GiB are free.").wait_for()
    assert all("name=tiny+xl" in one for one in asked)
    card(tab, "tiny one").click()
    line.wait_for(state="hidden")
    tab.page.unroute("**/api/models?*")
    tab.page.unroute("**/api/models/memory?*")
    tab.page.evaluate("darkroomModels.refresh()")


def test_what_the_kind_of_a_model_lacks_is_not_on_the_page(tab):
    """As the list would say it of a flow model; what was in the fields is there again with the next model."""

    def answer(route):
        response = route.fetch()
        known = response.json()
        for info in known:
            info |= {"lacks": LACKS, "samplers": ["Euler"]} if info["name"] == "tiny xl" else {}
        route.fulfill(response=response, json=known)

    def held() -> list[Any]:
        return tab.page.evaluate("(fields) => fields.map(darkroomFields.valuesOf('txt2img'))", LACKS)

    everything = options(tab, "sampler")
    fields = json.dumps({"reuse": 3, "token_merging": 0.5, "hires": True})
    tab.page.evaluate("(text) => darkroomFills.ask('txt2img', 'memory', { text })", fields)  # their folds stay shut
    tab.set(seed=5)
    wait_for(lambda: held() == [5, True, 3, 0.5], "the fields are remembered")
    tab.page.route("**/api/models?*", answer)
    tab.page.evaluate("darkroomModels.refresh()")
    card(tab, "tiny xl").click()
    wait_until_pressed(tab, "tiny xl")
    tab.find("seed").wait_for(state="hidden")
    tab.find("hires").wait_for(state="hidden")
    wait_for(lambda: held() == [-1, False, 1, 0], "what the kind lacks is off, in folds too")
    tab.find("sampler").get_by_role("combobox").click()
    shown = tab.find("sampler").get_by_role("option")
    wait_for(
        lambda: [one.inner_text().removeprefix("✓").strip() for one in shown.all() if one.is_visible()] == ["Euler"],
        "one",
    )
    tab.find("sampler").get_by_role("combobox").blur()
    tab.find("schedule").get_by_role("combobox").click()
    schedules = tab.find("schedule").get_by_role("option")
    schedules.first.wait_for()
    assert [one.inner_text().removeprefix("✓").strip() for one in schedules.all() if one.is_visible()] == ["Default"]
    tab.find("schedule").get_by_role("combobox").blur()
    tab.page.unroute("**/api/models?*")
    card(tab, "tiny one").click()
    tab.find("seed").wait_for()
    tab.wait_for_value("seed", "5")
    wait_for(lambda: held() == [5, True, 3, 0.5], "what was in the fields")
    assert options(tab, "sampler") == everything


def test_the_form_of_a_file_that_does_not_say_it_is_chosen_beside_the_model_and_remembered(tab):
    def shows(steps: str, guidance: str) -> None:
        held = [tab.find(field).locator("input[type=number]") for field in ("steps", "guidance")]
        wait_for(lambda: [one.input_value() for one in held] == [steps, guidance], "what suits it")

    select = tab.find("model").locator(".model-form")
    card(tab, "formed").click()
    shows("8", "1")
    select.wait_for()
    assert select.locator("option").all_inner_texts() == ["auto (Turbo)", "Turbo", "Base"]
    select.select_option("Base")
    shows("30", "5")
    card(tab, "tiny one").click()
    shows("20", "7")
    select.wait_for(state="hidden")
    card(tab, "formed").click()
    shows("30", "5")
    wait_for(lambda: select.input_value() == "Base", "what was chosen for this file")
    tab.page.wait_for_function("JSON.parse(darkroom.recall('txt2img') || '{}').model === 'formed'")
    tab.reload()
    wait_for(lambda: select.input_value() == "Base", "the form after a reload")
    card(tab, "tiny one").click()
    shows("20", "7")


@pytest.mark.slow
def test_the_field_does_the_same_and_one_model_twice_changes_nothing(tab):
    tab.choose("model", "tiny one")
    tab.wait_for_value("guidance", "7")
    wait_until_pressed(tab, "tiny one")
    tab.find("size").get_by_role("button", name="3:2", exact=True).click()
    tab.wait_for_value("width", "96")
    tab.set(guidance=3)
    tab.choose("model", "tiny one")
    card(tab, "tiny one").click()
    tab.find("model").get_by_role("combobox").click()
    tab.find("seed").locator("input").click()  # a look into the list, and away
    tab.page.wait_for_timeout(500)  # nothing may come
    kept = {"steps": "20", "guidance": "3", "width": "96", "height": "64"}
    assert tab.values(*SHOWN) == kept
    tab.reload()
    wait_until_pressed(tab, "tiny one")
    assert model(tab) == "tiny one" and tab.values(*SHOWN) == kept
    tab.choose("model", "demo")
    tab.wait_for_value("width", "128")
    assert tab.values("guidance") == {"guidance": "5"}


def enlarging(tab):
    """Whether the page enlarges what it draws, and how far."""
    switch, scale = (tab.find(f"upscale-{name}").locator("input") for name in ("on", "scale"))
    return switch.is_checked(), scale.first.input_value()


def test_reload_finds_new_files_on_the_open_page(tab, model_server):
    tab.page.evaluate("window.stays = true")
    assert options(tab, "vae") == ["Model's own"] and options(tab, "refiner")[0] == "None"
    new = model_server.data_dir / "models" / "Stable-diffusion" / "newcomer"
    shutil.copytree(new.with_name("tiny one"), new)
    vae = model_server.data_dir / "models" / "VAE" / "softer.safetensors"
    vae.parent.mkdir(parents=True)
    shutil.copy(next((DEMO_MODEL / "vae").glob("*.safetensors")), vae)
    try:
        panel(tab).get_by_role("button", name="Reload").click()
        card(tab, "newcomer").click()
        wait_until_pressed(tab, "newcomer")
        wait_for(lambda: options(tab, "vae") == ["Model's own", "softer"], "the new autoencoder")
        assert {"newcomer", "tiny xl"} < set(options(tab, "refiner"))
        assert model(tab) == "newcomer" and tab.page.evaluate("window.stays")
        tab.draw(prompt="a cat", steps=2)
        tab.wait_for_infotext("Model: newcomer")
    finally:
        shutil.rmtree(new)
        shutil.rmtree(vae.parent)


UNUSABLE = {
    "old": "old.ckpt is a pickle, and opening a pickle can run any program",
    "cut": "cut.safetensors is cut short",
    HOSTILE_FILE: f"{HOSTILE_FILE}.safetensors is not a safetensors file",
}


def test_what_cannot_be_used_is_shown_with_the_reason_and_cannot_be_chosen(tab):
    for name, problem in UNUSABLE.items():
        assert card(tab, name).is_disabled()
        assert problem in card(tab, name).inner_text()
        assert name not in options(tab, "model")
    found = panel(tab)
    found.get_by_label("Search models").fill("no such thing")
    found.get_by_text("models matches").wait_for()


def test_a_hostile_name_is_text_everywhere(tab):
    card(tab, HOSTILE).click()
    wait_until_pressed(tab, HOSTILE)
    assert model(tab) == HOSTILE
    tab.draw(prompt="a cat", steps=1)
    wait_for(lambda: HOSTILE in panel(tab).locator(".models-status").inner_text(), "what is loaded")
    tab.choose("model", "demo")
    wait_until_pressed(tab, "demo")


def test_details_tell_the_hash(tab, model_server):
    item = panel(tab).locator(".models-found li", has=tab.page.locator("strong", has_text="tiny one"))
    item.get_by_text("Details").click()
    known = find_models(Settings(data_dir=model_server.data_dir))["tiny one"]
    item.get_by_text(content_hash(known)[:10]).wait_for()


def test_with_the_demo_alone_the_panel_says_where_models_go(open_tab, server):
    tab = open_tab(server=server)
    assert re.search("models/Stable-diffusion.*--models-dir", panel(tab).locator(".models-note").inner_text())


def test_http_lists_models_with_previews_and_hashes(model_server):
    get = model_server.client.get
    listed = {entry["name"]: entry for entry in get("/api/models").json()}
    assert {"demo", "tiny one", "tiny xl", HOSTILE, "old", "cut", HOSTILE_FILE} <= set(listed)
    xl = listed["tiny xl"]
    assert (xl["kind"], xl["family"], xl["dtype"], xl["native_px"], xl["problem"]) == ("SDXL", "SDXL", "F32", 64, "")
    assert xl["size_bytes"] > 10**7 and xl["defaults"]["guidance"] == 5.0 and xl["preview"] is None
    assert "pickle" in listed["old"]["problem"] and not listed["old"]["family"]
    assert [name for name, entry in listed.items() if entry["resident"]] == [model_server.health()["model"]]
    picture = get("/" + listed["tiny one"]["preview"])
    assert PilImages.open(io.BytesIO(picture.content)).size == PREVIEW_PX
    assert picture.headers["x-content-type-options"] == "nosniff"
    known = find_models(Settings(data_dir=model_server.data_dir))["tiny one"]
    sha256 = content_hash(known)
    answer = get("/api/models/hash", params={"name": "tiny one"}).json()
    assert answer == {"name": "tiny one", "hash": sha256[:10], "sha256": sha256}
    for name in ("old", "../../etc/passwd", str(known.path), "no such", ""):
        for what in ("preview", "hash"):
            refused = get(f"/api/models/{what}", params={"name": name})
            assert refused.status_code == 404 and set(refused.json()) == {"error", "detail"}
    assert get("/api/models/hash").status_code == 422


def test_the_model_decides_how_tokens_are_counted(model_server):
    def count(model: str, prompt: str) -> tuple[int, int]:
        answer = model_server.client.post("/api/tokens", json={"model": model, "prompt": prompt}).json()
        return answer["tokens"], answer["room"]

    demo, clip = Tokenizer.from_folder(DEMO_MODEL / "tokenizer"), Tokenizer.clip()
    prompt = "an extraordinarily photorealistic chandelier, " * 9
    assert count_tokens(prompt, demo) != count_tokens(prompt, clip)
    assert count("demo", prompt) == count_tokens(prompt, demo)
    assert count("no such model", prompt) == count("old", prompt) == count_tokens(prompt, clip)
    assert count("demo", "a charm, a cat") == count_tokens("a charm, a cat", demo, {"charm": 3})
    for prompt_, rows in (("a zorb <lora:bundle:0.5>", {"zorb": 4}), ("a zorb", {}), ("a zorb <lora:none>", {})):
        assert count("demo", prompt_) == count_tokens(prompt_.partition(" <")[0], demo, rows)
    xl = Tokenizer.from_folder(Path(find_models(Settings(data_dir=model_server.data_dir))["tiny xl"].path, "tokenizer"))
    assert count("tiny xl", prompt) == count_tokens(prompt, xl)


def test_another_model_takes_back_what_was_made_for_the_one_before(tab, model_server):
    tab.choose("model", "tiny one")
    tab.wait_for_value("guidance", "7")
    tab.draw(prompt="a cat", steps=1, clip_skip=2)
    tab.choose("prediction", "epsilon")
    tab.choose("model", "demo")
    tab.wait_for_value("width", "128")
    assert tab.values("clip_skip") == {"clip_skip": "2"}  # it was set by hand
    assert tab.find("prediction").get_by_role("combobox").input_value() == "auto"
    tab.find("reuse-settings").click()
    tab.wait_for_value("width", "64")
    assert tab.values("clip_skip") == {"clip_skip": "2"}
    tab.choose("model", "demo")
    tab.wait_for_value("clip_skip", "1")  # now it came with a picture of the other model
