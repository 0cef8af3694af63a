"""What Gradio's import, and a page that is opened, do not load."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys
opened = []
sys.addaudithook(lambda event, given: opened.append(str(given[0])) if event == "open" else None)
__import__(sys.argv[1])
import gradio
assert gradio.Textbox and gradio.Image
print(any(path.endswith(".pyi") for path in opened))
import gradio.caching
before, found = "pandas" in sys.modules, gradio.caching.pd.DataFrame
import pandas
print(before, found is pandas.DataFrame)
"""


@pytest.mark.parametrize(
    ("module", "is_plain"), [("webui.ui", False), pytest.param("gradio", True, marks=pytest.mark.slow)]
)
def test_interface_files_are_left_alone_and_tables_come_when_they_are_asked_for(module: str, is_plain: bool) -> None:
    """Plain Gradio loads both."""
    run = subprocess.run([sys.executable, "-c", SCRIPT, module], capture_output=True, text=True, check=True)
    assert run.stdout.split() == [str(is_plain), str(is_plain), "True"]


@pytest.mark.parametrize("times", [1, 2])
def test_a_page_has_its_configuration_however_often_it_is_made(times: int) -> None:
    import gradio

    from webui.compat import without_second_looks

    with gradio.Blocks() as page:
        gradio.Textbox(label="Words")
    with without_second_looks(page):
        for _ in range(times):
            page.config = page.get_config_file()
    assert page.config["components"][0]["props"]["label"] == "Words"


OPENED = """
import socket, sys
from pathlib import Path
from webui import app
from webui.core.settings import Settings
with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
_, _, _, blocks = app._open(Settings(data_dir=Path(sys.argv[1]), port=port, open_browser=False))
import httpx
page = httpx.get(f"http://127.0.0.1:{port}/")
assert page.status_code == 200 and b"txt2img-generate" in page.content
print(*(name for name in sys.argv[2:] if name in sys.modules), file=sys.stderr)
app.exit_process(0)
"""
LEFT_OUT = (
    *("pandas", "rich.console", "pygments.lexers", "pydantic.v1", "requests", "torch.nn", "diffusers"),
    *("gradio.cli.cli", "gradio.external", "gradio.workflow", "gradio_client.client"),
    *("huggingface_hub.hf_api", "huggingface_hub._commit_api"),
)


def test_a_page_that_has_answered_has_loaded_no_more_than_it_needs(tmp_path: Path) -> None:
    command = [sys.executable, "-c", OPENED, str(tmp_path), *LEFT_OUT]
    run = subprocess.run(command, capture_output=True, text=True)
    assert (run.returncode, run.stderr.split()) == (0, [])
