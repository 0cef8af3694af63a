"""The page. Gradio is imported here, before the modules that use it."""

from webui.compat import (
    with_models_made_late,
    with_one_list_of_certificates,
    without_interface_files,
    without_tables_and_shells,
    without_templates,
)

with (
    without_interface_files(),
    without_tables_and_shells(),
    without_templates(),
    with_models_made_late(),
    with_one_list_of_certificates(),
):
    import gradio  # noqa: F401
