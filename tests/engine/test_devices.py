"""Which device and number format to compute with."""

import pytest
import torch

from webui.core.engine_options import EngineOptions
from webui.core.errors import RequestError
from webui.engine.devices import (
    ENOUGH_ROUNDS,
    PROBE_ROUNDS,
    choose_device,
    choose_dtype,
    describe,
    is_out_of_memory,
    measure_bfloat16,
)
from webui.engine.manager import PipelineManager


@pytest.fixture
def machine_with(monkeypatch):
    """``machine_with("cuda", "mps")``: a machine that has these besides its CPU."""

    def pretend(*kinds):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in kinds)
        monkeypatch.setattr(torch.xpu, "is_available", lambda: "xpu" in kinds)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in kinds)

    return pretend


@pytest.mark.parametrize(
    ("kinds", "chosen"), [(("cuda", "xpu"), "cuda"), (("xpu",), "xpu"), (("mps",), "mps"), ((), "cpu")]
)
def test_auto_takes_the_fastest_that_is_there(machine_with, kinds, chosen):
    machine_with(*kinds)
    assert choose_device("auto").type == chosen
    assert choose_device("cpu").type == "cpu"


@pytest.mark.parametrize("name", ["cuda", "xpu", "mps"])
def test_a_device_that_is_not_there_is_refused_by_name(machine_with, tmp_path, name):
    machine_with()
    with pytest.raises(RequestError, match=f"device '{name}' is not available here") as caught:
        choose_device(name)
    assert caught.value.field == "device"
    with pytest.raises(RequestError, match=name):
        PipelineManager(EngineOptions(tmp_path, device=name))


@pytest.mark.parametrize(("gain", "chosen"), [(1.5, torch.bfloat16), (1.0, torch.float32), (0.0, torch.float32)])
def test_auto_computes_in_what_the_device_is_fast_with(monkeypatch, gain, chosen):
    """On a CPU that is what was measured; no gain is measured where bfloat16 is not finite."""
    monkeypatch.setattr("webui.engine.devices.measure_bfloat16", lambda: gain)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True, raising=False)
    assert choose_dtype("auto", torch.device("cuda")) == torch.float16
    assert choose_dtype("auto", torch.device("xpu")) == torch.float16
    assert choose_dtype("auto", torch.device("mps")) == torch.float32
    assert choose_dtype("auto", torch.device("cpu")) == chosen
    assert choose_dtype("bfloat16", torch.device("cpu")) == torch.bfloat16


def test_a_cpu_is_measured_once_and_the_answer_stays(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True, raising=False)
    gains = iter([2.0, 0.5, 2.0])
    monkeypatch.setattr("webui.engine.devices.measure_bfloat16", lambda: next(gains))
    cpu = torch.device("cpu")
    assert [choose_dtype("auto", cpu, tmp_path / "cache") for _ in range(3)] == [torch.bfloat16] * 3
    (tmp_path / "cache" / "dtype.json").write_text("not JSON")
    assert choose_dtype("auto", cpu, tmp_path / "cache") == torch.float32, "measured anew"
    monkeypatch.setattr("webui.engine.devices.PROBE", 99)
    assert choose_dtype("auto", cpu, tmp_path / "cache") == torch.bfloat16, "another way of measuring"


def test_where_nothing_can_be_written_the_measurement_serves_this_start(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True, raising=False)
    monkeypatch.setattr("webui.engine.devices.measure_bfloat16", lambda: 2.0)
    (tmp_path / "file").write_text("in the way")
    assert choose_dtype("auto", torch.device("cpu"), tmp_path / "file" / "cache") == torch.bfloat16


def test_the_measurement_is_a_ratio_of_real_work():
    assert 0.0 < measure_bfloat16() < 100.0


@pytest.fixture
def take(monkeypatch):
    """``take(seconds)``: the probe's pieces of work take these, one after another, and none is done; what is left."""
    threads = set()

    def take(spent):
        readings = iter([edge for seconds in spent for edge in (0.0, seconds)])

        def clock():
            threads.add(torch.get_num_threads())
            return next(readings)

        monkeypatch.setattr("webui.engine.devices.processor_time", clock)
        return readings

    for name in ("conv2d", "linear"):
        monkeypatch.setattr(torch.nn.functional, name, lambda rows, *_, **__: rows)
    monkeypatch.setattr("time.perf_counter", lambda: pytest.fail("the wall clock"))
    before = torch.get_num_threads()
    yield take
    assert threads == {1} and torch.get_num_threads() == before


def rounds_of(taken):
    """What each piece of work takes, by its format, in the order in which they are done."""
    return [taken[name] for k in range(PROBE_ROUNDS + 1) for name in (("32", "16") if k % 2 else ("16", "32"))]


def test_other_work_on_the_machine_does_not_change_the_measurement(take):
    """Two rounds of five are disturbed here, float32 or bfloat16, and the clock on the wall tells nothing at all."""
    spent = rounds_of({"32": 0.006, "16": 0.003})
    for k in range(0, PROBE_ROUNDS, 5):
        spent[2 * k] *= 30
        spent[2 * k + 5] *= 30
    left = take(spent)
    assert measure_bfloat16() == pytest.approx(2.0)
    assert next(left, None) is None


def test_a_processor_that_imitates_bfloat16_is_not_asked_for_long(take):
    left = take(rounds_of({"32": 0.006, "16": 0.3}))
    assert measure_bfloat16() == pytest.approx(0.02)
    assert len([*left]) == 4 * (PROBE_ROUNDS - ENOUGH_ROUNDS)


def test_out_of_memory_is_told_from_other_errors():
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert is_out_of_memory(MemoryError())
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 4.00 GB)"))
    assert not is_out_of_memory(RuntimeError("shapes do not match"))


def test_a_tensor_without_numbers_is_not_taken_for_missing_memory():
    tensor = torch.zeros(4)
    tensor.untyped_storage().resize_(0)
    with pytest.raises(RuntimeError) as caught:
        tensor.to(torch.bfloat16)
    assert "allocate memory" in str(caught.value) and not is_out_of_memory(caught.value)


def test_people_are_told_device_and_number_format():
    assert describe(torch.device("cpu"), torch.float32) == "cpu, float32"
