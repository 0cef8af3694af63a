"""Journeys through the page in a real Chromium. What is asserted is what a person sees."""

import io
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from PIL import Image as PilImages

from .server import MAX_STEPS, SMALL, Server, wait_for
from .tab import WINDOW, Tab

PROMPT = "a red apple, flat style, on a blue background"
MANY_STEPS = {"steps": 150, "width": 256, "height": 256}
TASKS = ("txt2img", "img2img", "inpaint")
# Roles that a person operates or reads a value from: each needs a name that a screen reader can say.
OPERATED = "button|textbox|spinbutton|slider|combobox|checkbox|radio|tab|link|progressbar|listbox|switch"


def test_a_picture_grows_before_the_eyes(tab):
    tab.set(prompt=PROMPT, steps=60)  # some seconds, of which the page shows several moments
    tab.generate()
    tab.wait_for_state("done")
    finished = tab.pixels(tab.picture)
    previews = tab.previews()
    assert len(previews) >= 3
    assert all(preview["shown"] and preview["state"] == "running" for preview in previews)
    drawn = [_shrunk(preview["jpeg"]) for preview in previews]
    assert all(earlier != later for earlier, later in pairwise(drawn))
    assert _difference(finished, drawn[0]) > _difference(finished, drawn[-1]) > 0
    assert not tab.find("preview").locator("img").count()  # one place for the picture: the preview made way
    assert re.fullmatch(r"Done in \d+\.\d s\.", tab.message)


def test_a_step_is_little_work_for_the_browser(tab):
    """Its processor is often the one that draws."""
    steps = 20
    tab.page.evaluate("""() => {
        const clone = structuredClone;
        window.clones = 0;
        window.structuredClone = (...given) => (window.clones++, clone(...given));
    }""")
    tab.draw(steps=1, width=192, height=192)
    once = tab.page.evaluate("const clones = window.clones; window.clones = 0; clones")
    session = tab.page.context.new_cdp_session(tab.page)
    session.send("Performance.enable")
    before = _layouts(session)
    tab.draw(steps=steps)
    assert _layouts(session) - before < 3 * steps  # none between one step and the next
    assert tab.page.evaluate("window.clones") < 1.5 * once  # a step touches the few components that show it
    session.detach()


def _layouts(session: Any) -> int:
    metrics = session.send("Performance.getMetrics")["metrics"]
    return next(metric["value"] for metric in metrics if metric["name"] == "LayoutCount")


def test_the_page_says_where_the_time_went(tab):
    tab.page.set_viewport_size({"width": 390, "height": 844})
    tab.draw(**SMALL)
    ledger = tab.find("status").locator(".ledger")
    heard = ledger.get_by_role("img").get_attribute("aria-label")
    assert re.fullmatch(r"(\w+ \d+% · )*\w+ \d+%", heard) and "Steps" in heard
    assert not ledger.get_by_role("listitem").count()
    ledger.get_by_text("Where the time went").click()
    rows = ledger.get_by_role("listitem").all_inner_texts()
    found = [re.fullmatch(r"(\w+) (\d+\.\d\d) s (\d+%)", row).groups() for row in rows]
    assert [f"{name} {share}" for name, _, share in found] == heard.split(" · ")
    seconds = [float(spent_s) for name, spent_s, _ in found if name != "Other"]
    assert seconds == sorted(seconds, reverse=True)
    assert abs(sum(float(spent_s) for _, spent_s, _ in found) - float(re.search(r"\d+\.\d", tab.message)[0])) < 0.1
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= 390
    tab.draw()
    ledger.get_by_role("listitem").first.wait_for()  # once opened, it is open for the next job too


def _shrunk(jpeg: bytes) -> list[int]:
    return list(PilImages.open(io.BytesIO(jpeg)).convert("RGBA").resize((32, 32)).tobytes())


def _difference(left: list[int], right: list[int]) -> float:
    return sum(abs(a - b) for a, b in zip(left, right, strict=True)) / len(left)


