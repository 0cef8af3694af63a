"""What outside programs find the page's parts by."""

from webui.core.request import Request

from .server import Server
from .tab import Tab

OPEN = """(page) => document.querySelectorAll(`#tab-${page} button.label-wrap:not(.open)`)
  .forEach((fold) => fold.click())"""
IDS = "[...document.querySelectorAll('[id]:not([id=\"\"])')].map((element) => element.id)"
TOLD_OTHERWISE = {"syntax", "template", "negative_template", "init"}
"""What no person sets, and the start picture, whose fields stand on the page by their own names."""


def test_each_part_is_there_once(tab: Tab, server: Server) -> None:
    parts = server.client.get("/config").json()["components"]
    told = {part["props"]["elem_id"] for part in parts if part["props"].get("elem_id")}
    for page in ("img2img", "inpaint", "grid", "upscale", "png-info", "history", "txt2img"):
        tab.page.evaluate(f"location.hash = '{page}'")
        tab.page.locator(f"#tab-{page}").wait_for()
        tab.page.evaluate(OPEN, page)
    wanted = "(wanted) => wanted.every((id) => document.getElementById(id))"
    tab.page.wait_for_function(wanted, arg=sorted(told))
    ids = tab.page.evaluate(IDS)
    assert {name for name in ids if ids.count(name) > 1} == set()
    fields = Request.model_fields.keys() - TOLD_OTHERWISE
    for page in ("txt2img", "img2img", "inpaint", "grid"):
        assert {f"{page}-{field}" for field in fields} <= told
        assert {f"{page}-{part}" for part in ("generate", "stop", "preview", "gallery", "status")} <= told
