"""``/api/metrics``: what a Prometheus server reads. Labels hold no prompt and nothing else of a request."""

from collections.abc import Iterator
from itertools import accumulate
from typing import Annotated, Any

import psutil
from fastapi import APIRouter, Header, Response
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from webui.core.ledger import BOUNDS_S
from webui.jobs.protocols import Executor


def metrics_router(executor: Executor) -> APIRouter:
    """The route over one executor, with a registry of its own."""
    router = APIRouter(prefix="/api/metrics")
    registry = CollectorRegistry()
    registry.register(ExecutorCollector(executor))

    @router.get("")
    def metrics(accept: Annotated[str, Header()] = "") -> Response:
        encode, content_type = choose_encoder(accept)
        return Response(encode(registry), headers={"Content-Type": content_type})

    return router


class ExecutorCollector(Collector):
    """Reads the executor each time it is asked, and counts nothing itself."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._process = psutil.Process()

    def collect(self) -> Iterator[Metric]:
        """What was done since the start, then how things are now."""
        totals = self._executor.totals()
        jobs = CounterMetricFamily("darkroom_jobs", "Jobs that ended, by how.", labels=["outcome"])
        for outcome, count in totals.jobs.items():
            jobs.add_metric([outcome], count)
        parts = CounterMetricFamily("darkroom_part_seconds", "Where the time of done jobs went.", labels=["part"])
        for part, spent_s in totals.parts_s.items():
            parts.add_metric([part], spent_s)
        yield jobs
        yield CounterMetricFamily("darkroom_pictures", "Pictures that were made.", totals.pictures)
        yield CounterMetricFamily("darkroom_steps", "Sampling steps, each of a whole batch.", totals.steps)
        yield parts
        buckets = zip([*map(str, BOUNDS_S), "+Inf"], accumulate(totals.within), strict=True)
        text = "Seconds from submission to the end of done jobs."
        yield HistogramMetricFamily("darkroom_job_seconds", text, list(buckets), totals.seconds)
        yield from self._gauges(dict(self._executor.status()))

    def _gauges(self, status: dict[str, Any]) -> Iterator[Metric]:
        yield GaugeMetricFamily("darkroom_queue_length", "Jobs that wait.", status["waiting"])
        yield GaugeMetricFamily("darkroom_jobs_running", "Jobs that are being drawn.", int(status["running"]))
        model = GaugeMetricFamily("darkroom_model_info", "The model in memory.", labels=["model", "device"])
        if status["model"]:
            model.add_metric([status["model"], status["device"]], 1)
        yield model
        text = "What the workers do, where there are several: 1 for one that draws."
        workers = GaugeMetricFamily("darkroom_worker_running", text, labels=["worker", "device", "model"])
        for worker in status.get("workers", ()):
            labels = [worker["name"], worker["device"] or "", worker["model"] or ""]
            workers.add_metric(labels, int(worker["running"]))
        yield workers
        memory = GaugeMetricFamily("darkroom_device_memory_bytes", "Memory taken on the GPU.", labels=["state"])
        for state, taken_bytes in status.get("memory_bytes", {}).items():
            memory.add_metric([state], taken_bytes)
        yield memory
        rss_bytes = self._process.memory_info().rss
        yield GaugeMetricFamily("process_resident_memory_bytes", "Memory that this process takes.", rss_bytes)
