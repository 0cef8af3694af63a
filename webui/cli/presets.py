"""``webui presets``: says which presets there are."""

import argparse
from pathlib import Path

from webui.cli.flags import read_settings
from webui.workspace.presets import PresetStore


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Where the presets are."""
    parser.add_argument(
        "--data-dir", type=Path, metavar="DIR", help="your presets are in its folder presets (default: data)"
    )


def run(options: argparse.Namespace) -> int:
    """Prints the presets, one a line: name, what it is good for, or what is wrong with it."""
    for file in PresetStore(read_settings(options).presets_dir).files().values():
        print(f"{file.name}\t{file.preset.note if file.preset else f'{file.path.name} {file.problem}'}")
    return 0
