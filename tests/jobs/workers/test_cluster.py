"""A Ray cluster's workers: where they are, what is said where there are none, and the same pictures from two nodes."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from webui.cli import make_parser, verify
from webui.core.errors import RequestError
from webui.core.events import Done, Image, Loading, Step
from webui.core.request import Request
from webui.core.settings import Settings
from webui.jobs.resolve import make_order
from webui.jobs.workers import cluster
from webui.jobs.workers.cluster import Cluster, connect, describe, name_nodes, seats_of
from webui.library.library import Library

PICTURES = 40


def node(node_id: str, host: str = "alpha", **resources: float) -> dict[str, object]:
    return {"NodeID": node_id, "NodeManagerHostname": host, "Resources": resources, "Alive": True}


def seats(nodes, device: str = "auto", workers: int = 1):
    names: dict[str, str] = {}
    name_nodes(nodes, names)
    return [(seat.name, seat.device, seat.cores) for seat in seats_of(nodes, device, workers, names)]


def test_a_worker_is_on_each_card_and_on_processors_without():
    nodes = [node("1", CPU=8, GPU=2), node("2", "beta", CPU=4), node("3", "head")]
    assert seats(nodes) == [("alpha cuda:0", "cuda", 4), ("alpha cuda:1", "cuda", 4), ("beta cpu", "cpu", 4)]
    assert seats(nodes, "cuda") == seats(nodes)[:2]
    assert seats(nodes, "cpu", 2)[:2] == [("alpha cpu 1", "cpu", 4), ("alpha cpu 2", "cpu", 4)]
    assert seats([node("1", CPU=1)], "cpu", 4) == [("alpha cpu", "cpu", 1)]


def test_nodes_of_one_machine_keep_names_of_their_own():
    names: dict[str, str] = {}
    name_nodes([node("bbbbbbbb")], names)
    name_nodes([node("aaaaaaaa"), node("bbbbbbbb")], names)
    assert names == {"bbbbbbbb": "alpha", "aaaaaaaa": "alpha aaaaaa"}


def test_the_doctor_s_lines_name_card_threads_and_memory():
    nodes = [node("1", CPU=8, GPU=1, memory=64 * 2**30, **{"accelerator_type:H200": 1}), node("2", "beta", CPU=4)]
    assert describe(nodes, "auto", 1) == [
        "alpha cuda:0 (H200, 64.0 GiB of memory)",
        "beta cpu (4 threads, 0.0 GiB of memory)",
    ]


def test_without_ray_one_line_says_how(monkeypatch):
    monkeypatch.setattr(cluster.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RequestError, match="not installed: pip install"):
        Cluster(Settings(ray="local"))


def test_devices_are_the_cluster_s_to_name(monkeypatch):
    monkeypatch.setattr(cluster, "check_installed", lambda: None)
    with pytest.raises(RequestError, match="the cluster says"):
        Cluster(Settings(ray="local", devices=("cpu",)))


@pytest.mark.parametrize("address", ["here", "10.0.0.1", "ray://10.0.0.1:10001", "a:0", "a:99999"])
def test_what_is_no_address_is_told(address):
    with pytest.raises(RequestError, match="is not local, auto, or HOST:PORT"):
        connect(address)


def test_an_address_where_nobody_listens_is_told():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    with pytest.raises(RequestError, match=f"127.0.0.1:{port} does not answer"):
        connect(f"127.0.0.1:{port}")


def test_other_versions_are_said(monkeypatch):
    ray = pytest.importorskip("ray")
    from ray._private.utils import check_version_info

    theirs = {"ray_version": "2.1.0", "python_version": "3.9.1"}
    monkeypatch.setattr(ray, "init", lambda **_: check_version_info(theirs, "this machine"))
    said = r"^ray: the cluster has other versions: .*2\.1\.0.*3\.9\.1"
    with socket.create_server(("127.0.0.1", 0)) as listening, pytest.raises(RequestError, match=said) as error:
        connect(f"127.0.0.1:{listening.getsockname()[1]}")
    assert error.value.field == "ray"


@contextmanager
def two_nodes() -> Iterator[tuple[object, object]]:
    """A cluster of two nodes on this machine, which nobody else reaches, and the second of them."""
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster as Nodes

    small = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": 100 * 2**20, "include_dashboard": False}
    nodes = Nodes(initialize_head=True, head_node_args=small)
    second = nodes.add_node(num_cpus=1, num_gpus=0, object_store_memory=100 * 2**20)
    try:
        yield nodes, second
    finally:
        nodes.shutdown()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_nodes_draw_one_worker_s_pictures_though_one_is_killed_and_another_comes(tmp_path, capsys):
    from webui.app import make_executor
    from webui.engine.manager import PipelineManager

    request = Request(prompt="a panda", seed=7, steps=20, width=64, height=64, repeat=PICTURES, strict=True)
    with two_nodes() as (nodes, second):
        settings = Settings(data_dir=tmp_path, device="cpu", dtype="float32", ray=nodes.address)
        executor = make_executor(settings)
        try:
            job = executor.submit(request)
            killed, said = False, []
            for _, event in job.follow():
                said.append(event)
                here = {picture.recipe.environment["worker"] for picture in job.images}
                if not killed and isinstance(event, Step) and len(here) == 2:
                    nodes.remove_node(second, allow_graceful=False)
                    killed = True
            assert killed and isinstance(said[-1], Done)
            pictures = [event for event in said if isinstance(event, Image)]
            assert [picture.index for picture in pictures] == list(range(PICTURES))
            assert all(picture.recipe.environment["threads"] == 1 for picture in pictures)
            assert any("Drawn once more" in event.what for event in said if isinstance(event, Loading))

            nodes.add_node(num_cpus=1, num_gpus=0, object_store_memory=100 * 2**20)
            while len([worker for worker in executor.status()["workers"] if "trouble" not in worker]) < 2:
                again = executor.submit(request.model_copy(update={"repeat": 1}))
                assert isinstance([event for _, event in again.follow()][-1], Done)
            again = executor.submit(request.model_copy(update={"seed": 100}))
            for _ in again.follow():
                pass
            assert len({picture.recipe.environment["worker"] for picture in again.images}) == 2
        finally:
            executor.close()
        paths = [str(picture.path) for picture in again.images[:6]]
        options = make_parser("verify").parse_args(
            ["verify", "--ray", nodes.address, "--device", "cpu", "--data-dir", str(tmp_path), *paths]
        )
        assert verify.run(options) == 0
        assert capsys.readouterr().out.splitlines() == [f"{path}: identical" for path in paths]
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        here = PipelineManager(settings.engine_options)
        order = make_order(request, Library(settings).snapshot())
        expected = [event.pixels_sha256 for event in here.draw(order) if isinstance(event, Image)]
        here.close()
    finally:
        torch.set_num_threads(before)
    assert [picture.pixels_sha256 for picture in pictures] == expected
