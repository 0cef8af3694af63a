"""What a job will take of memory, told without torch before anything is loaded."""

import os
from dataclasses import replace

import pytest
from checkpoints import write_random
from fastapi import FastAPI
from fastapi.testclient import TestClient

from webui.api.models import models_router
from webui.core.errors import RequestError
from webui.core.files import FinderFile, ImageEncoderFile
from webui.core.memory import Asked, Room
from webui.core.request import Request
from webui.core.settings import Settings
from webui.core.stages import Detail
from webui.jobs.crew import Crew
from webui.jobs.memory import _beside_bytes, check_int8, check_memory, tell_memory
from webui.jobs.resolve import make_orders
from webui.jobs.workers.worker import WorkerStatus
from webui.library.library import Library

GIB = 2**30
CARD = Room("cuda", 24 * GIB, 2, read_bytes_s=2e9)


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """SDXL as it was published, all zeros, which take no disk space."""
    settings = Settings(data_dir=tmp_path_factory.mktemp("data"))
    folder = settings.data_dir / "models/Stable-diffusion"
    folder.mkdir(parents=True)
    write_random(folder / "xl.safetensors", "sdxl", sparse=True)
    write_random(folder / "small.safetensors", "sdxl", dtype="F8_E4M3", sparse=True)
    (folder / "broken.safetensors").write_bytes(b"<html>")
    return Library(settings)


def tell(library, *rooms, **asked):
    return tell_memory(Asked(**({"model": "xl", "size": (1024, 1024)} | asked)), library.snapshot(), rooms)


def test_weights_by_part_and_a_step_by_size_count_and_guidance(library):
    told = tell(library, CARD)
    assert {part: round(nbytes / 1e9, 1) for part, nbytes in told["parts"].items()} == {
        **{"text_encoder": 0.2, "text_encoder_2": 1.4, "backbone": 5.1, "vae": 0.2}
    }
    assert told["weight_bytes"] == sum(told["parts"].values()) and told["load_s"] == pytest.approx(3.5, rel=0.05)
    assert 0.2 * GIB < told["step_bytes"] < GIB
    assert tell(library, CARD, count=3)["step_bytes"] == 3 * told["step_bytes"]
    assert tell(library, CARD, size=(512, 1024), guided=False)["step_bytes"] == told["step_bytes"] // 4
    assert tell(library, CARD, regions=2)["step_bytes"] == 2 * told["step_bytes"], "each region is a prompt more"
    assert tell(library, CARD, regions=2, perturbed=True)["step_bytes"] == 7 * told["step_bytes"] // 2
    assert tell(library, CARD, model="small")["parts"]["backbone"] < 0.51 * told["parts"]["backbone"]
    doubled = tell(library, replace(CARD, number_bytes=4))["weight_bytes"]
    assert doubled == pytest.approx(2 * told["weight_bytes"], rel=1e-4)


@pytest.mark.parametrize(
    ("free", "plan"), [(24, "resident"), (7.1, "offload"), (3.4, "blocks"), (1, "sequential"), (0.4, None)]
)
def test_the_plan_is_told_and_what_is_lacking(library, free, plan):
    told = tell(library, replace(CARD, free_bytes=int(free * GIB)))
    assert told["plan"] == plan and told["free_bytes"] == int(free * GIB)
    assert (told["least_bytes"] > told["free_bytes"]) == (plan is None)


def test_of_several_devices_the_best_tells_and_a_processor_has_no_other_place(library):
    small = replace(CARD, free_bytes=3 * GIB)
    assert tell(library, small, CARD)["plan"] == "resident"
    assert tell(library, replace(small, device="cpu"))["plan"] is None
    assert tell(library, replace(CARD, plan="sequential"))["plan"] == "sequential"
    assert "plan" not in tell(library), "before there is an engine"


