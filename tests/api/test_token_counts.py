"""What the counter below a prompt is told: the words of styles count too."""

from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from webui.api.tokens import tokens_router
from webui.core.settings import Settings
from webui.jobs.executor import LocalExecutor
from webui.workspace.workspace import Workspaces


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TestClient, list[str]]]:
    """It, and the names of the styles that ship."""
    settings = Settings(device="cpu", data_dir=tmp_path_factory.mktemp("data"))
    executor, here = LocalExecutor(settings), Workspaces(settings.data_dir).here
    app = FastAPI()
    app.include_router(tokens_router(executor, here))
    yield TestClient(app), [style.name for style in here().presets.all_styles()]
    executor.close()


@pytest.mark.parametrize(("field", "adds"), [("prompt", True), ("negative", False)])
def test_the_words_of_styles_count_where_they_stand(client, field, adds):
    asking, known = client
    plain, styled = (
        asking.post("/api/tokens", json={"model": "demo", field: "a cat", "styles": styles}).json()["tokens"]
        for styles in ([], known)
    )
    assert plain > 0 and (plain < styled) == adds  # those that ship say nothing to avoid
