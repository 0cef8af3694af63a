"""Which device and number format to compute with."""

import pytest
import torch

from webui.core.request import RequestError
from webui.core.settings import Settings
from webui.engine.devices import choose_device, choose_dtype, describe
from webui.engine.manager import PipelineManager


@pytest.fixture
def machine_with(monkeypatch):
    """``machine_with("cuda", "mps")``: a machine that has these besides its CPU."""

    def pretend(*kinds):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in kinds)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in kinds)

    return pretend


@pytest.mark.parametrize(("kinds", "chosen"), [(("cuda", "mps"), "cuda"), (("mps",), "mps"), ((), "cpu")])
def test_auto_takes_the_fastest_that_is_there(machine_with, kinds, chosen):
    machine_with(*kinds)
    assert choose_device("auto").type == chosen
    assert choose_device("cpu").type == "cpu"


@pytest.mark.parametrize("name", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_refused_by_name(machine_with, tmp_path, name):
    machine_with()
    with pytest.raises(RequestError, match=f"device '{name}' is not available here") as caught:
        choose_device(name)
    assert caught.value.field == "device"
    with pytest.raises(RequestError, match=name):
        PipelineManager(Settings(device=name, data_dir=tmp_path))


def test_auto_computes_in_float16_on_cuda_only():
    assert choose_dtype("auto", torch.device("cuda")) == torch.float16
    assert choose_dtype("auto", torch.device("cpu")) == choose_dtype("auto", torch.device("mps")) == torch.float32
    assert choose_dtype("bfloat16", torch.device("cpu")) == torch.bfloat16


def test_people_are_told_device_and_number_format():
    assert describe(torch.device("cpu"), torch.float32) == "cpu, float32"
