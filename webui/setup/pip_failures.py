"""What pip says when it fails, for people."""

import re
import sys
from pathlib import Path

from webui.setup.torch_builds import INDEX


def explain(output: str, folder: Path, disk_gb: int, offline: bool) -> str | None:
    """The one line for a failure that people can mend themselves; None where pip's own words serve better.

    ``folder`` is the checkout, where an installation takes ``disk_gb``.
    """

    def find(pattern: str) -> str | None:
        found = re.search(pattern, output, re.IGNORECASE)
        return found and found.group(1)

    if find(r"(No space left on device|not enough space on the disk|disk quota exceeded)"):
        return (
            f"The disk is full: this needs about {disk_gb} GB in {folder}, "
            "and room for downloads in the temporary folder (set TMPDIR to choose another)."
        )
    missing = find(r"No matching distribution found for ([^\s;]+)")
    if offline and missing:
        tag = missing.partition("+")[2]
        index = f"--extra-index-url {INDEX}/{tag} {missing} " if tag else ""
        return (
            f"{folder / 'wheels'} lacks {missing}: on a connected computer of the same kind run `python -m pip "
            f"download --dest wheels --constraint constraints.txt {index}pip setuptools .` in this folder, "
            "and bring wheels/."
        )
    if find(r"(connection error|connection broken|timed out|ConnectionReset|ProxyError|SSLError)"):
        index = find(r"Could not fetch URL (\S+?)/?:? ") or find(r"(https?://[^\s'\",]+)") or "pip's index"
        return (
            f"No package index can be reached (asked {index}): connect to the network and start again, "
            f"or put the packages into {folder / 'wheels'} and start with --offline."
        )
    if missing:
        python = "{}.{}".format(*sys.version_info[:2])
        log = folder / ".venv" / "install.log"
        return f"The package index has no {missing} for Python {python} on this system; see {log}"
    return None
