"""What ``?preset=NAME`` in the address does, page by page."""

from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from webui.core.catalog import Catalog
from webui.core.settings import Settings
from webui.library.library import find_models
from webui.ui import presets
from webui.ui.fills import Fills
from webui.workspace.preset import make_preset
from webui.workspace.presets import PresetStore

PAGES = {
    "txt2img": ("prompt", "styles", "steps", "width", "height"),
    "img2img": ("prompt", "steps", "width", "strength"),
}


@pytest.fixture
def follow(tmp_path, monkeypatch):
    """Follows a link on all pages; returns what each is filled with, and what was said."""
    store = PresetStore(tmp_path / "presets")
    store.save(make_preset(name="Light touch", init={"strength": 0.35}))
    catalog = Catalog(find_models(Settings(data_dir=tmp_path)), {}, {}, {}, {"DPM++ 2M": ("Default", "Karras")})
    executor: Any = SimpleNamespace(catalog=lambda: catalog)
    benches: Any = {
        page: SimpleNamespace(name=page, controls=dict.fromkeys(fields), executor=executor, fills=Fills(page, {}))
        for page, fields in PAGES.items()
    }
    presets.wire(benches, lambda: store)
    said: list[str] = []
    for how in ("Info", "Warning"):
        monkeypatch.setattr(gr, how, said.append)

    def run(name: str, model: str = "demo"):
        said.clear()
        return {page: bench.fills.ways["address"](name=name, model=model) for page, bench in benches.items()}, [*said]

    return run


def test_it_fills_the_pages_that_it_is_for_and_says_so_once(follow):
    filled, said = follow("SDXL, fast", model="elsewhere")
    assert filled == {"txt2img": {"steps": 15, "width": 1024, "height": 1024}, "img2img": {}}
    assert said == ["Preset “SDXL, fast” is applied on txt2img."]
    assert follow("Light touch")[0] == {"txt2img": {}, "img2img": {"strength": 0.35}}


def test_one_for_another_kind_of_model_leaves_the_size_alone_and_says_why(follow):
    filled, said = follow("SDXL, fast")
    assert filled["txt2img"] == {"steps": 15}
    assert said[1:] == ["“SDXL, fast” is for SDXL, and the model here is demo. Your size is kept."]


def test_a_style_is_turned_on(follow):
    assert follow("style-cartoon")[0] == {"txt2img": {"styles": '["Cartoon style"]'}, "img2img": {}}


def test_what_is_wrong_is_said_once_and_as_text(follow):
    filled, said = follow("<img src=x>")
    assert filled == {"txt2img": {}, "img2img": {}} and len(said) == 1 and "“&lt;img src=x&gt;”" in said[0]
