"""Presets and styles as people use them: the same picture from page, command line, HTTP and address; the shelf."""

import hashlib
import io
import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image as PilImages

from webui.workspace.presets import SHIPPED

from .conftest import tab_opener
from .server import SMALL, Server, run_here, run_webui
from .tab import Tab
from .test_drop import drop

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
    """A server with some presets of its own: one whose pin does not hold, one of files that are not here."""
    folder = tmp_path_factory.mktemp("presets")
    presets = folder / "data" / "presets"
    presets.mkdir(parents=True)
    (presets / "mine.toml").write_text(MINE, "utf-8")
    (presets / "small.toml").write_text("name = 'Small'\n[fields]\nsteps = 2\nwidth = 64\nheight = 64\nseed = 5\n")
    (presets / "gone.toml").write_text("[fields]\nmodel = 'photoreal'\nprompt = 'a'\nloras = ['nowhere']\n")
    (presets / "light.toml").write_text("name = 'Light touch'\n[init]\nstrength = 0.35\n")
    server = Server(folder)
    yield server
    server.close()


@pytest.fixture(scope="module")
def tab(context, preset_server: Server) -> Iterator[Tab]:
    """One page for all tests, which leave it without styles and with the shelf shut."""
    for open_one in tab_opener(context, preset_server):
        yield open_one()


