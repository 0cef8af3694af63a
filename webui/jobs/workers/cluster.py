"""The workers of a Ray cluster: one for each card of each node, or one on the processor of a node without cards."""

import importlib.util
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from webui.core.errors import RequestError
from webui.core.settings import Settings
from webui.jobs.workers.ray import RayWorker, Seat
from webui.jobs.workers.worker import Joined

LOCAL = "local"
NOT_INSTALLED = 'Ray is not installed: pip install "ray==2.60.*", or "darkroom[ray]"'
REACH_S, CONNECT_S, FIRST_S, LOOK_S = 5.0, 30.0, 90.0, 1.0
"""The longest that an address, a cluster and its first worker are waited for, and how often nodes are looked for."""
STORE_BYTES = 200 * 2**20
"""Memory for what is on its way between processes of Ray on this machine: events and pictures, one after the other."""

log = logging.getLogger(__name__)


class Cluster:
    """See ``Fleet``. Nodes that come are used, those that go are left."""

    def __init__(self, settings: Settings) -> None:
        assert settings.ray
        check_installed()
        if settings.devices:
            raise RequestError("devices: with --ray the cluster says which there are", field="devices")
        self._settings = settings
        connect(settings.ray)
        self._workers: dict[str, RayWorker] = {}
        self._names: dict[str, str] = {}
        self._ended = threading.Event()
        self._tending: threading.Thread | None = None

    @property
    def trouble(self) -> str:
        """See ``Fleet``."""
        away = {name: worker.status().away for name, worker in self._workers.items()}
        if not away:
            return "No node of the cluster can draw. Jobs wait until one comes."
        if all(away.values()):
            return f"No worker of the cluster can draw. {'; '.join(f'{name}: {why}' for name, why in away.items())}"
        return ""

    def start(self, joined: Joined) -> None:
        """See ``Fleet``."""
        until = time.monotonic() + FIRST_S
        while True:
            self._look(joined)
            if not self.trouble:
                break
            if time.monotonic() > until:
                why = self.trouble
                self.close()
                raise RequestError(f"ray: {why}", field="ray")
            self._ended.wait(LOOK_S / 4)
        self._tending = threading.Thread(target=self._tend, args=(joined,), name="cluster", daemon=True)
        self._tending.start()

    def close(self) -> None:
        """See ``Fleet``."""
        self._ended.set()
        if self._tending:
            self._tending.join(2 * LOOK_S)
        import ray

        with suppress(Exception):  # it is gone already
            ray.shutdown()

    def _tend(self, joined: Joined) -> None:
        while not self._ended.wait(LOOK_S):
            try:
                self._look(joined)
            except Exception as error:  # the cluster's head may be back the next time
                log.warning("the cluster could not be asked for its nodes: %s", error)

    def _look(self, joined: Joined) -> None:
        nodes = alive_nodes()
        name_nodes(nodes, self._names)
        found = seats_of(nodes, self._settings.device, self._settings.workers, self._names)
        seats = {seat.name: seat for seat in found}
        for name in [name for name, worker in self._workers.items() if seats.get(name) != worker.seat]:
            worker = self._workers.pop(name)
            joined.leave(name)
            worker.close()
        options, bound_bytes = self._settings.engine_options, self._settings.ray_files
        for name, seat in seats.items():
            if name not in self._workers:
                self._workers[name] = RayWorker(options, seat, bound_bytes)
                joined.join(name, self._workers[name])
        if any([worker.tend() for worker in self._workers.values()]):
            joined.wake()


