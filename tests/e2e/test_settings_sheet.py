"""The owner's settings sheet: what is chosen there holds for the next picture and the next browser."""

from .server import SMALL, wait_for


def test_what_is_chosen_holds_at_once(open_tab, server, browser) -> None:
    tab = open_tab()
    tab.is_refused, page = True, tab.page
    page.locator("#darkroom-settings-open").click()
    sheet = page.locator("#darkroom-settings")
    sheet.get_by_label("Format").select_option("webp")
    names = sheet.get_by_label("Names")
    names.fill("../{counter}")
    names.press("Tab")
    sheet.locator("#settings-filename-trouble", has_text="May have ASCII letters").wait_for()
    assert names.get_attribute("aria-invalid") == "true"
    names.fill("sheet {counter}")
    names.press("Tab")
    sheet.get_by_text("For example sheet 00001.webp").wait_for()
    assert sheet.locator("#settings-filename-trouble").text_content() == ""
    sheet.get_by_label("Show pictures while they are drawn").uncheck()
    sheet.get_by_role("button", name="Close").click()
    try:
        server.finish(server.submit(prompt="a red apple", **SMALL))
        assert list((server.data_dir / "outputs").rglob("sheet 00001.webp"))
        tab.set(steps=7)
        page.locator("#darkroom-settings-open").click()
        sheet.get_by_role("button", name="Start with what is set now").click()
        sheet.get_by_text("it starts with your settings").wait_for()
        assert server.client.get("/api/settings").json()["settings"]["pages"]["txt2img"]["steps"] == 7
        context = browser.new_context()
        other = context.new_page()
        other.goto(server.url)
        other.wait_for_function("window.darkroom && darkroom.restored.length === darkroom.PAGES.length")
        wait_for(lambda: other.locator("#txt2img-steps input[type=number]").input_value() == "7", "my own steps")
        context.close()
        sheet.get_by_role("button", name="Forget mine").click()
        sheet.get_by_text("starts with Darkroom's own settings").wait_for()
        sheet.get_by_role("button", name="Reset this page").click()
        tab.wait_for_value("steps", "20")
    finally:
        values = server.client.get("/api/settings").json()["defaults"] | {"pages": {"txt2img": None}}
        assert server.client.patch("/api/settings", json=values).status_code == 200
        for path in (server.data_dir / "outputs").rglob("sheet *.webp"):
            path.unlink()
