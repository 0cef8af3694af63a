"""The status line: what it says of each event, and its progress bar."""

import pytest

from webui.core.events import Loading
from webui.ui.stream import status_html


@pytest.mark.parametrize(
    ("event", "text", "value"),
    [
        (Loading("Starting the engine", 0.0), "Starting the engine ...", None),
        (Loading("Merging 2 LoRAs", 0.0), "Merging 2 LoRAs ...", None),
        (Loading("Loading x: UNet, 1.20 of 3.97 GiB", 0.3), "Loading x: UNet, 1.20 of 3.97 GiB", "0.3000"),
        (Loading("Loading <b>2</b>", 0.5), "Loading &lt;b&gt;2&lt;/b&gt; ...", "0.5000"),
    ],
)
def test_loading_says_how_far_it_is_where_that_is_known(event, text, value):
    shown = status_html(event, None)
    assert 'data-state="loading"' in shown
    assert f">{text}</span>" in shown
    assert (f'<progress max="1" value="{value}"' in shown) if value else ("<progress" not in shown)
