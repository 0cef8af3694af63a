"""``webui models``: says which models there are, and adds one from a file or an address."""

import argparse
import sys
import time

from tqdm import tqdm

from webui.cli import BadInput
from webui.cli.flags import add_offline, add_settings, read_settings
from webui.core.errors import RequestError
from webui.library.adding.additions import Addition, Additions
from webui.library.library import find_models
from webui.library.model_info import describe

LOOK_S = 0.2


def add_flags(parser: argparse.ArgumentParser) -> None:
    """What is added, and where."""
    add_settings(parser)
    add_offline(parser)
    parser.add_argument("act", nargs="?", choices=("list", "add"), default="list", help="default: list")
    parser.add_argument("source", nargs="?", metavar="PATH|ADDRESS", help="add: a file, or an https address of one")
    parser.add_argument("--name", metavar="FILE", help="name for the file (default: its own)")
    parser.add_argument("--sha256", metavar="HEX", help="the file's SHA-256; nothing is added if it differs")


def run(options: argparse.Namespace) -> int:
    """Prints the models, one a line: name, kind and path, or what is wrong; or adds one and prints its path.

    Returns 0, or 1 where it could not be added; raises BadInput. What came of an address is kept at Ctrl-C: the same
    command goes on with it.
    """
    settings = read_settings(options)
    if options.act == "list":
        for file in find_models(settings).values():
            print(f"{file.name}\t{file.problem or describe(file).kind}\t{file.path}")
        return 0
    additions = Additions(settings)
    try:
        one = additions.add(options.source or "", options.name or "", options.sha256 or "")
    except RequestError as error:
        raise BadInput(str(error)) from None
    return _follow(additions, one)


def _follow(additions: Additions, one: Addition) -> int:
    with tqdm(unit="B", unit_scale=True, disable=None, leave=False, file=sys.stderr) as bar:
        while one.state == "running":
            told = additions.describe(one)
            bar.set_description(told["name"] or "Looking")
            bar.total = told["size_bytes"] or None
            bar.update(told["received_bytes"] - bar.n)
            time.sleep(LOOK_S)
    told = additions.describe(one)
    if told["problem"]:
        print(f"webui: {told['problem']}", file=sys.stderr)
        return 1
    checked = f", as {told['checked_by']} said" if told["checked_by"] else ""
    hashed = f" SHA-256 {told['sha256']}{checked}." if told["sha256"] else ""
    print(f"Added {told['about']}.{hashed}", file=sys.stderr)
    print(told["path"])
    return 0
