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
from webui.api.errors import ERROR_ANSWERS
from webui.api.guard import Guard
from webui.api.held import Held
from webui.api.hosts import AllowedHosts
from webui.api.login import Login
from webui.api.streams import Streams
from webui.api.visitors import Visitors
from webui.app import routers
from webui.core.settings import Settings
from webui.jobs.executor import LocalExecutor
from webui.jobs.workers.thread import ThreadWorker
from webui.workspace.workspace import Workspaces

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
    inner = FastAPI(exception_handlers=dict(ERROR_ANSWERS), openapi_url=None)
    login = Login(SimpleNamespace(auth=None, cookie_id="x", tokens={}))
    for router in routers(settings, executor, Workspaces(folder, served=folder / "cache"), login):
        inner.include_router(router)
    hosts, visitors = AllowedHosts(settings), Visitors(None, login)
    return Guard(inner, hosts, login, visitors, folder, Streams(), Held(folder))


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
