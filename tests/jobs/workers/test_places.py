"""A process for each device that is asked for, which sees that device alone."""

import pytest

from webui.core.errors import RequestError
from webui.jobs.workers.places import Place, devices_for, places_of


def test_each_card_is_the_first_of_its_process():
    assert places_of(["cuda:1", "cuda", "cpu"], 8, {}) == (
        Place("cuda:1", "cuda", {"CUDA_VISIBLE_DEVICES": "1"}),
        Place("cuda:0", "cuda", {"CUDA_VISIBLE_DEVICES": "0"}),
        Place("cpu", "cpu", {"OMP_NUM_THREADS": "8", "MKL_NUM_THREADS": "8"}),
    )
    (xpu,) = places_of(["xpu:2"], 8, {})
    assert xpu == Place("xpu:2", "xpu", {"ZE_AFFINITY_MASK": "2"})


def test_cards_are_counted_among_those_that_may_be_seen():
    (place,) = places_of(["cuda:1"], 8, {"CUDA_VISIBLE_DEVICES": "3, GPU-8a"})
    assert place.variables == {"CUDA_VISIBLE_DEVICES": "GPU-8a"}


def test_workers_on_the_processor_share_its_cores():
    places = places_of(["cpu"] * 3, 8, {"MKL_NUM_THREADS": "5"})
    assert [place.name for place in places] == ["cpu 1", "cpu 2", "cpu 3"]
    assert {tuple(place.variables.items()) for place in places} == {(("OMP_NUM_THREADS", "2"),)}


@pytest.mark.parametrize(
    ("devices", "reason"),
    [
        (["cuda:0", "cuda"], "cuda:0 is named twice"),
        (["gpu"], "'gpu' is not one of"),
        (["cuda:x"], "'cuda:x' is not one of"),
        (["cuda:-1"], "is not one of"),
        (["cpu:1"], "'cpu:1' is not one of"),
        ([""], "'' is not one of"),
        (["cuda:2"], "cuda:2 is not there: CUDA_VISIBLE_DEVICES shows 2"),
    ],
)
def test_what_is_no_device_is_named(devices, reason):
    with pytest.raises(RequestError, match=reason):
        places_of(devices, 8, {"CUDA_VISIBLE_DEVICES": "0,1"})


@pytest.mark.parametrize(
    ("workers", "device", "cards", "expected"),
    [
        (2, "auto", 2, ("cuda:0", "cuda:1")),
        (2, "auto", 0, ("cpu", "cpu")),
        (2, "cpu", 4, ("cpu", "cpu")),
        (1, "xpu", 1, ("xpu:0",)),
    ],
)
def test_so_many_workers_take_a_card_each_or_the_processor(workers, device, cards, expected):
    assert devices_for(workers, device, cards) == expected


def test_more_workers_than_cards_are_refused():
    with pytest.raises(RequestError, match="3 are too many for 2 graphics cards"):
        devices_for(3, "auto", 2)
    with pytest.raises(RequestError, match="2 are too many for one graphics card"):
        devices_for(2, "cuda", 1)