def alive_nodes() -> list[Mapping[str, Any]]:
    """Those of the cluster that this process is of, as Ray describes them."""
    import ray

    nodes: list[Mapping[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node for node in nodes if node["Alive"]]


def check_installed() -> None:
    """Raises RequestError where Ray is not there."""
    if importlib.util.find_spec("ray") is None:
        raise RequestError(NOT_INSTALLED, field="ray")


def connect(address: str) -> None:
    """Makes this process one of the cluster's, or with ``local`` starts one here that nobody else reaches.

    Raises RequestError for an address that does not answer within a bounded time, or that is not of this machine's
    cluster, and for other versions.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "include_dashboard": False}
    if address == LOCAL:
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # Ray's ports stay at 127.0.0.1
        options["object_store_memory"] = STORE_BYTES
    else:
        _reach(address)
        del options["include_dashboard"]
    import ray
    from ray.job_config import JobConfig

    _hush()
    here = str(Path(__file__).resolve().parents[3])
    config = JobConfig(_py_driver_sys_path=[here])

    def init() -> None:
        ray.init(address=address, job_config=config, **options)

    # What Ray starts here ends with the thread that started it, so that this one does it; it waits within bounds then.
    raised = attempt(init) if address == LOCAL else within(CONNECT_S, init)
    if raised is None:
        return
    text = str(raised).strip()
    if isinstance(raised, TimeoutError):
        why = f"{address} answers, but not as a Ray cluster does within {CONNECT_S:.0f} s"
    elif "ersion mismatch" in text:
        why = f"the cluster has other versions: {' '.join(text.split())[:400]}"
    elif "node_ip_address" in text or "raylet" in text or "No node info" in text:
        why = f"this machine is not a node of {address} yet: ray start --address={address}"
    else:
        why = f"{address}: {' '.join(text.split())[:300] or type(raised).__name__}"
    raise RequestError(f"ray: {why}", field="ray")


def _hush() -> None:
    """What Ray 2.60 prints of lost nodes, a page each among what a command prints, goes to the log: people are told of
    them otherwise."""
    from ray._private import worker

    def note(data: Mapping[str, Any], ignore_prefix: bool) -> None:
        log.info("ray: %s", " ".join(data["lines"])[:500])

    worker.print_to_stdstream = note


def _reach(address: str) -> None:
    """Raises RequestError where nobody listens."""
    if address == "auto":
        return
    host, colon, port = address.rpartition(":")
    if not colon or "/" in address or not port.isdecimal() or not 0 < int(port) < 65536:
        raise RequestError(
            f"ray: {address[:80]!r} is not local, auto, or HOST:PORT of a cluster, such as 10.0.0.1:6379", field="ray"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_S).close()
    except OSError as error:
        raise RequestError(f"ray: {address} does not answer: {error.strerror or error}", field="ray") from None


def attempt(act: Callable[[], object]) -> BaseException | None:
    """What it raised, None where it did not."""
    try:
        act()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever it is, also the SystemExit of a library
        return error
    return None


def within(seconds: float, act: Callable[[], object]) -> BaseException | None:
    """What it raised, None where it did not; TimeoutError where it was not over in time."""
    raised: list[BaseException | None] = []
    thread = threading.Thread(target=lambda: raised.append(attempt(act)), name="ray.init", daemon=True)
    thread.start()
    thread.join(seconds)
    return raised[0] if raised else TimeoutError()


def name_nodes(nodes: Iterable[Mapping[str, Any]], known: dict[str, str]) -> None:
    """Adds a name for each that has none in ``known``, by their ids: that of its machine, which may have several."""
    for node in nodes:
        host = str(node["NodeManagerHostname"])
        known.setdefault(node["NodeID"], f"{host} {node['NodeID'][:6]}" if host in known.values() else host)


def seats_of(nodes: Iterable[Mapping[str, Any]], device: str, workers: int, names: Mapping[str, str]) -> Iterator[Seat]:
    """Where workers are on these nodes, as Ray describes them: one a card, or so many ``workers`` on the processor of a
    node without cards; on all processors where ``device`` is cpu. ``names`` are the nodes' by their ids."""
    for node in nodes:
        resources: Mapping[str, float] = node["Resources"]
        cores, cards = int(resources.get("CPU", 0)), 0 if device == "cpu" else int(resources.get("GPU", 0))
        host = names[node["NodeID"]]
        if cards:
            for card in range(cards):
                name = f"{host} cuda:{card}"
                yield Seat(name, node["NodeID"], "cuda", max(cores // cards, 1))
        elif device in ("auto", "cpu"):
            count = min(workers, cores)
            for number in range(1, count + 1):
                name = f"{host} cpu {number}" if count > 1 else f"{host} cpu"
                yield Seat(name, node["NodeID"], "cpu", cores // count)


def describe(nodes: Sequence[Mapping[str, Any]], device: str, workers: int) -> list[str]:
    """The seats for people, each with what Ray knows of its node."""
    by_id = {node["NodeID"]: node["Resources"] for node in nodes}
    lines, names = [], dict[str, str]()
    name_nodes(nodes, names)
    for seat in seats_of(nodes, device, workers, names):
        resources = by_id[seat.node_id]
        card = next((name.partition(":")[2] for name in resources if name.startswith("accelerator_type:")), "")
        memory = f"{resources.get('memory', 0) / 2**30:.1f} GiB"
        what = card or "a card" if seat.device != "cpu" else f"{seat.cores} threads"
        lines.append(f"{seat.name} ({what}, {memory} of memory)")
    return lines


def name_cluster(settings: Settings) -> list[str]:
    """``describe`` of the cluster that these settings name; raises RequestError as ``Cluster`` does."""
    cluster = Cluster(settings)
    try:
        return describe(alive_nodes(), settings.device, settings.workers)
    finally:
        cluster.close()