def test_stop_ends_within_a_step_and_the_next_picture_comes(tab, server):
    tab.set(**MANY_STEPS)
    job = tab.generate()
    seen = tab.wait_for_step()
    tab.find("stop").click()
    tab.wait_for_state("cancelled")
    stopped = re.fullmatch(r"Stopped at step (\d+) of 150\.", tab.message)
    # Between reading the step and the click reaching the server go some milliseconds, and steps with them.
    assert stopped and seen <= int(stopped[1]) < 100
    assert server.show(job)["state"] == "cancelled"
    tab.draw(**SMALL)
    assert any(tab.pixels(tab.picture))


def test_a_reload_finds_the_running_job_its_result_and_all_fields(tab, server):
    tab.set(prompt=PROMPT, negative="blurry", seed=1234, guidance=3.5, steps=20, repeat=100)
    tab.choose("sampler", "Euler a")
    names = ("prompt", "negative", "seed", "guidance", "steps", "repeat", "sampler", "width", "height")
    before = tab.values(*names)
    assert before["sampler"] == "Euler a"
    job = tab.generate()
    tab.wait_for_step()
    tab.reload()
    tab.wait_for_state("running")
    assert tab.job == job
    tab.find("preview").locator("img").wait_for()
    assert tab.values(*names) == before
    wait_for(lambda: server.show(job)["images"], "its first picture")
    server.cancel(job)
    tab.wait_for_state("cancelled")
    assert tab.job == job
    assert "Seed: 1234" in tab.infotext


def test_a_job_ends_while_no_tab_is_open_and_the_next_tab_shows_it(open_tab, server):
    tab = open_tab()
    tab.set(prompt=PROMPT, seed=77, **SMALL)
    job = tab.generate()
    tab.page.close()
    wait_for(lambda: server.show(job)["state"] == "done", "the job nobody watches to end")
    tab = open_tab()
    tab.wait_for_state("done")
    assert tab.job == job
    assert tab.values("prompt", "seed", "steps") == {"prompt": PROMPT, "seed": "77", "steps": "2"}
    tab.wait_for_infotext("Seed: 77")
    assert any(tab.pixels(tab.picture))


def test_two_tabs_have_a_job_each(open_tab, server):
    first, second = open_tab(), open_tab()
    # One picture: between several of one job it would be the other's turn.
    first.set(prompt="the first", seed=1, width=384, height=384, steps=MAX_STEPS)
    second.set(prompt="the second", seed=2, **SMALL)
    job_1 = first.generate()
    first.wait_for_step()
    job_2 = second.generate()
    assert job_1 != job_2
    assert second.state == "queued"
    assert "next in line" in second.message
    first.find("stop").click()
    first.wait_for_state("cancelled")
    second.wait_for_state("done")
    for tab, job, prompt, state in ((first, job_1, "the first", "cancelled"), (second, job_2, "the second", "done")):
        tab.reload()
        tab.wait_for_state(state)
        assert tab.job == job
        assert tab.values("prompt")["prompt"] == prompt
    assert second.infotext.startswith("the second") and "Seed: 2," in second.infotext
    second.picture.wait_for()
    assert job_2 in second.picture.get_attribute("src")


BAD_INPUT = (
    ({"steps": "0"}, "steps must be at least 1, not 0"),
    ({"guidance": "-1"}, "guidance must be at least 0, not -1"),
    ({"width": "63"}, "width must be a multiple of 8 from 64 to 2048, such as 64"),
    ({"seed": ""}, "seed must be a whole number"),
    ({"prompt": "a" * 100_000}, "prompt must be at most 8000 characters long; it has 100,000"),
)


def test_bad_input_is_named_and_nothing_is_lost(tab, server):
    good = {"prompt": PROMPT, "negative": "blurry", "seed": 5, "width": 128, "steps": 3, "guidance": 2}
    for bad, message in BAD_INPUT:
        tab.set(**(good | bad))
        tab.find("generate").click()
        tab.wait_for_message(message)
        assert tab.state == "failed"
        assert tab.status.is_visible()
        assert tab.job == ""
        assert server.is_idle()
        assert tab.values(*good) == {name: str(value) for name, value in (good | bad).items()}


def test_bad_input_leaves_the_last_picture(tab, server):
    tab.draw(seed=8, **SMALL)
    before = tab.pixels(tab.picture)
    tab.set(steps=0)
    tab.find("generate").click()
    tab.wait_for_state("failed")
    assert tab.pixels(tab.picture) == before
    tab.draw(steps=1)
    assert "Steps: 1," in tab.infotext


