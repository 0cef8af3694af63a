"""Disks that take nothing: the picture still shows, with a warning."""

import base64
import io

import pytest
from PIL import Image as PilImages

from .conftest import tab_opener
from .server import SMALL


def png_of(colour: str) -> bytes:
    data = io.BytesIO()
    PilImages.new("RGB", (64, 64), colour).save(data, "PNG")
    return data.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize(("disk", "reason"), [("full", "No space left on device"), ("read-only", "Read-only file")])
def test_the_page_shows_what_it_cannot_save(context, start_server, disk, reason):
    server = start_server(disk=disk)
    assert server.client.get("/api/history").json()["total"] == 0
    if disk == "full":
        answer = server.client.post("/gradio_api/upload", files={"files": ("x.png", b"x" * 2**17)})
        assert answer.status_code == 507
        assert answer.json()["detail"] == "the server's disk is nearly full, so nothing can be uploaded"
    opener = tab_opener(context, server)
    tab = next(opener)()
    assert server.health()["warning"].startswith("The queue is not kept in queue.sqlite3: ")
    tab.draw(prompt="kept in memory", seed=3, **SMALL)
    tab.page.locator("#darkroom-engine", has_text="The queue is not kept").wait_for()
    assert "The queue is not kept" in server.client.post("/api/jobs", json=SMALL).json()["warnings"][0]
    red = base64.b64encode(png_of("red")).decode()
    answer = server.client.post("/api/jobs", json=SMALL | {"init": {"image": red}})
    assert answer.status_code == 202 and "The queue is not kept" in answer.json()["warnings"][0]
    events = server.client.get(f"/api/jobs/{answer.json()['id']}/events").text
    assert '"event": "done"' in events and events.count("could not be saved") > 0
    assert "could not be saved" in tab.message
    assert reason in tab.message
    assert str(server.data_dir) in tab.message
    tab.wait_for_infotext("Seed: 3,")
    inline = tab.find("preview").locator("img")
    if disk == "full":  # no room in the cache either: the picture comes inside the page
        source = inline.get_attribute("src")
        png = base64.b64decode(source.removeprefix("data:image/png;base64,"))
    else:
        png = tab.picture_bytes()
    picture = PilImages.open(io.BytesIO(png))
    assert picture.text["parameters"] == tab.infotext
    shown = inline if disk == "full" else tab.picture
    expected = picture.convert("RGBA").resize((32, 32), PilImages.Resampling.BOX).tobytes()
    pairs = zip(tab.pixels(shown), expected, strict=True)
    assert sum(abs(seen - sent) for seen, sent in pairs) / len(expected) < 20
    assert not server.pictures()
    tab.draw(seed=4)  # and the next one works as well
    tab.wait_for_infotext("Seed: 4,")
    assert next(opener, None) is None  # runs the fixture's own checks
