"""Presets as people use them: the same picture from page, command line, HTTP and address; saved, renamed, passed on."""

import hashlib
import io
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
from PIL import Image as PilImages

from webui.workspace.presets import SHIPPED

from .conftest import tab_opener
from .server import SMALL, Server, run_here, run_webui, wait_for
from .tab import Tab

NAME = "Flat sticker"
HOSTILE = "<script>alert(1)</script> ../../x 🎨"
MINE = """
name = "Mine & <b>yours</b>"
note = "<img src=x onerror=alert(2)>"
strange = 1
[variables]
thing = "red apple"
[fields]
prompt = "a {thing}, flat style"
seed = 5
steps = 2
width = 64
height = 64
[pins]
model = "00000000"
"""


@pytest.fixture(scope="module")
def preset_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with one preset of its own, whose pin does not hold, and files that are none."""
    folder = tmp_path_factory.mktemp("presets")
    presets = folder / "data" / "presets"
    presets.mkdir(parents=True)
    (presets / "mine.toml").write_text(MINE, "utf-8")
    (presets / "broken.toml").write_text("[fields]\nsteps = 'many'\n")
    (presets / "deep.toml").write_text("x = " + "[" * 20_000)
    (presets / "gone.toml").write_text("[fields]\nmodel = 'photoreal'\nprompt = 'a'\nloras = ['nowhere']\n")
    server = Server(folder)
    yield server
    server.close()


@pytest.fixture
def open_tab(context, preset_server: Server):
    yield from tab_opener(context, preset_server)


def pixels_sha256(png: bytes) -> str:
    return hashlib.sha256(PilImages.open(io.BytesIO(png)).convert("RGB").tobytes()).hexdigest()


def open_bar(tab: Tab) -> None:
    tab.page.bring_to_front()
    if not tab.find("preset-chooser").is_visible():
        tab.find("preset-bar").get_by_role("button", name="Presets").click()
        tab.find("preset-chooser").wait_for()
        tab.let_fields_settle()


def unfold(tab: Tab, part: str, title: str) -> None:
    open_bar(tab)
    if not tab.find(f"preset-{part}").get_by_role("textbox").first.is_visible():
        tab.find(f"preset-{part}").get_by_role("button", name=title).click()
        tab.find(f"preset-{part}").get_by_role("textbox").first.wait_for()
        tab.let_fields_settle()


def choose(tab: Tab, name: str) -> None:
    open_bar(tab)
    tab.find("preset-chooser").get_by_role("combobox").fill(name)
    tab.page.get_by_role("option", name=name, exact=True).click()
    card = tab.find("preset-card").locator(".preset-card")
    card.get_by_text(name, exact=True).or_(card.filter(has_text=name)).first.wait_for()


def visit(tab: Tab, preset: str) -> None:
    """Follows a link that names a preset."""
    tab.leaving = True
    tab.open(f"?{urlencode({'preset': preset})}")
    tab.leaving = False


def chosen(tab: Tab) -> str:
    return tab.find("preset-chooser").get_by_role("combobox").input_value()


def wait_for_choice(tab: Tab, name: str) -> None:
    open_bar(tab)
    wait_for(lambda: chosen(tab) == name, f"{name!r} to be chosen")


def save(tab: Tab, name: str, source: str = "The settings of this page", **fields: str) -> None:
    unfold(tab, "saving", "Save a preset")
    for field, text in {"name": name, **fields}.items():
        box = tab.find(f"preset-{field}").get_by_role("textbox")
        box.fill(text)
        box.blur()
    tab.find("preset-source").get_by_label(source).check()
    tab.find("preset-save").click()


def draw_over_http(server: Server, **fields) -> str:
    job = server.submit(**fields)
    end = server.finish(job)
    assert end["event"] == "done", end
    return pixels_sha256(server.client.get(f"/api/jobs/{job}/images/0").content)


def listed(server: Server) -> dict[str, dict]:
    return {entry["name"]: entry for entry in server.client.get("/api/presets").json()}


@pytest.mark.slow
def test_the_same_preset_is_the_same_picture_everywhere(preset_server, open_tab, tmp_path):
    over_http = draw_over_http(preset_server, preset=NAME)
    ended = run_webui(
        *("generate", "--preset", NAME.lower(), "--device", "cpu", "--dtype", "float32", "--json"),
        *("--data-dir", tmp_path / "data"),
    )
    assert ended.returncode == 0, ended.stderr
    [drawn] = [event for event in map(json.loads, ended.stdout.splitlines()) if event["event"] == "image"]
    assert drawn["pixels_sha256"] == over_http

    tab = open_tab()
    tab.set(prompt="something else", steps=3, guidance=9)
    choose(tab, NAME)
    assert tab.values("prompt")["prompt"] == "something else"  # nothing changes before Apply
    tab.find("preset-apply").click()
    tab.wait_for_value("prompt", "a red apple, flat style, on a blue background")
    tab.draw()
    assert pixels_sha256(tab.picture_bytes()) == over_http

    tab.set(seed=1)
    visit(tab, NAME)
    tab.wait_for_value("seed", "7")
    wait_for_choice(tab, NAME)
    tab.draw()
    assert pixels_sha256(tab.picture_bytes()) == over_http


def test_variables_are_filled_in_everywhere(preset_server, open_tab, tmp_path):
    fields = {"preset": "Mine & <b>yours</b>", "variables": {"thing": "panda"}}
    over_http = draw_over_http(preset_server, **fields)
    assert over_http == draw_over_http(preset_server, prompt="a panda, flat style", seed=5, **SMALL)
    assert over_http != draw_over_http(preset_server, **fields, seed=6)
    data = tmp_path / "data"
    (data / "presets").mkdir(parents=True)
    (data / "presets" / "mine.toml").write_text(MINE, "utf-8")
    cpu = ("--device", "cpu", "--dtype", "float32", "--data-dir", data, "--json")
    ended = run_here("generate", "--preset", fields["preset"], "--var", "thing=panda", *cpu)
    [drawn] = [event for event in map(json.loads, ended.stdout.splitlines()) if event["event"] == "image"]
    assert drawn["pixels_sha256"] == over_http
    assert ended.stderr.splitlines() == [
        "webui: preset 'Mine & <b>yours</b>': strange is not a known setting and is ignored",
        "webui: preset 'Mine & <b>yours</b>': model 'demo' is not the file that the preset was made with",
    ]

    tab = open_tab()
    choose(tab, fields["preset"])
    card = tab.find("preset-card")
    assert "<img src=x onerror=alert(2)>" in card.inner_text()
    assert "model 'demo' is not the file that the preset was made with" in card.inner_text()
    tab.find("preset-bar").get_by_label("thing").fill("panda")
    tab.find("preset-apply").click()
    tab.wait_for_value("prompt", "a panda, flat style")
    tab.draw()
    assert pixels_sha256(tab.picture_bytes()) == over_http


def test_a_picture_is_saved_renamed_passed_on_and_deleted(preset_server, open_tab, tmp_path):
    tab = open_tab()
    tab.draw(prompt="a red apple, flat style", **SMALL)
    made = pixels_sha256(tab.picture_bytes())
    tab.set(prompt="since then something else")
    save(tab, HOSTILE, "The chosen picture, to get it again", note="<b>bold</b>")
    wait_for_choice(tab, HOSTILE)
    entry = listed(preset_server)[HOSTILE]
    assert (entry["shipped"], entry["expected"], entry["note"]) == (False, made, "<b>bold</b>")
    assert re.fullmatch(r"[0-9a-f]{64}", entry["pins"]["model"])
    picture = preset_server.client.get(f"/{entry['preview']}")
    assert (picture.headers["content-type"], pixels_sha256(picture.content)) == ("image/png", made)
    assert draw_over_http(preset_server, preset=HOSTILE) == made

    unfold(tab, "changing", "Rename or delete")
    tab.find("preset-new-name").get_by_role("textbox").fill("Apple")
    tab.find("preset-rename").click()
    wait_for_choice(tab, "Apple")
    assert HOSTILE not in listed(preset_server)

    with tab.page.expect_download() as download:
        tab.find("preset-card").get_by_role("link", name="Export as TOML").click()
    exported = tmp_path / download.value.suggested_filename
    download.value.save_as(exported)
    assert exported.name == "Apple.toml" and tomllib.loads(exported.read_text("utf-8"))["expected"] == made

    tab.find("preset-delete").click()
    tab.find("preset-keep").click()
    assert "Apple" in listed(preset_server)
    tab.find("preset-delete").click()
    tab.page.get_by_role("button", name="Yes, delete Apple").click()
    wait_for(lambda: "Apple" not in listed(preset_server), "the preset to be deleted")
    wait_for_choice(tab, "")

    tab.page.locator("#txt2img-preset-bar input[type=file]").set_input_files(exported)
    wait_for_choice(tab, "Apple")
    tab.find("preset-apply").click()
    tab.wait_for_value("prompt", "a red apple, flat style")
    tab.draw()
    assert pixels_sha256(tab.picture_bytes()) == made


def test_a_page_is_saved_with_variables_and_what_ships_is_not_overwritten(preset_server, open_tab):
    tab = open_tab()
    tab.set(prompt="a {thing}, 3d style", **SMALL)
    save(tab, NAME)
    tab.wait_until_told("ships with the product")
    save(tab, "With a variable", defaults="thing = fox")
    wait_for_choice(tab, "With a variable")
    entry = listed(preset_server)["With a variable"]
    assert (entry["variables"], entry["fields"]["prompt"]) == ({"thing": "fox"}, "a {thing}, 3d style")
    tab.find("preset-apply").click()
    tab.wait_for_value("prompt", "a fox, 3d style")


def test_start_picture_settings_are_kept_by_the_other_pages(preset_server, open_tab):
    tab = open_tab()
    page = tab.page
    page.get_by_role("tab", name="inpaint").click()
    strength = page.locator("#inpaint-strength input[type=number]")
    strength.wait_for()
    tab.let_fields_settle()
    strength.fill("0.35")
    strength.blur()
    page.locator("#inpaint-preset-bar").get_by_role("button", name="Presets").click()
    page.locator("#inpaint-preset-saving").get_by_role("button", name="Save a preset").click()
    name = page.locator("#inpaint-preset-name").get_by_role("textbox")
    name.wait_for()
    tab.let_fields_settle()
    name.fill("Light touch")
    name.blur()
    page.locator("#inpaint-preset-save").click()
    wait_for(lambda: "Light touch" in listed(preset_server), "the preset")
    entry = listed(preset_server)["Light touch"]
    assert entry["init"]["strength"] == 0.35 and entry["init"]["mask_blur"] == 4
    assert "width" not in entry["fields"]  # the picture's own size is used
    visit(tab, "Light touch")
    page.get_by_role("tab", name="img2img").click()
    tab._wait("#img2img-strength input[type=number]", "(field, value) => field?.value === value", "0.35")


def test_a_link_s_preset_is_applied_once_and_only_where_it_is_for(preset_server, open_tab):
    tab = open_tab()
    visit(tab, NAME)
    tab.wait_until_told(f"Preset “{NAME}” is applied on txt2img and grid.")
    wait_for_choice(tab, NAME)
    assert "preset=" not in tab.page.url
    prompt = tab.find("prompt").locator("textarea")
    applied = prompt.input_value()
    tab.page.get_by_role("tab", name="img2img").click()
    assert tab.page.locator("#img2img-prompt textarea").input_value() != applied
    tab.page.get_by_role("tab", name="txt2img").click()
    prompt.fill("my own words")
    prompt.blur()
    tab.reload()
    tab._wait("#txt2img-prompt textarea", "(field, value) => field?.value === value", "my own words")
    assert "preset=" not in tab.page.url


def test_what_cannot_be_used_says_why(preset_server, open_tab):
    entries = listed(preset_server)
    assert entries["broken"]["problem"] == "broken.toml steps must be a whole number, not 'many'"
    assert "deep" in entries and entries[NAME]["shipped"]
    for preset, reason in (
        ("Flat stiker", "did you mean Flat sticker"),
        ("broken", "steps must be a whole number"),
        ("gone", "no model “photoreal”"),
        ("../../etc/passwd", "There is no "),
        (3, "preset must be text"),
    ):
        answer = preset_server.client.post("/api/jobs", json={"preset": preset})
        assert answer.status_code == 422 and reason in answer.json()["detail"]
    tab = open_tab()
    choose(tab, "gone")
    tab.find("preset-apply").click()
    tab.wait_until_told("no model “photoreal”")
    tab.draw(**SMALL)  # Generate waits for no settings that will never come
    visit(tab, "<img src=x onerror=alert(3)>")
    tab.page.wait_for_function("told.length && PAGES.every((page) => !darkroomFills.isWaiting(page))")
    [told] = tab.page.evaluate("told")  # once, though each page was asked
    assert "There is no preset “<img src=x onerror=alert(3)>”." in told
    open_bar(tab)
    tab.find("preset-card").locator(".preset-warning", has_text="There is no ").wait_for()
    visit(tab, "Mine & <b>yours</b>")
    tab.wait_until_told("model 'demo' is not the file that the preset was made with")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--preset", "Flat stiker"), "There is no preset “Flat stiker”; did you mean Flat sticker"),
        (("--preset", NAME, "--var", "size=3"), f"preset '{NAME}' has no variable 'size'; it has thing, colour"),
        (("--preset", NAME, "--var", "thing"), "--var must be NAME=TEXT, not 'thing'"),
        (("--prompt", "a", "--var", "thing=x"), "--var needs --preset"),
        (("--preset", "SDXL, fast"), "--prompt is required: preset 'SDXL, fast' has none"),
        (("--preset", NAME, "--steps", "0"), "steps must be at least 1, not '0'"),
    ],
)
def test_bad_use_on_the_command_line_is_one_line_and_status_2(arguments, reason, tmp_path):
    ended = run_here("generate", *arguments, "--data-dir", tmp_path / "data")
    assert (ended.returncode, ended.stdout) == (2, "")
    [line] = ended.stderr.splitlines()
    assert line.startswith(f"webui: {reason}")


def test_the_command_line_lists_them(tmp_path):
    ended = run_here("presets", "--data-dir", tmp_path / "data")
    assert ended.returncode == 0
    assert len(ended.stdout.splitlines()) == len(list(Path(SHIPPED).glob("*.toml")))
    assert f"{NAME}\tPlain shapes" in ended.stdout


def test_the_bar_fits_a_phone(preset_server, open_tab):
    tab = open_tab()
    tab.page.set_viewport_size({"width": 390, "height": 844})
    choose(tab, NAME)
    unfold(tab, "saving", "Save a preset")
    unfold(tab, "changing", "Rename or delete")
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= 390
    for button in ("apply", "save", "rename", "delete"):
        box = tab.find(f"preset-{button}").bounding_box()
        assert box and box["x"] >= 0 and box["x"] + box["width"] <= 390
