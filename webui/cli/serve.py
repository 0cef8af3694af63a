"""``webui serve``: opens the page."""

import argparse
import csv
import secrets
from pathlib import Path

from webui.cli import BadInput
from webui.cli.flags import add_offline, add_saving, add_settings, add_workers, read_settings
from webui.core.errors import RequestError
from webui.core.tls import check_certificate
from webui.process import importing

LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Who may reach the page, and where it is; beside the settings."""
    add_settings(parser)
    add_workers(parser)
    text = "draw up to N pictures of different jobs at once, where their steps can be shared (default: 1)"
    parser.add_argument("--together", type=int, metavar="N", help=text)
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on (default: this machine only); others who reach it are guests",
    )
    parser.add_argument("--port", type=int, help="default: 7860, or the next free one")
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser window")
    parser.add_argument("--share", action="store_true", help="make a public link for guests")
    text = "ask visitors for this name and password; each account is a visitor of its own; can be repeated"
    parser.add_argument("--auth", action="append", metavar="USER:PASS", help=text)
    text = "another host name of this server, for example behind a proxy; can be repeated"
    parser.add_argument("--allow-host", action="append", metavar="NAME", help=text)
    text = "path of the page behind a proxy, such as /darkroom; the proxy removes it before it asks here"
    parser.add_argument("--root-path", metavar="PATH", help=text)
    text = "certificate chain in PEM format, to serve https; needs --tls-key"
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help=text)
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="private key of the certificate, in PEM format")
    faster = parser.add_mutually_exclusive_group()
    faster.add_argument(
        "--compile", action="store_true", help="compile the UNet in the background (needs a C++ compiler), then use it"
    )
    faster.add_argument(
        "--cuda-graphs", action="store_true", help="record the UNet once per size and replay it (needs an NVIDIA GPU)"
    )
    parser.add_argument("--no-auth", action="store_true", help="let everybody in without a login")
    text = "treat everybody without the owner's key as a guest, even on this machine"
    parser.add_argument("--guests", action="store_true", help=text)
    text = "key that makes its sender the owner when there are guests (default: one is made and kept)"
    parser.add_argument("--owner-key", metavar="KEY", help=text)
    for flag, what in (
        ("models", "models, VAEs, upscalers, finders and controls"),
        ("loras", "LoRAs and embeddings"),
        ("presets", "presets"),
    ):
        text = f"{what} that guests may use, separated by commas (default: all)"
        parser.add_argument(f"--guest-{flag}", type=_read_names, metavar="A,B", help=text)
    add_offline(parser)
    add_saving(parser)


def run(options: argparse.Namespace) -> int:
    """Serves until a signal, which ends the process; raises BadInput."""
    auth = tuple(map(_read_auth, options.auth or ()))
    if auth and options.no_auth:
        raise BadInput("--auth and --no-auth contradict each other: give one of them")
    names = [name for name, _ in auth]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise BadInput(f"--auth has the name {twice!r} twice")
    _check_tls(options)
    settings = read_settings(
        options,
        host=options.host,
        port=options.port,
        open_browser=not options.no_browser,
        share=options.share,
        guests=options.guests,
        owner_key=options.owner_key,
        guest_models=options.guest_models,
        guest_loras=options.guest_loras,
        guest_presets=options.guest_presets,
        auth=auth,
    )
    if settings.is_reached and not (auth or options.no_auth):
        settings = settings.model_copy(update={"passphrase": _make_passphrase()})
    with importing():
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


def _read_auth(text: str) -> tuple[str, str]:
    user, colon, password = text.partition(":")
    if not (user and colon and password):
        raise BadInput("--auth must be USER:PASS")
    return user, password


def _read_names(text: str) -> tuple[str, ...]:
    """Names with commas between them, those with a comma in them in quotation marks; an empty text is none."""
    return tuple(name.strip() for row in csv.reader([text], skipinitialspace=True) for name in row if name.strip())


def _make_passphrase() -> str:
    """59 bits of chance, in letters and digits that nobody takes for others."""
    return "-".join("".join(secrets.choice(LETTERS) for _ in range(4)) for _ in range(3))