def test_keys_generate_and_stop(tab):
    tab.set(prompt=PROMPT, **MANY_STEPS)
    tab.find("prompt").locator("textarea").focus()
    tab.generate(lambda: tab.page.keyboard.press("Control+Enter"))
    tab.wait_for_step()
    tab.page.keyboard.press("Escape")
    tab.wait_for_state("cancelled")
    # A number that is still being typed counts.
    tab.set(width=64, height=64)
    steps = tab.find("steps").locator("input[type=number]")
    steps.fill("3")
    tab.generate(lambda: steps.press("Control+Enter"))
    tab.wait_for_state("done")
    assert "Steps: 3," in tab.infotext


def test_seed_can_be_random_and_reused(tab):
    tab.draw(**SMALL)
    drawn = re.search(r"Seed: (\d+)", tab.infotext)[1]
    first = tab.pixels(tab.picture)
    assert tab.values("seed")["seed"] == "-1"
    tab.page.get_by_role("button", name="Reuse last").click()
    tab.wait_for_value("seed", drawn)
    tab.draw()
    assert f"Seed: {drawn}," in tab.infotext
    assert tab.pixels(tab.picture) == first
    tab.page.get_by_role("button", name="Random seed").click()
    tab.wait_for_value("seed", "-1")
    tab.draw()
    assert f"Seed: {drawn}," not in tab.infotext


def test_sizes_can_be_chosen_and_swapped(tab):
    assert tab.values("width", "height") == {"width": "128", "height": "128"}
    shape = {name: tab.find("size").get_by_role("button", name=name, exact=True) for name in ("3:2", "2:3", "16:9")}
    for name, width, height in (("16:9", "224", "128"), ("3:2", "192", "128")):
        shape[name].click()
        tab.wait_for_value("width", width)
        tab.wait_for_value("height", height)
    tab.find("swap").click()
    tab.wait_for_value("width", "128")
    tab.wait_for_value("height", "192")
    tab.find("size").locator("[data-shape='2:3'][aria-pressed=true]").wait_for()
    tab.draw(width=128, height=64, steps=1)
    assert tab.size_of(tab.picture) == [128, 64]


def test_a_picture_gives_its_settings_back(tab):
    tab.choose("sampler", "UniPC")
    made_with = {"prompt": PROMPT, "negative": "dull", "seed": "31", "steps": "3", "guidance": "4", "width": "64"}
    tab.draw(height=72, **made_with)
    tab.choose("sampler", "Euler a")
    tab.set(prompt="another", negative="", seed=1, steps=9, guidance=1, width=128, height=128)
    tab.find("reuse-seed").click()
    tab.wait_for_value("prompt", PROMPT)
    expected = made_with | {"height": "72", "sampler": "UniPC"}
    assert tab.values(*expected) == expected


def test_three_pictures_each_with_its_own_settings(tab):
    tab.draw(prompt=PROMPT, seed=100, count=3, **SMALL)
    tab.picture.wait_for()  # the thumbnails are first in a grid, then below the large picture
    seen = []
    for number, seed in ((1, 100), (2, 101), (3, 102)):
        tab.find("gallery").get_by_role("button", name=f"Thumbnail {number} of 3").click()
        tab.wait_for_infotext(f"Seed: {seed},")
        tab.find("gallery").get_by_text(f"Seed {seed}").first.wait_for()
        tab.page.locator(f"#txt2img-gallery img[alt='Seed {seed}']").first.wait_for()
        seen.append(tab.pixels(tab.picture))
    assert len({bytes(pixels) for pixels in seen}) == 3
    tab.page.get_by_role("button", name="Reuse last").click()
    tab.wait_for_value("seed", "102")


def test_the_download_is_the_original_file(tab, server):
    job = tab.draw(prompt=PROMPT, seed=9, **SMALL)
    tab.picture.wait_for()
    with tab.page.expect_download() as download:
        tab.page.get_by_role("button", name="Download").click()
    with open(download.value.path(), "rb") as file:
        downloaded = file.read()
    assert download.value.suggested_filename.endswith(".png")
    [saved] = [path for path in server.pictures() if str(path) == server.show(job)["images"][0]["path"]]
    assert downloaded == saved.read_bytes()
    assert PilImages.open(io.BytesIO(downloaded)).text["parameters"] == tab.infotext


