"""``webui serve``: opens the page."""

import argparse
from pathlib import Path

from webui.cli import BadInput
from webui.cli.flags import add_saving, add_settings, read_settings
from webui.core.errors import RequestError
from webui.core.tls import check_certificate


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Who may reach the page, and where it is; beside the settings."""
    add_settings(parser)
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on (default: this machine only); one that others reach asks for --auth or --no-auth",
    )
    parser.add_argument("--port", type=int, help="default: 7860, or the next free one")
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser window")
    parser.add_argument("--share", action="store_true", help="make a public link; asks for --auth or --no-auth")
    parser.add_argument("--auth", metavar="USER:PASS", help="ask visitors for this name and password")
    text = "another name that this server is asked for, as by a proxy; more than one with more flags"
    parser.add_argument("--allow-host", action="append", metavar="NAME", help=text)
    text = "where a proxy has the page, as /darkroom; the proxy takes it off before it asks here"
    parser.add_argument("--root-path", metavar="PATH", help=text)
    text = "certificate in PEM form, with those between it and its authority, to be asked by https; needs --tls-key"
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help=text)
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="the certificate's private key, in PEM form")
    faster = parser.add_mutually_exclusive_group()
    faster.add_argument(
        "--compile", action="store_true", help="compile the UNet in the background (needs a C++ compiler), then use it"
    )
    faster.add_argument(
        "--cuda-graphs", action="store_true", help="record the UNet once a size and replay it (needs an NVIDIA GPU)"
    )
    parser.add_argument("--no-auth", action="store_true", help="let in everybody who reaches it, without a login")
    add_saving(parser)


def run(options: argparse.Namespace) -> int:
    """Serves until a signal, which ends the process; raises BadInput."""
    auth = _read_auth(options.auth)
    if auth and options.no_auth:
        raise BadInput("--auth and --no-auth contradict each other: give one of them")
    _check_tls(options)
    settings = read_settings(
        options,
        host=options.host,
        port=options.port,
        open_browser=not options.no_browser,
        share=options.share,
        auth=auth,
    )
    if settings.is_open and not options.no_auth:
        flag = "--share" if options.share else f"--host {options.host}"
        raise BadInput(f"{flag} opens this machine to others: add --auth USER:PASS, or --no-auth to let anybody in")
    from webui.app import serve

    try:
        serve(settings)
    except RequestError as error:
        raise BadInput(str(error)) from None


def _check_tls(options: argparse.Namespace) -> None:
    cert, key = options.tls_cert, options.tls_key
    if not (cert or key):
        return
    if not (cert and key):
        raise BadInput("--tls-cert and --tls-key belong together: give both")
    if options.share:
        raise BadInput("--share has a certificate of its own, and its tunnel asks here without: leave out --tls-cert")
    try:
        check_certificate(cert, key)
    except RequestError as error:
        raise BadInput(str(error)) from None


def _read_auth(text: str | None) -> tuple[str, str] | None:
    if text is None:
        return None
    user, colon, password = text.partition(":")
    if not (user and colon and password):
        raise BadInput("--auth must be USER:PASS")
    return user, password
