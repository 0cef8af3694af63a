"""The command line: flags in, exit status out. Status 0 done, 1 the work failed, 2 bad usage or bad input.

Each command is a module with ``add_flags`` and ``run``, which is imported when the command is asked for.
"""

import argparse
import importlib
import io
import os
import sys
import threading
from collections.abc import Sequence
from typing import NoReturn

from webui import __version__
from webui.process import exit_process, importing

COMMANDS = {
    "serve": "open the page (the default)",
    "generate": "make pictures from the command line",
    "grid": "make each combination of some values, and a sheet of all",
    "upscale": "enlarge pictures",
    "models": "list the models, or add one from a file or an address",
    "presets": "list the presets for generate",
    "verify": "make pictures again and compare",
    "info": "say how pictures were made",
    "doctor": "say what is here and what is wrong",
    "bench": "measure this product on this machine",
    "test": "run lint, types and the test suite",
}
PASS_THROUGH = ("bench", "test")  # what these are given is for another program


class BadInput(Exception):
    """Ends the command with status 2 and this one line."""


class Parser(argparse.ArgumentParser):
    """Bad usage is told in one line, like bad input; ``--help`` says the rest."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"webui: {message}\n")


def run() -> NoReturn:
    """The process of the ``webui`` command."""
    status = main()
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads that are at work, as Python does
    exit_process(status)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit status."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal or a pipe that has not every letter of a path
        sys.stdout.reconfigure(errors="backslashreplace")
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0].startswith("-") and arguments[0] not in ("-h", "--help", "--version"):
        arguments.insert(0, "serve")
    with importing():
        parser = make_parser(arguments[0])
    options, remaining = parser.parse_known_args(arguments)
    if remaining and options.command not in PASS_THROUGH:
        parser.error(f"unknown argument {remaining[0]!r} for {options.command}")
    options.remaining = remaining
    try:
        status: int = options.run(options)
        sys.stdout.flush()
        return status
    except BadInput as error:
        print(f"webui: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever read has gone, as behind `| head`; what is left has nowhere to go
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("webui: interrupted", file=sys.stderr)
        exit_process(130)


def make_parser(command: str) -> argparse.ArgumentParser:
    """Knows all commands, and the flags of this one; ``run`` of what it parses takes the options."""
    parser = Parser(prog="webui", description="Darkroom: pictures from words, on your machine.")
    parser.add_argument("--version", action="version", version=f"Darkroom {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in COMMANDS.items():
        flags = commands.add_parser(name, help=text, add_help=name not in PASS_THROUGH, allow_abbrev=False)
        if name == command:
            module = importlib.import_module(f"webui.cli.{name}")
            module.add_flags(flags)
            flags.set_defaults(run=module.run)
    return parser
