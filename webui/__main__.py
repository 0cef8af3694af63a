"""``python -m webui`` is the ``webui`` command."""

import sys

from webui.cli import main

if __name__ == "__main__":
    sys.exit(main())
