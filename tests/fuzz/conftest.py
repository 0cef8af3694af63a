"""A guarded server in this process, its engine made of nothing, and a watch on what each input costs."""

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from fastapi import FastAPI

from tests.jobs.conftest import FakeManager
from webui.api.a1111 import a1111_router
from webui.api.description import description_router
from webui.api.errors import ERROR_ANSWERS
from webui.api.guard import Guard
from webui.api.held import Held
from webui.api.history import history_router
from webui.api.hosts import AllowedHosts
from webui.api.info import info_router
from webui.api.jobs import jobs_router
from webui.api.login import Login
from webui.api.loras import loras_router
from webui.api.metrics import metrics_router
from webui.api.models import models_router
from webui.api.policy import Policy
from webui.api.presets import presets_router
from webui.api.streams import Streams
from webui.api.tokens import tokens_router
from webui.api.visitors import Visitors
from webui.core.settings import Settings
from webui.jobs.executor import LocalExecutor
from webui.jobs.workers.thread import ThreadWorker
from webui.workspace.history import History
from webui.workspace.presets import PresetStore
from webui.workspace.thumbnails import Thumbnails

MOST_S = 2.0  # of processor time, for any one input
MOST_MIB = 300  # that many inputs together may leave behind


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(device="cpu", data_dir=tmp_path_factory.mktemp("fuzz"), allow_host=("testserver",))


@pytest.fixture(scope="session")
def executor(served: Settings) -> Iterator[LocalExecutor]:
    made = LocalExecutor(served, ThreadWorker(served.engine_options, FakeManager()))
    yield made
    made.close()


@pytest.fixture(scope="session")
def app(served: Settings, executor: LocalExecutor) -> Any:
    """All our routes behind the guard, as ``webui.app`` puts them together."""
    settings, folder = served, served.data_dir
    presets = PresetStore(settings.presets_dir)
    history = History(settings.outputs_dir, settings.cache_dir)
    inner = FastAPI(exception_handlers=dict(ERROR_ANSWERS), openapi_url=None)
    over_executor = (info_router, loras_router, metrics_router, models_router, tokens_router)
    routers = [make(executor) for make in over_executor]
    routers += [jobs_router(executor, presets), presets_router(presets), a1111_router(executor, "demo", False)]
    routers += [history_router(history, Thumbnails(settings.cache_dir / "thumbnails"))]
    for router in [*routers, description_router(routers)]:
        inner.include_router(router)
    login = Login(SimpleNamespace(auth=None, cookie_id="x", tokens={}))
    hosts, visitors = AllowedHosts(settings), Visitors(None, login)
    return Guard(inner, hosts, login, visitors, folder, Streams(), Policy(), Held(folder))


@contextmanager
def bounded(what: object) -> Iterator[None]:
    """Fails where the block takes more processor time than any input may."""
    started = time.process_time()
    yield
    spent = time.process_time() - started
    assert spent < MOST_S, f"{spent:.1f} s of processor time for {str(what)[:200]!r}"


@pytest.fixture
def keeps_memory() -> Iterator[None]:
    """Fails where the test leaves much memory taken."""
    process = psutil.Process()
    before = process.memory_info().rss
    yield
    gc.collect()
    assert (process.memory_info().rss - before) / 2**20 < MOST_MIB


Check = Callable[[Any], None]
