"""``/api/loras``: what is said of each file."""

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from webui.api.loras import loras_router
from webui.core.catalog import Catalog
from webui.library.library import Library


class Files:
    """An executor that has files and draws nothing."""

    def __init__(self, settings):
        self._library = Library(settings)

    def catalog(self, max_age_s=0.0):
        return Catalog({}, self._library.snapshot(max_age_s).loras, {}, {}, {})

    def reload(self):
        self._library.reload()


@pytest.fixture
def client(settings):
    app = FastAPI()
    app.include_router(loras_router(Files(settings)))
    return TestClient(app)


def test_names_that_no_tag_holds_and_names_of_several_files_are_told(client, settings):
    folder = settings.data_dir / "models/Lora"
    for place in ("a:b", "SD15/styles/ink", "SDXL/styles/ink", "x<", "x>"):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{place}.safetensors").write_bytes(b"x")
    told = {entry["name"]: (entry["tag"], entry["place"]) for entry in client.get("/api/loras").json()}
    assert told["a:b"] == ("a b", "") and told["sepia"] == ("sepia", "")
    assert told["ink"] == ("ink", "SD15/styles/ink") and told["styles/ink"][1] == "SDXL/styles/ink"
    assert (told["x<"], told["x>"]) == (("x", ""), ("", ""))