def test_a_prompt_is_text_and_nothing_else(tab):
    attack = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    tab.draw(prompt=attack, negative=attack, **SMALL)
    tab.picture.wait_for()
    assert tab.infotext.startswith(attack)
    assert not tab.page.locator("img[src='x']").count()
    tab.reload()  # now the text comes back out of the browser's memory
    tab.wait_for_infotext(attack)
    assert tab.values("prompt", "negative") == {"prompt": attack, "negative": attack}
    assert not tab.page.locator("img[src='x']").count()


def _each_page_with_everything_open(tab: Tab) -> Iterator[str]:
    tab.draw(**SMALL)
    tab.picture.wait_for()
    tab.find("settings").get_by_role("button", name="Settings").click()  # shut again
    for task in TASKS:
        tab.page.get_by_role("tab", name=task).click()
        tab.page.locator(f"#{task}-generate").wait_for()
        tab.page.locator(f"#{task}-settings").get_by_role("button", name="Settings").click()
        tab.page.locator(f"#{task}-steps").wait_for()
        yield task


def test_every_control_has_a_name_and_a_phone_shows_everything_in_one_column(tab):
    for task in _each_page_with_everything_open(tab):
        heard = tab.page.locator("body").aria_snapshot()
        controls = re.findall(rf"^\s*- (?:{OPERATED})\b.*$", heard, re.MULTILINE)
        assert len(controls) > 25, task
        nameless = [line for line in controls if not re.match(rf'\s*- (?:{OPERATED}) ("[^"]*\w|/)', line)]
        assert not nameless, f"{task}: {nameless}\n{heard}"
        tab.page.set_viewport_size({"width": 390, "height": 844})
        tab.let_fields_settle()
        assert tab.page.evaluate("document.documentElement.scrollWidth") <= 390, task
        boxes = tab.page.locator("button:visible, input:visible, textarea:visible").evaluate_all(
            "all => all.filter(e => !e.closest('.tab-container, .sending, .finished'))"  # rows that a finger scrolls
            ".map(e => [e.getBoundingClientRect(), e.ariaLabel || e.id || e.innerText])"
            ".filter(([box]) => box.width > 1)"
            ".map(([box, name]) => [name, box.left, box.right])"
        )
        assert len(boxes) > 20, task
        assert not [box for box in boxes if box[1] < -0.5 or box[2] > 390.5], task
        tab.page.set_viewport_size(WINDOW)


def test_a_new_browser_is_told_at_once_what_the_page_is_made_of(open_tab, server):
    """What it is not told it would ask for in waves, each of which waits for the one before."""
    page = open_tab().page
    told = set(re.findall(r'<link rel="[^>]*href="(assets/[^"]+)"', page.request.get(server.url).text()))
    names = "performance.getEntriesByType('resource').map((entry) => new URL(entry.name).pathname.slice(1))"
    asked = {name for name in page.evaluate(names) if name.startswith("assets/")}
    entries = "performance.getEntriesByName(new URL(`theme.css?v=${gradio_config.theme_hash}`, location.href))"
    assert len(page.evaluate(f"{entries}.map((entry) => entry.startTime)")) == 1, (
        "what is shown before it has no colours"
    )
    assert {name for name in asked - told if not name.startswith("assets/darkroom-")} == set()
    assert len(asked) > 80


def test_dark_and_light(open_tab):
    def brightness(tab: Tab) -> int:
        shot = tab.page.screenshot(clip={"x": 4, "y": 300, "width": 1, "height": 1})
        return PilImages.open(io.BytesIO(shot)).convert("L").getpixel((0, 0))

    dark = open_tab("?__theme=dark")
    assert brightness(dark) < 60
    light = open_tab("?__theme=light")
    assert brightness(light) > 200
    light.page.get_by_role("button", name="Switch between dark and light").click()
    wait_for(lambda: brightness(light) < 60, "the page to turn dark")
    light.reload()
    assert brightness(light) < 60
    light.page.get_by_role("button", name="Switch between dark and light").click()
    wait_for(lambda: brightness(light) > 200, "the page to turn light")


def test_the_page_says_who_works(tab, server: Server):
    chip = tab.page.locator("#darkroom-engine")
    health = server.health()
    assert chip.inner_text() == f"{health['model']} · {health['device']}"
