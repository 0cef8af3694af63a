"""Darkroom: a browser UI for Stable Diffusion that keeps its promises."""

__version__ = "0.1.0"