@pytest.fixture(autouse=True)
def shut(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "tab" in request.fixturenames:
        page = request.getfixturevalue("tab").page
        page.evaluate("document.querySelector('dialog[open]')?.close()")
        page.evaluate("darkroom.PAGES.forEach((page) => page !== 'upscale' && darkroomPresets.setStyles(page, []))")


def pixels_sha256(png: bytes) -> str:
    return hashlib.sha256(PilImages.open(io.BytesIO(png)).convert("RGB").tobytes()).hexdigest()


def shelf(tab: Tab, name: str = "txt2img"):
    """The shelf, open for a page."""
    dialog = tab.page.locator("#darkroom-presets")
    if not dialog.is_visible():
        tab.page.locator(f"#{name}-presets").click()
        dialog.locator(".presets-found li").first.wait_for()
    return dialog


def card(tab: Tab, name: str, page: str = "txt2img"):
    return shelf(tab, page).locator(f".presets-found li[data-name={json.dumps(name)}] button").first


def more(tab: Tab, name: str):
    """What can be done with one, in the pane."""
    shelf(tab).get_by_role("button", name=f"More about {name}", exact=True).click()
    return tab.page.locator(".presets-pane")


def apply(tab: Tab, name: str, **variables: str) -> None:
    card(tab, name).click()
    for variable, text in variables.items():
        tab.page.locator(".presets-pane").get_by_label(variable).fill(text)
    if tab.page.locator("#darkroom-presets").is_visible():
        tab.page.keyboard.press("Enter")
    tab.page.locator("#darkroom-presets").wait_for(state="hidden")


def undo(tab: Tab) -> None:
    tab.page.locator(".undo-note").get_by_role("button", name="Undo").click()


def visit(tab: Tab, preset: str) -> None:
    """Follows a link that names a preset."""
    tab.leaving = True
    tab.open(f"?{urlencode({'preset': preset})}")
    tab.leaving = False
    tab.page.wait_for_function("!location.search && PAGES.every((page) => !darkroomFills.isWaiting(page))")


def save(tab: Tab, name: str, source: str = "The settings of this page", **fields: str) -> None:
    shelf(tab).get_by_role("button", name="Save …").click()
    pane = tab.page.locator(".presets-pane")
    pane.get_by_label("Name", exact=True).fill(name)
    for field, text in fields.items():
        pane.get_by_label(field).fill(text)
    pane.get_by_label(source).check()
    pane.get_by_role("button", name="Save").click()


def wait_until_said(tab: Tab, text: str) -> None:
    tab._wait(".presets-said", "(line, text) => line.textContent.includes(text)", text)


def draw_over_http(server: Server, **fields) -> str:
    job = server.submit(**fields)
    end = server.finish(job)
    assert end["event"] == "done", end
    return pixels_sha256(server.client.get(f"/api/jobs/{job}/images/0").content)


def listed(server: Server) -> dict[str, dict]:
    return {entry["name"]: entry for entry in server.client.get("/api/presets").json()}


@pytest.mark.slow
def test_the_same_preset_is_the_same_picture_everywhere(preset_server, tab, tmp_path):
    over_http = draw_over_http(preset_server, preset=NAME)
    ended = run_webui(
        *("generate", "--preset", NAME.lower(), "--device", "cpu", "--dtype", "float32", "--json"),
        *("--data-dir", tmp_path / "data"),
    )
    assert ended.returncode == 0, ended.stderr
    [drawn] = [event for event in map(json.loads, ended.stdout.splitlines()) if event["event"] == "image"]
    assert drawn["pixels_sha256"] == over_http

    tab.set(prompt="something else", steps=3, guidance=9)
    apply(tab, NAME)
    tab.wait_for_value("prompt", "a red apple, flat style, on a blue background")
    tab.draw()
    assert pixels_sha256(tab.picture_bytes()) == over_http

    tab.set(seed=1)
    visit(tab, NAME)
    tab.wait_for_value("seed", "7")
    tab.draw()
    assert pixels_sha256(tab.picture_bytes()) == over_http


def test_variables_are_filled_in_everywhere_and_what_to_know_is_told(preset_server, tab, tmp_path):
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

    pane = more(tab, fields["preset"])
    pane.get_by_text("model 'demo' is not the file that the preset was made with").wait_for()
    assert "<img src=x onerror=alert(2)>" in pane.inner_text()
    apply(tab, fields["preset"], thing="panda")
    tab.wait_for_value("prompt", "a panda, flat style")
    tab.wait_until_told("model 'demo' is not the file that the preset was made with")
    tab.draw()
    assert pixels_sha256(tab.picture_bytes()) == over_http


def test_what_it_changes_is_seen_before_and_one_press_changes_it_and_undo_takes_it_back(tab):
    tab.set(prompt="a fox", steps=9, seed=3)
    tab.choose("sampler", "Euler")
    tab.page.wait_for_function("JSON.parse(darkroom.recall('txt2img')).sampler === 'Euler'")
    card(tab, "Small").focus()
    rows = tab.page.locator(".presets-pane dl").inner_text().split("\n")
    assert "Steps" in rows and "2 now 9" in rows and "5 now 3" in rows and "Sampler" not in rows
    tab.page.keyboard.press("Enter")
    tab.wait_for_value("steps", "2")
    assert tab.values("prompt", "seed", "sampler") == {"prompt": "a fox", "seed": "5", "sampler": "Euler"}
    assert tab.page.evaluate("document.activeElement.id") == "txt2img-presets"
    undo(tab)
    tab.wait_for_value("steps", "9")
    tab.wait_for_value("seed", "3")


def test_styles_add_up_around_the_prompt_and_their_picture_needs_them_no_more(preset_server, tab):
    tab.set(prompt="a fox", seed=5, guidance=5, **SMALL)
    tab.choose("sampler", "Euler")
    for name in ("By night", "3D style"):
        card(tab, name).focus()
        tab.page.keyboard.press("Space")
        assert card(tab, name).get_attribute("aria-pressed") == "true"
    assert "2 styles are on: By night, 3D style" in shelf(tab).inner_text()
    tab.page.keyboard.press("Escape")
    chips = tab.page.locator(".chips[data-page=txt2img]")
    chips.get_by_role("button", name="Style: 3D style", exact=True).wait_for()
    tab.draw()
    assert tab.values("prompt")["prompt"] == "a fox"
    tab.wait_for_infotext("a fox, night, 3d style <lora:night:0.6>")
    drawn = pixels_sha256(tab.picture_bytes())
    asked = {"prompt": "a fox", "seed": 5, "guidance": 5, "sampler": "Euler", **SMALL}
    assert drawn == draw_over_http(preset_server, **asked, styles=["by night", "3D style"])
    full = asked | {"prompt": "a fox, night, 3d style", "loras": ["night:0.6"]}
    assert drawn == draw_over_http(preset_server, **full)

    chips.get_by_role("button", name="Take Style: By night off").click()
    chips.get_by_text("Style: By night").wait_for(state="detached")
    tab.draw()
    tab.wait_for_infotext("a fox, 3d style\n")
    tab.find("reuse-settings").click()
    tab.wait_for_value("prompt", "a fox, 3d style")  # once, for the style goes off with it
    chips.get_by_text("Style:").wait_for(state="detached")
    undo(tab)
    tab.wait_for_value("prompt", "a fox")
    chips.get_by_role("button", name="Style: 3D style", exact=True).click()
    tab.page.locator(".presets-pane").get_by_role("button", name="Write into the prompt").click()
    tab.wait_for_value("prompt", "a fox, 3d style")
    chips.get_by_text("Style:").wait_for(state="detached")


def test_one_for_another_model_is_kept_apart_warns_and_leaves_the_size_alone(tab):
    tab.set(width=96, height=96, steps=7)
    note = shelf(tab).locator(".presets-note")
    assert "4 more are for other models." in note.inner_text() and not card(tab, "SDXL, quality").count()
    pane = tab.page.locator(".presets-pane")
    card(tab, "From a drawing").click()
    assert "demo-edges control" in pane.inner_text()  # what it changes
    pane.get_by_role("button", name="Back").click()
    shelf(tab).get_by_label("Search presets").fill("sdxl")
    note.get_by_role("button", name="Show all").click()
    card(tab, "SDXL, quality").click()
    assert "It is for SDXL, and the model here is demo." in pane.inner_text()
    assert pane.get_by_label("Keep this page's size, not 1024 × 1024").is_checked()
    pane.get_by_role("button", name="Apply").click()
    tab.wait_for_value("steps", "40")
    assert tab.values("width", "height") == {"width": "96", "height": "96"}
    undo(tab)
    tab.wait_for_value("steps", "7")
    shelf(tab).get_by_label("Which presets").select_option("Made for SDXL")
    card(tab, "SDXL, fast").click()
    pane.get_by_label("Keep this page's size").uncheck()
    pane.get_by_role("button", name="Apply").click()
    tab.wait_for_value("width", "1024")


def test_a_picture_is_saved_renamed_passed_on_and_deleted(preset_server, tab, tmp_path):
    tab.draw(prompt="a red apple, flat style", **SMALL)
    made = pixels_sha256(tab.picture_bytes())
    tab.set(prompt="since then something else")
    save(tab, HOSTILE, "The selected picture, with its seed", Note="<b>bold</b>")
    wait_until_said(tab, f"Saved {HOSTILE}.")
    assert (listed(preset_server)[HOSTILE]["expected"], listed(preset_server)[HOSTILE]["note"]) == (made, "<b>bold</b>")
    assert draw_over_http(preset_server, preset=HOSTILE) == made
    pane = tab.page.locator(".presets-pane")
    pane.get_by_label("New name").fill("Apple")
    pane.get_by_role("button", name="Rename").click()
    wait_until_said(tab, "It is called Apple now.")
    assert HOSTILE not in listed(preset_server)
    with tab.page.expect_download() as download:
        pane.get_by_role("link", name="Export as TOML").click()
    exported = tmp_path / download.value.suggested_filename
    download.value.save_as(exported)
    assert exported.name == "Apple.toml" and tomllib.loads(exported.read_text("utf-8"))["expected"] == made
    pane.get_by_role("button", name="Delete").click()
    pane.get_by_role("button", name="Keep it").click()
    assert "Apple" in listed(preset_server)
    pane.get_by_role("button", name="Delete").click()
    pane.get_by_role("button", name="Yes, delete it").click()
    wait_until_said(tab, "Deleted Apple.")
    assert "Apple" not in listed(preset_server) and not card(tab, "Apple").count()
    shelf(tab).locator("input[type=file]").set_input_files(exported)
    wait_until_said(tab, "Imported Apple.")
    apply(tab, "Apple")
    tab.wait_for_value("prompt", "a red apple, flat style")
    tab.draw()
    assert pixels_sha256(tab.picture_bytes()) == made


def test_a_page_is_saved_with_variables_and_what_ships_is_not_overwritten(preset_server, tab):
    tab.set(prompt="a {thing}, 3d style", **SMALL)
    tab.is_refused = True  # the browser notes each answer that is a refusal
    save(tab, NAME)
    wait_until_said(tab, "ships with the product")
    tab.is_refused = False
    save(tab, "With a variable", Variables="thing = fox")
    wait_until_said(tab, "Saved With a variable.")
    entry = listed(preset_server)["With a variable"]
    assert (entry["variables"], entry["fields"]["prompt"]) == ({"thing": "fox"}, "a {thing}, 3d style")
    apply(tab, "With a variable")
    tab.wait_for_value("prompt", "a fox, 3d style")
    save(tab, "My words", "The prompt and LoRAs, as a style")
    wait_until_said(tab, "Saved My words.")
    assert listed(preset_server)["My words"]["fields"] == {"prompt": "{prompt}, a fox, 3d style"}


def test_a_dropped_file_of_styles_is_imported_and_arrows_walk_through_the_shelf(tab):
    rows = b"name,prompt,negative_prompt\nAa oil,oil painting of {prompt},photo\nAb ink,ink drawing,\n"
    drop(tab.page, rows, "styles.csv").get_by_role("button", name="Import as presets").click()
    wait_until_said(tab, "Imported Aa oil, Ab ink.")
    assert "ink drawing" in tab.page.locator(".presets-pane").inner_text()
    tab.page.keyboard.press("Escape")
    shelf(tab).get_by_label("Search presets").fill("style")
    first = shelf(tab).locator(".presets-found li > button:first-child")
    first.first.focus()
    for key, place in (("ArrowRight", 1), ("ArrowDown", 6), ("ArrowLeft", 5), ("ArrowUp", 0)):
        tab.page.keyboard.press(key)
        assert first.nth(place).evaluate("(card) => card === document.activeElement"), (key, place)


def test_start_picture_settings_are_kept_by_the_other_pages(preset_server, tab):
    page = tab.page
    page.get_by_role("tab", name="inpaint").click()
    strength = page.locator("#inpaint-strength input[type=number]")
    strength.wait_for()
    tab.let_fields_settle()
    strength.fill("0.45")
    strength.blur()
    page.wait_for_function("JSON.parse(darkroom.recall('inpaint') || '{}').strength === 0.45")
    shelf(tab, "inpaint")
    save(tab, "Firm touch")
    wait_until_said(tab, "Saved Firm touch.")
    entry = listed(preset_server)["Firm touch"]
    assert entry["init"]["strength"] == 0.45 and entry["init"]["mask_blur"] == 4
    assert "width" not in entry["fields"]  # the picture's own size is used
    visit(tab, "Light touch")
    page.get_by_role("tab", name="img2img").click()
    tab._wait("#img2img-strength input[type=number]", "(field, value) => field?.value === value", "0.35")
    page.get_by_role("tab", name="txt2img").click()


def test_a_link_s_preset_is_applied_once_and_only_where_it_is_for(tab):
    tab.set(prompt="before the link")
    visit(tab, NAME)
    tab.wait_until_told(f"Preset “{NAME}” is applied on txt2img and grid.")
    prompt = tab.find("prompt").locator("textarea")
    applied = prompt.input_value()
    undo(tab)
    tab.wait_for_value("prompt", "before the link")
    tab.page.get_by_role("tab", name="img2img").click()
    assert tab.page.locator("#img2img-prompt textarea").input_value() != applied
    tab.page.get_by_role("tab", name="txt2img").click()
    prompt.fill("my own words")
    prompt.blur()
    tab.reload()
    tab._wait("#txt2img-prompt textarea", "(field, value) => field?.value === value", "my own words")
    assert "preset=" not in tab.page.url


def test_what_cannot_be_used_says_why(preset_server, tab):
    for preset, reason in (
        ("Flat stiker", "did you mean Flat sticker"),
        ("gone", "no model “photoreal”"),
        ("../../etc/passwd", "There is no "),
        (3, "preset must be text"),
    ):
        answer = preset_server.client.post("/api/jobs", json={"preset": preset})
        assert answer.status_code == 422 and reason in answer.json()["detail"]
    card(tab, "gone").click()
    tab.wait_until_told("no model “photoreal”")
    tab.draw(**SMALL)  # Generate waits for no settings that will never come
    visit(tab, "<img src=x onerror=alert(3)>")
    tab.page.wait_for_function("told.length")
    [told] = tab.page.evaluate("told")  # once, though each page was asked
    assert "There is no preset “<img src=x onerror=alert(3)>”." in told


def test_the_shelf_is_for_everybody_and_fills_a_phone(tab):
    tab.page.set_viewport_size({"width": 390, "height": 844})
    dialog = shelf(tab)
    assert dialog.bounding_box() == {"x": 0, "y": 0, "width": 390, "height": 844}

    def check() -> None:
        found = Axe().run(tab.page, context="#darkroom-presets").response["violations"]
        assert not found, [(each["id"], each["nodes"][0]["html"]) for each in found]
        inside = "({ left, right, width, height }) => left >= 0 && right <= 390 && Math.min(width, height) >= 17"
        parts = dialog.locator("button, input:not([type=file]), select, textarea, a")
        seen = "all.map((each) => each.getBoundingClientRect()).filter(({ width }) => width)"
        assert parts.evaluate_all(f"(all) => {seen}.every({inside})")

    dialog.get_by_label("Search presets").fill("night")  # so many cards as there are kinds of
    card(tab, "By night").click()
    check()
    more(tab, "Night animal")
    check()
    tab.page.locator(".presets-pane").get_by_role("button", name="Back").click()
    tab.page.evaluate("document.body.classList.add('dark')")
    check()
    dialog.get_by_role("button", name="Save …").click()
    check()
    tab.page.evaluate("document.body.classList.remove('dark')")
    tab.page.set_viewport_size({"width": 1280, "height": 900})


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
