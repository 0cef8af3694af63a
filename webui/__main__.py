"""``python -m webui`` is the ``webui`` command."""

from webui.cli import run

if __name__ == "__main__":
    run()
