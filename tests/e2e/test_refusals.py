"""What is refused is told at its field: the fold opens, the field has the focus, and a button mends it."""

import re

NOTE = "#txt2img-refused"
FILL = "([page, fields]) => darkroomFills.ask(page, 'memory', { text: JSON.stringify(fields) })"


def fill(tab, **fields) -> None:
    """Fields of folds that stay shut."""
    given = {name.replace("__", "."): value for name, value in fields.items()}
    tab.page.evaluate(FILL, ["txt2img", given])
    held = "JSON.parse(darkroom.recall('txt2img') || '{}')"
    tab.page.wait_for_function(
        f"(given) => Object.entries(given).every(([name, value]) => {held}[name] === value)", arg=given
    )


def refused(tab, field: str, reason: str, input_kind: str = "input[type=number]"):
    """Presses Generate; the field's input, which was refused."""
    tab.find("generate").click()
    tab.page.locator(NOTE, has_text=reason).wait_for()
    given = tab.page.locator(f"#txt2img-{field} {input_kind}").first
    given.and_(tab.page.locator(":focus")).wait_for()
    assert given.get_attribute("aria-invalid") == "true"
    assert "txt2img-refused" in given.get_attribute("aria-describedby").split()
    assert tab.state == "failed" and reason in tab.message
    assert given.is_visible() and tab.page.locator(NOTE).is_visible()
    return given


def mend(tab, label: str) -> None:
    tab.page.locator(NOTE).get_by_role("button", name=label, exact=True).click()
    tab.page.locator(NOTE).wait_for(state="detached")


def test_a_field_in_a_shut_fold_is_opened_marked_and_mended(tab):
    fill(tab, clip_skip=40, hires=True, hires__scale=16, width=512, height=512)
    given = refused(tab, "clip_skip", "clip_skip must be at most 12, not 40")
    mend(tab, "Use 12")
    assert given.input_value() == "12" and given.get_attribute("aria-invalid") is None
    given = refused(tab, "hires-scale", "the largest scale for this picture is 4")
    given.fill("1.5")  # by hand the mark goes, too
    tab.page.locator(NOTE).wait_for(state="detached")
    fill(tab, hires=False, sampler="LCM", schedule="Karras")
    given = refused(tab, "schedule", "“Karras”", "input")
    mend(tab, "Use Default")
    tab.page.wait_for_function("document.querySelector('#txt2img-schedule input').value === 'Default'")


def test_words_of_a_prompt_a_detail_and_the_size_are_mended(tab):
    tab.set(prompt="a red apple, <lora:gone:1>, __nowhere__, flat style", width=65)
    given = refused(tab, "width", "width must be a multiple of 8")
    mend(tab, "Use 64")
    given = refused(tab, "prompt", "no wildcard “nowhere”", "textarea")
    mend(tab, "Remove it")
    given = refused(tab, "prompt", "no LoRA “gone”", "textarea")
    mend(tab, "Remove it")
    assert given.input_value() == "a red apple, flat style"
    fill(tab, detail='[{"finder": "demo-subject"}, {"finder": "painted-mask"}]')
    tab.find("generate").click()
    finder = tab.page.locator("#txt2img-detail-2-finder:focus[aria-invalid=true]")
    finder.wait_for()
    mend(tab, "Use demo-subject")
    tab.page.wait_for_function("document.querySelector('#txt2img-detail-2-finder').value === 'demo-subject'")


def test_a_prompt_that_is_too_long_is_refused_where_it_stands(tab):
    tab.is_refused = True  # the counter below the prompt asks as well
    with tab.page.expect_response("**/api/tokens"):
        tab.set(prompt="7" * 4_801)
    tab.page.locator(".prompt-trouble", has_text="it comes to more than 64 chunks").wait_for()
    refused(tab, "prompt", "it comes to more than 64 chunks of 75 tokens", "textarea")


def test_a_picture_that_is_missing_is_asked_for(tab):
    page = tab.page
    page.get_by_role("tab", name="img2img").click()
    page.locator("#img2img-generate").click()
    note = page.locator("#img2img-refused", has_text="Add a picture first")
    note.wait_for()
    assert re.search("img2img-refused", page.evaluate("document.activeElement.getAttribute('aria-describedby')"))
    with page.expect_file_chooser():
        note.get_by_role("button", name="Choose a picture").click()


def test_a_job_that_is_drawn_keeps_its_line_and_stop_while_another_is_refused(tab):
    tab.set(prompt="a red apple, flat style", steps=150, count=4)
    job = tab.generate()
    tab.wait_for_step()
    shown = """() => {
        const stop = document.querySelector("#txt2img-stop");
        window.hidden = 0;
        new MutationObserver(() => (window.hidden += stop.checkVisibility() ? 0 : 1)).observe(
            document.querySelector("#txt2img-status"), { childList: true, subtree: true, attributes: true });
    }"""
    tab.page.evaluate(shown)
    tab.set(width=65)
    tab.find("generate").click()
    note = tab.page.locator(NOTE, has_text="width must be a multiple of 8")
    note.wait_for()
    tab.page.locator("#txt2img-answer", has_text="width must be a multiple of 8").wait_for()
    step = tab.wait_for_step()
    later = "(step) => Number(/Step (\\d+)/.exec(document.querySelector('#txt2img-status').textContent)?.[1]) > step"
    tab.page.wait_for_function(later, arg=step)
    assert note.is_visible() and tab.job == job, "the next step leaves the refusal where it is"
    assert tab.page.evaluate("window.hidden") == 0
    mend(tab, "Use 64")
    tab.page.locator("#txt2img-answer").wait_for(state="hidden")
    tab.find("stop").click()
    tab.wait_for_state("cancelled")


def test_each_refusal_is_told_at_its_field_however_alike_they_are(tab):
    for width in (65, 66, 65, 66):  # the line below Generate changes by its text alone
        tab.set(width=width)
        tab.find("generate").click()
        tab.page.locator(NOTE, has_text=f"not {width}").wait_for()
