"""``webui doctor``: says what is here and what is wrong."""

import argparse

from webui.cli.flags import add_settings, add_workers, read_settings


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The settings to examine."""
    add_settings(parser)
    add_workers(parser)


def run(options: argparse.Namespace) -> int:
    """Prints the state of the installation; status 1 where something is wrong."""
    from webui.doctor import examine

    settings = read_settings(options)

    def name_workers() -> list[str]:
        from webui.app import name_workers

        return name_workers(settings)

    return examine(settings, name_workers if settings.workers > 1 or settings.devices or settings.ray else list)
