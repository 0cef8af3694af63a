"""What went wrong, in words for people and for the log."""

import logging
import re

_FOLDERS = re.compile(r"(?<![\w./\\])(?:[A-Za-z]:)?[/\\](?:[^'\"/\\<>|:]*[/\\])*(?=[^\s'\"/\\])")

log = logging.getLogger(__name__)


def for_people(error: BaseException) -> str:
    """The first line of the error, with its kind where that says more than the text; files without their folders."""
    text = str(error).strip().splitlines()
    line = text[0] if text else "no details"
    return line if _is_known(error) and text else f"{type(error).__name__}: {_FOLDERS.sub('', line)}"


def log_error(what: str, error: BaseException) -> None:
    """One line for a reason that is known, and the traceback for any other."""
    if _is_known(error):
        log.warning("%s: %s", what, str(error))
    else:
        log.error("%s", what, exc_info=error)


def _is_known(error: BaseException) -> bool:
    """Whether the error was raised by our own code, in words for people."""
    return type(error).__module__.startswith("webui.")
