"""The page. Gradio is imported here, before the modules that use it."""

from webui.compat import with_few_templates, without_interface_files, without_tables_and_shells

with without_interface_files(), without_tables_and_shells(), with_few_templates():
    import gradio  # noqa: F401
