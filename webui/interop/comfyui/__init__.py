"""ComfyUI's graphs: walked back from the picture that was saved, through any nodes, to what was asked for."""

from webui.interop.comfyui.reader import is_comfyui, read_comfyui

__all__ = ["is_comfyui", "read_comfyui"]
