"""Sizes that suit a model, to choose from."""

from typing import Any

import gradio as gr

from webui.core.catalog import Catalog

SHAPES = {"Square": (1, 1), "Landscape 3:2": (3, 2), "Portrait 2:3": (2, 3), "Wide 2:1": (2, 1)}


def native_px(catalog: Catalog, model: str) -> int:
    """The side of the model's own pictures, or another's where it is not known."""
    file = catalog.models.get(model) or next(iter(catalog.models.values()), None)
    return file.native_px if file else 512


def offer(native_px: int) -> Any:
    """The update that offers these sizes."""
    return gr.update(choices=list(sizes_px(native_px)), value=None)


def sizes_px(native_px: int) -> dict[str, tuple[int, int]]:
    """By label, (width, height) around the model's own: its long side stays, or doubles where the shape would be too
    thin."""
    sizes: dict[str, tuple[int, int]] = {}
    for name, (across, down) in SHAPES.items():
        unit_px = native_px / min(across, down) if max(across, down) == 3 else native_px
        width, height = (round(unit_px * side / 8) * 8 for side in (across, down))
        sizes[f"{name} · {width} × {height}"] = (width, height)
    return sizes
