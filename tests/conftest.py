"""What every layer's tests share: settings and folders of their own, and pictures made of nothing."""

import logging
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest
from PIL import Image as PilImages

from webui.core.events import Image
from webui.core.recipe import Recipe
from webui.core.request import Request
from webui.core.settings import Settings

hypothesis.settings.register_profile(
    "darkroom",
    deadline=None,  # a busy machine is no defect
    database=None,  # nothing is written into the checkout
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.function_scoped_fixture],
)
hypothesis.settings.load_profile("darkroom")


def pytest_addoption(parser: pytest.Parser) -> None:
    text = "what the engine's tests draw on: cpu (default), or cuda on a machine with an NVIDIA GPU"
    parser.addoption("--device", choices=("cpu", "cuda"), default="cpu", help=text)


def pytest_configure(config: pytest.Config) -> None:
    # A parent that ignores Ctrl-C, as nohup and a shell's background jobs do, hands that on to all that starts here.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # diffusers 0.42 with numpy 2: tens of thousands of times a run
    config.addinivalue_line("filterwarnings", "ignore:__array:DeprecationWarning")
    # what the product itself ignores; pytest takes its filters away
    config.addinivalue_line("filterwarnings", "ignore:The given NumPy array is not writable")


LONGEST = ("e2e", "", "engine", "training", "jobs", "ui", "workspace", "fuzz")
"""Folders here whose files take longest, and the files that are in none."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest come first: else one process has such a file for itself when the others have ended."""
    here = Path(__file__).parent

    def place(item: pytest.Item) -> int:
        folder = item.path.relative_to(here).parts[0] if item.path.parent != here else ""
        return LONGEST.index(folder) if folder in LONGEST else len(LONGEST)

    items.sort(key=place)


@pytest.fixture(scope="session", autouse=True)
def _away_from_the_checkout(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nothing a test runs writes into the checkout's ``data/`` or asks the network for a model."""
    os.environ["WEBUI_DATA_DIR"] = str(tmp_path_factory.mktemp("data"))
    os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """The command line, called within a test, leaves less in the log."""
    yield
    logging.getLogger("webui").setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def repository() -> Path:
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> str:
    """What the engine draws on in tests of pictures that are any device's."""
    return request.config.getoption("--device")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(device="cpu", dtype="float32", data_dir=tmp_path / "data")


@pytest.fixture(scope="session")
def make_picture() -> Callable[..., Image]:
    """``make_picture(colour=..., prompt=..., seed=..., ...)``: a finished picture in one colour, recipe and all."""

    def make(colour: tuple[int, int, int] = (200, 30, 40), size: int = 64, index: int = 0, **fields) -> Image:
        request = Request(**({"seed": 7, "width": size, "height": size} | fields))
        return Image(
            index,
            PilImages.new("RGB", (size, size), colour),
            Recipe(request, {"model": {request.model: "0123456789abcdef"}}),
        )

    return make
