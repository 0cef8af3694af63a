"""The page. Gradio is imported here, before the modules that use it."""

from webui.compat import without_interface_files

with without_interface_files():
    import gradio  # noqa: F401
