"""How far the work is, for whoever looks elsewhere; what is drawn again and again, and what is left out."""

import io

from PIL import Image as PilImages

from .server import SMALL

LONG = {"steps": 40, "width": 160, "height": 160}
# A tab that nobody looks at, and what a page sounds and notifies.
LISTEN = """() => {
  window.tones = []; window.notified = []; window.away = false;
  Object.defineProperty(document, "hidden", { get: () => window.away });
  window.OscillatorNode = class extends OscillatorNode {
    constructor(context, options) { super(context, options); window.tones.push(options.frequency); }
  };
  window.Notification = class {
    static permission = "default";
    static requestPermission = async () => (window.Notification.permission = "granted");
    constructor(title, { body }) { window.notified.push([title, body]); }
  };
}"""
LOOK_AWAY = "(away) => { window.away = away; document.dispatchEvent(new Event('visibilitychange')); }"
ICON = "document.querySelector('link[rel~=icon]').href"
HEARD = "document.getElementById('darkroom-announcer').textContent"


def test_the_title_the_icon_a_sound_and_a_notification_say_how_far_it_is(open_tab, server):
    tab = open_tab()
    page = tab.page
    page.evaluate(LISTEN)
    for name in ("Sound", "Notification"):
        tab.queue.get_by_label(name).check()
    page.wait_for_function("Notification.permission === 'granted'")
    assert page.evaluate("tones") == [660, 880]  # how it sounds
    page.keyboard.press("Escape")
    own_icon = page.evaluate(f"{ICON}") if page.locator("link[rel~=icon]").count() else None
    tab.set(prompt="a red apple, flat style", seed=7, **LONG)
    tab.generate()
    page.evaluate(LOOK_AWAY, True)
    page.wait_for_function(r"/^[1-9]\d* % · Darkroom$/.test(document.title)")
    page.wait_for_function(f"{ICON}.startsWith('data:image/png')")
    page.wait_for_function(f"/^Step [1-4]\\d of 40/.test({HEARD})")  # a quarter is done
    tab.wait_for_state("done")
    page.wait_for_function(f"{HEARD}.startsWith('Picture finished: a red apple, flat style, seed 7. Done in ')")
    page.wait_for_function("document.title === '✓ Darkroom'")
    page.wait_for_function("notified.length === 1")
    assert page.evaluate("notified") == [["Darkroom", "Picture finished: a red apple, flat style, seed 7."]]
    assert page.evaluate("tones.slice(2)") == [660, 880]
    page.evaluate(LOOK_AWAY, False)
    page.wait_for_function("document.title === 'Darkroom'")
    page.wait_for_function(f"!{ICON}.startsWith('data:')")
    assert own_icon is None or page.evaluate(ICON) == own_icon
    tab.draw(**SMALL)
    assert page.evaluate("notified.length") == 1  # somebody is there


def pixels(png: bytes) -> bytes:
    return PilImages.open(io.BytesIO(png)).convert("RGB").tobytes()


def choose(tab, way: str) -> None:
    """From the menu beside Generate, by the keyboard alone."""
    tab.find("more").press("Enter")
    tab.page.get_by_role("menuitemcheckbox", name=way).press("Enter")


def test_pictures_are_skipped_and_drawn_forever(open_tab, server):
    tab = open_tab()
    page = tab.page
    tab.set(prompt="a panda, 3d style", repeat=3, steps=60, width=128, height=128)
    job = tab.generate()
    tab.wait_for_step()
    tab.find("skip").click()
    tab.wait_for_state("done")
    assert "Picture 1 was skipped." in tab.message
    assert [image["index"] for image in server.show(job)["images"]] == [1, 2]

    tab.set(repeat=1, **SMALL)
    choose(tab, "Generate forever")
    page.wait_for_function("darkroomJobs.isBusy('txt2img')")
    known = "JSON.parse(sessionStorage.getItem('darkroom.txt2img.jobs')).filter((run) => run.forever && run.seen)"
    page.wait_for_function(f"{known}.length >= 3")
    assert len(server.client.get("/api/queue").json()) <= 2  # one is drawn, one waits
    page.get_by_role("button", name="Stop after this one").click()
    page.wait_for_function("!darkroomJobs.isBusy('txt2img')")
    server.settle()
    drawn = [server.show(job) for job in tab.jobs[1:]]
    seeds = [shown["request"]["seed"] for shown in drawn if shown["state"] == "done"]
    assert len({*seeds}) == len(seeds) >= 3

    tab.set(seed=5)
    choose(tab, "Generate forever")
    page.get_by_text("The seed is kept, so every picture would be the same.").wait_for()
    assert not page.evaluate("darkroomJobs.isBusy('txt2img')")


def test_pictures_are_drawn_live(open_tab, server):
    tab = open_tab()
    page = tab.page
    tab.draw(prompt="a panda, 3d style", seed=5, **SMALL)
    saved, last = len(server.pictures()), tab.job
    strip = tab.find("finished").get_by_role("button").count()
    choose(tab, "Live")
    page.wait_for_function("(last) => darkroom.jobId('txt2img') !== last", arg=last)
    tab.wait_for_state("done")
    tab.find("prompt").locator("textarea").press_sequentially(", night")
    tab.wait_for_infotext("a panda, 3d style, night")
    tab.wait_for_state("done")
    live = tab.picture_bytes()
    tab.set(steps=150, width=256, height=256)
    tab.wait_for_step()
    old = tab.job
    tab.set(steps=3, width=64, height=64)  # the newest wins
    page.wait_for_function("(old) => darkroom.statusOf('txt2img').dataset.job !== old", arg=old)
    tab.wait_for_infotext("Steps: 3,")
    assert server.show(old)["state"] == "cancelled"
    tab.set(steps=2)
    tab.wait_for_infotext("Steps: 2,")
    assert len(server.pictures()) == saved and tab.find("finished").get_by_role("button").count() == strip
    page.get_by_role("button", name="Save this one").click()
    page.wait_for_function("(count) => document.querySelectorAll('#txt2img-finished button').length > count", arg=strip)
    server.settle()
    assert len(server.pictures()) == saved + 1
    assert pixels(server.pictures()[-1].read_bytes()) == pixels(live)
    page.get_by_role("button", name="End live").click()
    tab.set(prompt="a cat")
    assert not page.evaluate("darkroomLive.isOn('txt2img')")


def test_a_chip_that_is_held_shows_the_picture_without_its_lora(open_tab, server):
    tab = open_tab()
    page = tab.page
    tab.draw(prompt="a castle <lora:blueprint:1>", seed=5, steps=4, width=64, height=64)
    saved, chip = len(server.pictures()), page.get_by_role("button", name="blueprint 1", exact=True)
    chip.hover()
    page.mouse.down()
    other = page.locator(".flip").get_by_role("img", name="The picture without blueprint")
    page.get_by_text("Without blueprint").wait_for()
    without = tab.pixels(other)
    page.mouse.up()
    other.wait_for(state="detached")
    assert without != tab.pixels(tab.picture)
    chip.focus()
    page.keyboard.down("Space")
    other.wait_for()  # it is there by now
    page.keyboard.up("Space")
    other.wait_for(state="detached")
    chip.press("Enter")  # a press still goes to the place in the prompt
    page.wait_for_function("document.activeElement.matches('#txt2img-prompt textarea')")
    server.settle()
    assert len(server.pictures()) == saved
    tab.draw(prompt="a castle")
    assert tab.pixels(tab.picture) == without