def test_what_fits_nowhere_is_refused_before_it_is_queued(library, engine, executor, monkeypatch):
    orders = make_orders(Request(prompt="a", model="xl", width=1024, height=1024), library.snapshot())
    for room in (CARD, replace(CARD, free_bytes=GIB), None):
        check_memory(orders, [WorkerStatus(room=room)])
    small = WorkerStatus(room=replace(CARD, free_bytes=GIB // 2))
    check_memory(orders, [small, WorkerStatus(room=CARD)])
    check_memory(orders, [replace(small, models=("xl",))])
    with pytest.raises(
        RequestError, match=r"“xl” needs 0\.\d GiB .* on cuda, and 0\.5 GiB are free\. .*GGUF"
    ) as refused:
        check_memory(orders, [replace(small, room=replace(CARD, free_bytes=GIB // 4)), small])
    assert refused.value.field == "model"
    engine.room, engine.model_names = Room("cpu", 2**20, 4), []
    monkeypatch.setattr(Crew, "idle", property(lambda crew: [hand.worker for hand in crew.hands]))
    with pytest.raises(RequestError, match="“demo” needs .* on cpu"):
        executor.submit(Request(prompt="a"))
    assert not executor.status()["waiting"]


def test_a_model_that_is_not_there_or_broken_is_named(library):
    for name in ("nothing", "broken"):
        with pytest.raises(RequestError, match=f"there is no usable model '{name}'"):
            tell(library, CARD, model=name)


def test_over_http(library):
    class Teller:
        def tell_memory(self, asked):
            return tell_memory(asked, library.snapshot(), [CARD])

    app = FastAPI()
    app.include_router(models_router(Teller()))
    client = TestClient(app)
    told = client.get("/api/models/memory", params={"name": "xl", "width": 1024, "height": 1024}).json()
    assert told == tell(library, CARD)
    more = {"name": "xl", "width": 1024, "height": 1024, "regions": 2, "pag": True}
    assert client.get("/api/models/memory", params=more).json() == tell(library, CARD, regions=2, perturbed=True)
    cpu = Room("cpu", 24 * GIB, 4)
    told, plain = tell(library, cpu, int8=True), tell(library, cpu)
    assert told["step_bytes"] - plain["step_bytes"] == plain["parts"]["backbone"] // 4, "they are there in 8 bits, too"
    assert tell(library, replace(cpu, no_int8="no"), int8=True) == tell(library, replace(cpu, no_int8="no"))
    assert client.get("/api/models/memory", params=more | {"int8": True}).status_code == 200
    both = {"name": "xl", "width": 1024, "height": 1024, "control": ["none such"]}
    assert client.get("/api/models/memory", params=both).json()["detail"] == "there is no control 'none such'"
    assert client.get("/api/models/memory", params={"name": "no", "width": 64, "height": 64}).status_code == 404
    assert client.get("/api/models/memory", params={"name": "xl", "width": 0, "height": 64}).status_code == 422


def test_networks_beside_the_model_are_counted_where_they_compute(library, tmp_path):
    path = tmp_path / "finder.onnx"
    path.write_bytes(b"")
    os.truncate(path, 5 * GIB)
    (order,) = make_orders(Request(prompt="a", model="xl", width=512, height=512), library.snapshot())
    detail = Detail(FinderFile("finder", path), 0.3, 8, 0, 1, order.passes[0], (512, 512))
    orders = [replace(order, stages=(*order.stages, detail))]
    room = Room("cpu", 9 * GIB, 2)
    check_memory([order], [WorkerStatus(room=room)])
    check_memory(orders, [WorkerStatus(room=replace(room, device="cuda"))])
    with pytest.raises(RequestError, match=r"Upscalers, finders and preprocessors weigh 5\.0 GiB altogether"):
        check_memory(orders, [WorkerStatus(room=room)])
    check_memory(orders, [WorkerStatus(room=replace(room, beside=frozenset([path])))])  # it is not in what is free
    seer = ImageEncoderFile("seer", path)
    assert _beside_bytes([seer], replace(room, device="cuda")) == 5 * GIB
    assert _beside_bytes([seer], replace(room, plan="resident")) == 5 * GIB
    assert _beside_bytes([seer], room) == 0, "it rests in its file"


def test_on_a_processor_what_reads_words_rests_in_its_file(library):
    cpu = Room("cpu", 24 * GIB, 2)
    told, whole = tell(library, cpu)["parts"], tell(library, replace(cpu, plan="resident"))["parts"]
    assert told["text_encoder_2"] < 0.1 * whole["text_encoder_2"] and told["backbone"] == whole["backbone"]


def test_8_bits_are_refused_where_a_worker_has_none_and_where_weights_are_small(library):
    orders = make_orders(Request(model="xl", int8=True), library.snapshot())
    able, card = Room("cpu", 64 * GIB, 2), replace(CARD, no_int8="it is a way for CPUs to compute, and this is cuda")
    check_int8(orders, [WorkerStatus(room=able), WorkerStatus()])
    check_int8(make_orders(Request(model="xl"), library.snapshot()), [WorkerStatus(room=card)])
    with pytest.raises(RequestError, match="^int8: it is a way for CPUs to compute, and this is cuda$") as refused:
        check_int8(orders, [WorkerStatus(room=able), WorkerStatus(room=card)])
    assert refused.value.field == "int8"
    with pytest.raises(RequestError, match="^int8: 'small' keeps its weights as fp8; 8 bits are made of dense ones$"):
        make_orders(Request(model="small", int8=True), library.snapshot())


def test_weights_in_8_bits_take_memory_beside_the_others(library):
    fits = 2 * GIB + tell(library, Room("cpu", 64 * GIB, 2))["least_bytes"]
    worker, snapshot = WorkerStatus(room=Room("cpu", fits, 2)), library.snapshot()
    check_memory(make_orders(Request(model="xl"), snapshot), [worker])
    with pytest.raises(RequestError, match="GiB of memory on cpu"):
        check_memory(make_orders(Request(model="xl", int8=True), snapshot), [worker])
