"""The keyboard while pictures are drawn: what is typed stays, Esc stops only when nothing else is open."""

from .server import SMALL

# The gallery as it takes the focus: after the picture is there, in the frame after next at the latest.
SETTLED = "() => new Promise((go) => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(go))))"
FOCUS_IN_GALLERY = "document.activeElement.closest('#txt2img-gallery') !== null"

# What else Esc may be meant for.
OPEN_AND_CLOSED = (
    (
        "document.body.append(Object.assign(document.createElement('dialog'), { id: 'x' })); x.showModal()",
        "x.remove()",
    ),
    ("document.body.insertAdjacentHTML('beforeend', '<ul id=x role=listbox><li>one')", "x.remove()"),
    (
        "document.getElementById('txt2img-preview').classList.add('fullscreen')",
        "document.getElementById('txt2img-preview').classList.remove('fullscreen')",
    ),
    ("document.activeElement.addEventListener('keydown', (key) => key.preventDefault(), { once: true })", ""),
)


def test_what_is_typed_while_the_first_picture_is_drawn_is_all_there(tab):
    tab.set(prompt="a red apple", **SMALL)
    prompt = tab.find("prompt").locator("textarea")
    prompt.focus()
    prompt.press("End")
    tab.generate(lambda: tab.page.keyboard.press("Control+Enter"))
    tab.page.keyboard.type(", a yellow")
    tab.wait_for_state("done")
    tab.picture.wait_for()
    tab.page.evaluate(SETTLED)
    tab.page.keyboard.type(" banana")
    assert prompt.input_value() == "a red apple, a yellow banana"
    tab.reload()  # the picture comes back, and the focus begins in the prompt
    tab.picture.wait_for()
    tab.page.evaluate(SETTLED)
    tab.page.keyboard.press("End")
    tab.page.keyboard.type("!")
    assert prompt.input_value() == "a red apple, a yellow banana!"
    tab.find("gallery").locator(".media-button").focus()
    tab.page.keyboard.press("Escape")  # nothing is open
    tab.page.evaluate(SETTLED)
    assert tab.find("gallery").locator(".preview").is_visible()


def test_who_is_in_the_gallery_stays_there(tab):
    tab.draw(seed=1, count=2, **SMALL)
    tab.picture.wait_for()
    tab.find("gallery").get_by_role("button", name="Thumbnail 1 of 2").click()
    assert tab.page.evaluate(FOCUS_IN_GALLERY)
    tab.generate(lambda: tab.page.keyboard.press("Control+Enter"))
    tab.wait_for_state("done")
    tab.page.wait_for_function(FOCUS_IN_GALLERY)
    tab.page.keyboard.press("ArrowRight")
    tab.wait_for_infotext("Seed: 2,")
    assert tab.page.evaluate(FOCUS_IN_GALLERY)


def test_escape_closes_what_is_open_and_then_stops(tab):
    tab.open_settings()
    tab.set(steps=150, width=256, height=256)
    tab.generate()
    tab.wait_for_step()
    page = tab.page
    sampler = tab.find("sampler").get_by_role("combobox")
    sampler.click()
    page.get_by_role("option").first.wait_for()
    page.keyboard.press("Escape")
    page.get_by_role("option").first.wait_for(state="hidden")
    assert tab.state == "running"
    tab.find("prompt").locator("textarea").focus()  # back in the list's own field, it would open again
    for opened, closed in OPEN_AND_CLOSED:
        page.evaluate(opened)
        page.keyboard.press("Escape")
        page.evaluate(closed)
        assert tab.state == "running"
    for how in ({"isComposing": True}, {"keyCode": 229}, {"repeat": True}):
        page.evaluate(
            "(how) => document.activeElement.dispatchEvent("
            "new KeyboardEvent('keydown', { key: 'Escape', bubbles: true, cancelable: true, ...how }))",
            how,
        )
    assert tab.state == "running"
    page.keyboard.press("Escape")
    assert tab.wait_for_state("cancelled", "done", "failed") == "cancelled", tab.message


def test_tab_leads_from_field_to_field_and_leaves_no_list_open(tab):
    page = tab.page
    page.locator("#txt2img-model input").focus()
    opened = page.locator("ul[role=listbox]")
    opened.first.wait_for()
    page.keyboard.press("Tab")
    page.locator("#txt2img-sampler input:focus").wait_for()
    for _ in range(page.locator("#txt2img-size button").count() + 1):  # the shapes are before the size
        page.keyboard.press("Tab")
    page.locator("#txt2img-width input:focus").wait_for()
    opened.first.wait_for(state="detached")
    tab.let_fields_settle()
    assert opened.count() == 0
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
