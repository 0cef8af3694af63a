"""Details in a real browser: rows made, drawn with, remembered, reused, and taken away; what is wrong is said."""

import json

DETAIL = "#txt2img-detail textarea"
QUICK = {"steps": 3, "width": 64, "height": 64}


def held(tab) -> list[dict]:
    return json.loads(tab.page.locator(DETAIL).input_value() or "[]")


def test_details_are_rows_that_are_drawn_remembered_and_reused(open_tab):
    tab = open_tab()
    tab.set(prompt="a red apple, flat style, on a blue background", **QUICK)
    tab.page.get_by_role("button", name="Details").locator("visible=true").click()
    panel = tab.find("detail-panel")
    panel.get_by_role("button", name="Add").click()
    tab.find("detail-finder").wait_for()
    assert tab.find("detail-finder").locator("option").all_inner_texts()[:3] == [
        *("demo-subject", "painted-mask", "previous-mask")
    ]
    tab.find("detail-prompt").fill("a strawberry, 3d style")
    tab.find("detail-strength").fill("0.7")
    tab.find("detail-threshold").fill("0.05")
    panel.get_by_role("button", name="Add").click()
    tab.find("detail-2-finder").select_option("previous-mask")
    tab.find("detail-2-at_most").fill("1")
    first = {"finder": "demo-subject", "prompt": "a strawberry, 3d style", "strength": 0.7, "threshold": 0.05}
    second = {"finder": "previous-mask", "at_most": 1}
    assert held(tab) == [first, second]
    tab.draw()
    tab.wait_for_infotext("ADetailer prompt: ")
    assert "ADetailer model 2nd: previous-mask" in tab.infotext
    job = tab.server.client.get(f"/api/jobs/{tab.job}").json()
    assert [detail["finder"] for detail in job["request"]["detail"]] == ["demo-subject", "previous-mask"]
    tab.reload()
    assert held(tab) == [first, second]
    tab.page.get_by_role("button", name="Details").locator("visible=true").click()
    assert tab.find("detail-prompt").input_value() == "a strawberry, 3d style"
    tab.find("detail-2-finder").select_option("painted-mask")
    tab.find("generate").click()
    tab.wait_for_message("painted-mask is what was painted over the start picture, and there is no mask")
    panel.get_by_role("button", name="Remove Detail 1").click()
    panel.get_by_role("button", name="Remove Detail 1").click()
    assert held(tab) == []
    tab.find("reuse-settings").click()
    tab.page.wait_for_function(f"() => document.querySelector('{DETAIL}').value.includes('strawberry')")
    tab.find("detail-2-finder").wait_for()
    assert [entry["finder"] for entry in held(tab)] == ["demo-subject", "previous-mask"]
