"""Weights from files into modules, in the formats that people keep them in."""

from webui.engine.weights.empty import build_empty
from webui.engine.weights.files import DTYPES, Files, Key, Source
from webui.engine.weights.layers import keeps_small
from webui.engine.weights.loader import WeightLoader, read_all, read_some

__all__ = ["DTYPES", "Files", "Key", "Source", "WeightLoader", "build_empty", "keeps_small", "read_all", "read_some"]
