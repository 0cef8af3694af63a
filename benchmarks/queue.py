"""Ten jobs sent at once to a running server: how busy the device is, and what a picture takes of the time."""

import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from benchmarks.coldstart import LIMIT_S, events, server, wait_for_page
from benchmarks.measure import Options, Row, compared
from benchmarks.peers.convert import offer

JOBS = 10
PROMPT = "a red apple, flat style, on a blue background"
NOT_THE_DEVICE = ("queue", "save")


def run(options: Options) -> list[Row]:
    """Busy is what jobs spent on the device thread, of the time from the first one's start to the last one's end."""
    busy: list[float] = []
    wall_ms: list[float] = []
    alone_ms: list[float] = []
    side, steps = (128, 20) if options.size == "demo" else (256, 4)
    with tempfile.TemporaryDirectory() as data_dir:
        request = {"prompt": PROMPT, "model": offer(options.size, Path(data_dir)), "steps": options.steps or steps}
        request |= {"width": side, "height": side}
        with server(data_dir) as (url, _), httpx.Client(base_url=url, timeout=LIMIT_S, trust_env=False) as client:
            wait_for_page(url)
            for k in range(options.rounds + 1):
                alone_s = _draw(client, request, 1, seed=k)[0]
                wall_s, device_s = _draw(client, request, JOBS, seed=100 * k)
                if k:
                    alone_ms.append(alone_s * 1e3)
                    wall_ms.append(wall_s * 1e3 / JOBS)
                    busy.append(100 * device_s / wall_s)
    alone = Row("one job alone, sent to done", "ms", alone_ms)
    return [
        alone,
        compared(f"one of {JOBS} back to back", "ms", wall_ms, alone),
        Row("device busy", "%", busy),
    ]


def _draw(client: httpx.Client, request: dict[str, Any], jobs: int, seed: int) -> tuple[float, float]:
    """Seconds until all are done, and seconds of them that the device thread worked."""
    started = time.perf_counter()
    requests = [request | {"seed": seed + k} for k in range(jobs)]
    sent = [client.post("/api/jobs", json=each).raise_for_status().json() for each in requests]
    device_s = 0.0
    for job in sent:
        last = list(events(client, job["id"]))[-1]
        if last["event"] != "done":
            raise RuntimeError(f"the job ended with {last}")
        device_s += sum(seconds for part, seconds in last["parts_s"].items() if part not in NOT_THE_DEVICE)
    return time.perf_counter() - started, device_s
