"""The tabs, in order. To add one: a module with a ``TASK`` here, its name in ``PAGES``, and in ``PAGES`` of
``static/page.js``.
"""

from webui.ui.pages import img2img, inpaint, txt2img
from webui.ui.workbench import Task

PAGES: tuple[Task, ...] = (txt2img.TASK, img2img.TASK, inpaint.TASK)
