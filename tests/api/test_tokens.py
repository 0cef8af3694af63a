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
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TestClient, str]]:
    """It, and the name of a style that ships."""
    settings = Settings(device="cpu", data_dir=tmp_path_factory.mktemp("data"))
    executor, here = LocalExecutor(settings), Workspaces(settings.data_dir).here
    app = FastAPI()
    app.include_router(tokens_router(executor, here))
    yield TestClient(app), here().presets.all_styles()[0].name
    executor.close()


@pytest.mark.parametrize("field", ["prompt", "negative"])
def test_the_words_of_styles_count(client, field):
    asking, style = client
    plain, styled = (
        asking.post("/api/tokens", json={"model": "demo", field: "a cat", "styles": styles}).json()["tokens"]
        for styles in ([], [style])
    )
    assert plain == 2 and (styled > plain or field == "negative" and styled >= plain)
