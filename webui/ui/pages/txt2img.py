"""The txt2img tab: a prompt, Generate, the picture; everything else one fold away."""

from collections.abc import Mapping
from typing import Any

from webui.core.catalog import Catalog
from webui.core.work import Work
from webui.ui.workbench import Controls, Task, read_request

EXAMPLES = (
    "a red apple, flat style, on a blue background",
    "a panda, 3d style, on a yellow background",
    "a rocket, cartoon style, on a purple background",
    "a small house, flat style, on a green background",
)


def _build_inputs(_place: str, _catalog: Catalog) -> Controls:
    return {}


def _work(values: Mapping[str, Any]) -> Work:
    return read_request(values)


TASK = Task("txt2img", "Type what you want to see.", _work, _build_inputs, examples=EXAMPLES, enlarges=True)
