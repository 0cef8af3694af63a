"""Which upscalers there are: the embedded one, files of A1111's and ComfyUI's folders, and what of pickles."""

import pytest
import torch

from webui.core.errors import RequestError
from webui.core.names import LANCZOS, choose_upscaler
from webui.core.request import Request
from webui.core.settings import Settings
from webui.jobs.resolve import make_order
from webui.library.library import Library


@pytest.fixture
def folders(tmp_path):
    for folder, name in (("data/models/ESRGAN", "4x_ultra.pth"), ("comfy/models/upscale_models", "light.safetensors")):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / name).touch()
    torch.save({"conv_first.weight": torch.zeros(1)}, tmp_path / "data/models/ESRGAN/4x_ultra.pth")
    return {"data_dir": tmp_path / "data", "models_dir": (tmp_path / "comfy",)}


def upscale(**fields):
    return Request(width=64, height=64, upscale=fields)


def test_files_of_both_programs_are_found_and_the_embedded_one_is_first(folders):
    found = Library(Settings(**folders)).snapshot().upscalers
    assert [*found] == ["realesr-animevideov3", "4x_ultra", "light"]
    assert choose_upscaler("LANCZOS", found, "upscale") == LANCZOS
    assert choose_upscaler("4X_Ultra.pth", found, "upscale") == "4x_ultra"
    with pytest.raises(RequestError, match=r"There is no upscaler “4x_ultr”; did you mean 4x_ultra\?"):
        choose_upscaler("4x_ultr", found, "upscale")
    with pytest.raises(RequestError, match=r"There is no upscaler “zzz”. There are 4: Lanczos, realesr-anime"):
        choose_upscaler("zzz", found, "upscale")


def test_pickles_are_never_opened_where_there_are_guests(folders, monkeypatch):
    library = Library(Settings(**folders, guests=True)).snapshot()
    monkeypatch.setattr("webui.core.upscaler_file.check_weights_alone", lambda path: pytest.fail("it was opened"))
    with pytest.raises(
        RequestError, match=r"^upscaler '4x_ultra': 4x_ultra.pth is a pickle, which is not opened where"
    ):
        make_order(upscale(upscaler="4x_ultra"), library)


def test_bad_files_are_told_before_anything_is_queued(folders):
    library = Library(Settings(**folders)).snapshot()
    with pytest.raises(RequestError, match=r"^upscaler 'light': light.safetensors is empty"):
        make_order(upscale(upscaler="light"), library)
    with pytest.raises(RequestError, match=r"4x_ultra.pth is not an ESRGAN, Real-ESRGAN or compact network"):
        make_order(upscale(upscaler="4x_ultra"), library)
    with pytest.raises(RequestError, match=r"^upscale: 2048 x 64 px would become 16384 x 512 px.* is 4$"):
        make_order(Request(width=2048, height=64, upscale={"scale": 8}), library)
    with pytest.raises(RequestError, match=r"^upscale.only: there is no start picture to enlarge"):
        make_order(upscale(only=True), library)
