"""Gradio's import, which makes files for code editors unless it is kept from it."""

import subprocess
import sys

import pytest

SCRIPT = """
import sys
opened = []
sys.addaudithook(lambda event, given: opened.append(str(given[0])) if event == "open" else None)
__import__(sys.argv[1])
import gradio
assert gradio.Textbox and gradio.Image
print(sum(path.endswith(".pyi") for path in opened))
"""


@pytest.mark.parametrize(("module", "interface_files"), [("webui.ui", False), ("gradio", True)])
def test_interface_files_are_left_alone(module: str, interface_files: bool) -> None:
    run = subprocess.run([sys.executable, "-c", SCRIPT, module], capture_output=True, text=True, check=True)
    assert (int(run.stdout) > 0) == interface_files


def test_tables_come_when_they_are_asked_for() -> None:
    script = "import sys, webui.ui, gradio.caching as g\nbefore = 'pandas' in sys.modules\nfound = g.pd.DataFrame\n"
    script += "import pandas\nprint(before, found is pandas.DataFrame)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "True"]


@pytest.mark.parametrize("times", [1, 2])
def test_a_page_has_its_configuration_however_often_it_is_made(times: int) -> None:
    import gradio

    from webui.compat import with_one_configuration

    with gradio.Blocks() as page:
        gradio.Textbox(label="Words")
    with with_one_configuration():
        for _ in range(times):
            page.config = page.get_config_file()
    assert page.config["components"][0]["props"]["label"] == "Words"
