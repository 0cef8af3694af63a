"""What the owner chooses: bounded, kept, over what pictures become, and for nobody else."""

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image as PilImages

from webui.api.errors import ERROR_ANSWERS
from webui.api.preferences import preferences_router
from webui.core.errors import RequestError
from webui.core.recipe import read_picture
from webui.core.settings import Settings
from webui.core.visitor import OWNER, Visitor
from webui.workspace.outputs import save_picture
from webui.workspace.preferences import Preferences, PreferenceStore


@pytest.fixture
def store(tmp_path) -> PreferenceStore:
    return PreferenceStore(Settings(data_dir=tmp_path), tmp_path / "settings.json")


def test_what_is_chosen_holds_now_and_after_the_next_start(store, tmp_path):
    store.change({"format": "webp", "filename": "{date} {counter}"})
    store.change({"metadata": False, "pages": {"txt2img": {"steps": 30}, "grid": {"x": "steps"}}})
    store.change({"pages": {"grid": None}})
    again = PreferenceStore(Settings(data_dir=tmp_path), tmp_path / "settings.json").now
    assert again == store.now
    assert (again.format, again.filename, again.metadata) == ("webp", "{date} {counter}", False)
    assert again.pages == {"txt2img": {"steps": 30}}


@pytest.mark.parametrize(
    ("values", "field", "reason"),
    [
        ({"format": "gif"}, "format", "must be 'png', 'jpeg' or 'webp'"),
        ({"quality": 20}, "quality", "must be at least 50"),
        ({"filename": "{seed}"}, "filename", "must have {counter} once"),
        ({"metadata": "perhaps"}, "metadata", "must be true or false"),
        ({"pages": {"nowhere": {}}}, "pages", "'nowhere' is not a page"),
        ({"pages": {"grid": {"x": "x" * 9000}}}, "pages", "more than a page has"),
        ({"colour": "red"}, "colour", "is not a known setting"),
    ],
)
def test_a_bad_value_is_refused_by_its_name(store, values, field, reason):
    with pytest.raises(RequestError, match=reason) as told:
        store.change({"quality": 80} | values)
    assert told.value.field == field and store.now == Preferences(), "nothing of it holds"


def test_flags_hold_and_a_broken_file_starts_anew(tmp_path, caplog):
    path = tmp_path / "settings.json"
    path.write_text("{")
    store = PreferenceStore(Settings(data_dir=tmp_path, format="webp"), path)
    assert "cannot be read" in caplog.text and store.now == Preferences(format="webp")
    with pytest.raises(RequestError, match="The command line has set it: --format webp"):
        store.change({"format": "png"})


def test_quality_and_metadata_are_those_that_were_chosen(make_picture, tmp_path):
    picture = make_picture(size=64)
    picture.image.paste(PilImages.effect_noise((64, 64), 90))
    sizes = {}
    for name, quality, with_recipe in (("fine", 100, True), ("small", 50, True), ("bare", None, False)):
        path = save_picture(picture, tmp_path / name, "webp", quality=quality, with_recipe=with_recipe)
        assert (read_picture(path) is None) != with_recipe
        sizes[name] = path.stat().st_size
    assert sizes["small"] < sizes["fine"]
    bare = save_picture(picture, tmp_path, "png", with_recipe=False)
    assert read_picture(bare) is None and not PilImages.open(bare).info


def test_the_routes_are_the_owner_s(store):
    app = FastAPI(exception_handlers=dict(ERROR_ANSWERS))
    app.include_router(preferences_router(store))

    def client(visitor: Visitor) -> TestClient:
        async def asked(scope, receive, send) -> None:
            scope["visitor"] = visitor
            await app(scope, receive, send)

        return TestClient(asked)

    owner, guest = client(OWNER), client(Visitor("a" * 32))
    told = owner.patch("/api/settings", json={"format": "jpeg", "filename": "{counter} {slug}"}).json()
    assert told["example"] == "00001 a-red-apple.jpeg" and told["settings"]["format"] == "jpeg"
    assert told == owner.get("/api/settings").json() and told["defaults"]["format"] == "png"
    refused = owner.patch("/api/settings", json={"filename": "../{counter}"})
    assert refused.status_code == 422 and refused.json()["field"] == "filename"
    for method in ("GET", "PATCH"):
        assert guest.request(method, "/api/settings", json={}).status_code == 404
