"""``webui serve | generate | presets | verify | info | bench | doctor | test``: flags in, exit status out.

Nothing heavy is imported before a command needs it. Status 0 done, 1 the work failed, 2 bad usage or bad input.
"""

import argparse
import dataclasses
import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from webui import __version__

REPOSITORY = Path(__file__).resolve().parents[1]
SETTINGS_FLAGS = (
    "model",
    "device",
    "dtype",
    "data_dir",
    "models_dir",
    "memory",
    "lora_cache",
    "compile",
    "cuda_graphs",
    "allow_host",
    "root_path",
    "format",
    "filename",
)
OWN_FLAGS = ("model", "loras", "init", "image", "mask", "outpaint")
CHECKS = (
    ("ruff", "check"),
    ("ruff", "format", "--check"),
    ("mypy",),
)
MAX_TEST_WORKERS = 4  # each has servers and browsers of its own


class BadInput(Exception):
    """Ends the command with status 2 and this one line."""


class Parser(argparse.ArgumentParser):
    """Bad usage is told in one line, like bad input; ``--help`` says the rest."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"webui: {message}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit status."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal or a pipe that has not every letter of a path
        sys.stdout.reconfigure(errors="backslashreplace")
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = make_parser()
    if not arguments or arguments[0].startswith("-") and arguments[0] not in ("-h", "--help", "--version"):
        arguments.insert(0, "serve")
    options, rest = parser.parse_known_args(arguments)
    if rest and options.command not in ("test", "bench"):
        parser.error(f"unknown argument {rest[0]!r} for {options.command}")
    options.rest = rest
    try:
        status: int = options.run(options)
        return status
    except BadInput as error:
        print(f"webui: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        from webui.app import leave

        print("webui: interrupted", file=sys.stderr)
        leave(130)


def make_parser() -> argparse.ArgumentParser:
    """The whole command line; request flags take their help from the request's fields."""
    parser = Parser(prog="webui", description="Darkroom: pictures from words, on your machine.")
    parser.add_argument("--version", action="version", version=f"Darkroom {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_serve(commands.add_parser("serve", help="open the page (the default)", allow_abbrev=False))
    _add_generate(commands.add_parser("generate", help="make pictures from the command line", allow_abbrev=False))
    presets = commands.add_parser("presets", help="list the presets for generate", allow_abbrev=False)
    presets.add_argument("--data-dir", type=Path, metavar="DIR", help="yours are in its folder presets (default: data)")
    presets.set_defaults(run=run_presets)
    _add_verify(commands.add_parser("verify", help="make pictures again and compare", allow_abbrev=False))
    _add_info(commands.add_parser("info", help="say how pictures were made", allow_abbrev=False))
    doctor = commands.add_parser("doctor", help="say what is here and what is wrong", allow_abbrev=False)
    _add_settings(doctor)
    doctor.set_defaults(run=run_doctor)
    bench = commands.add_parser("bench", help="measure this product on this machine", add_help=False)
    bench.set_defaults(run=run_bench)
    test = commands.add_parser("test", help="run lint, types and the test suite", add_help=False)
    test.set_defaults(run=run_tests)
    return parser


def _add_settings(parser: argparse.ArgumentParser) -> None:
    from webui.core.settings import DEVICES, DTYPES, MEMORY_PLANS

    parser.add_argument("--model", metavar="NAME", help="the model to draw with (default: demo)")
    parser.add_argument("--device", default="auto", choices=DEVICES)
    parser.add_argument("--dtype", default="auto", choices=DTYPES)
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="models, outputs and caches (default: data)")
    parser.add_argument("--models-dir", type=Path, action="append", metavar="DIR", help="another model folder tree")
    parser.add_argument(
        "--memory",
        default="auto",
        choices=MEMORY_PLANS,
        help="what rests off the device: nothing, all but the UNet, or every layer (default: by what is free)",
    )
    parser.add_argument(
        "--lora-cache",
        metavar="SIZE",
        help="memory for merged LoRA weights, as 2GB or 512MB (default: a quarter of what is free)",
    )


def _add_saving(parser: argparse.ArgumentParser) -> None:
    from webui.core.filenames import FILENAME, FILENAME_FIELDS
    from webui.workspace.outputs import SAVE_OPTIONS

    parser.add_argument("--format", choices=tuple(SAVE_OPTIONS), help="of the files (default: png)")
    fields = ", ".join(f"{{{name}}}" for name in FILENAME_FIELDS)
    parser.add_argument("--filename", metavar="PATTERN", help=f"their names, of {fields} (default: {FILENAME})")


def _add_verify(parser: argparse.ArgumentParser) -> None:
    _add_settings(parser)
    parser.add_argument("images", nargs="*", type=Path, metavar="IMAGE", help="a picture with its recipe inside")
    text = "check a preset's pinned files and the picture it is expected to give; more than one with more flags"
    parser.add_argument("--preset", action="append", default=[], dest="presets", metavar="NAME", help=text)
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    parser.set_defaults(run=run_verify)


def _add_info(parser: argparse.ArgumentParser) -> None:
    _add_settings(parser)
    parser.add_argument(
        "images", nargs="+", type=Path, metavar="IMAGE", help="a picture of this or another program; - for text"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    parser.set_defaults(run=run_info)


def _add_serve(parser: argparse.ArgumentParser) -> None:
    _add_settings(parser)
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
    faster = parser.add_mutually_exclusive_group()
    faster.add_argument(
        "--compile", action="store_true", help="compile the UNet in the background (needs a C++ compiler), then use it"
    )
    faster.add_argument(
        "--cuda-graphs", action="store_true", help="record the UNet once a size and replay it (needs an NVIDIA GPU)"
    )
    parser.add_argument("--no-auth", action="store_true", help="let in everybody who reaches it, without a login")
    _add_saving(parser)
    parser.set_defaults(run=run_serve)


def _add_generate(parser: argparse.ArgumentParser) -> None:
    from webui.core.checkpoint import Defaults
    from webui.core.groups.init import Init
    from webui.core.request import Request

    _add_settings(parser)
    fields = Init.model_fields | Request.model_fields
    parser.add_argument(
        "--preset", metavar="NAME", help="settings under a name (`presets` lists them); flags count more"
    )
    text = "fill in a {variable} of the preset; more than one with more flags"
    parser.add_argument("--var", action="append", default=[], metavar="NAME=TEXT", dest="variables", help=text)
    parser.add_argument("--init", type=Path, metavar="IMG", help="start from this picture (img2img)")
    parser.add_argument("--mask", type=Path, metavar="IMG", help="draw only where this is white (inpaint)")
    text = "apply a LoRA; more than one with more flags"
    parser.add_argument("--lora", action="append", metavar="NAME:WEIGHT", dest="loras", help=text)
    parser.add_argument("--outpaint", metavar="L,T,R,B", help="px to add on the left, top, right and bottom")
    for name in _switches(Init) + _switches(Request):
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, dest=name, action="store_true", default=None, help=fields[name].description)
    suited = {field.name for field in dataclasses.fields(Defaults)}
    for name in _text_flags(Request) + _text_flags(Init):
        field = fields[name]
        if name in suited:
            shown = "what suits the model"
        else:
            shown = "the model's own" if field.default is None else repr(field.default)
        text = f"{field.description or field.title} (default: {shown})".replace("%", "%%")
        flag, metavar = f"--{name.replace('_', '-')}", "TEXT" if isinstance(field.default, str) else "N"
        parser.add_argument(flag, dest=name, metavar=metavar, help=text)
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the pictures (default: data/outputs)")
    _add_saving(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object a line instead of a progress bar")
    parser.set_defaults(run=run_generate)


def _settings(options: argparse.Namespace, **more: Any) -> Any:
    from pydantic import ValidationError

    from webui.core.errors import explain
    from webui.core.settings import Settings

    given = ((name, getattr(options, name, None)) for name in SETTINGS_FLAGS)
    values = {name: value for name, value in given if value is not None}
    try:
        settings = Settings(**values, **more)
    except ValidationError as error:
        raise BadInput(explain(error)) from None
    folder = settings.data_dir
    nearest = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not nearest.is_dir():
        raise BadInput(f"--data-dir {str(folder)!r} cannot be used: {nearest} is no folder")
    return settings


def run_serve(options: argparse.Namespace) -> int:
    """Opens the page; ends with a signal."""
    from webui.core.errors import RequestError

    auth = None
    if options.auth is not None:
        user, colon, password = options.auth.partition(":")
        if not (user and colon and password):
            raise BadInput("--auth must be USER:PASS")
        auth = (user, password)
    if auth and options.no_auth:
        raise BadInput("--auth and --no-auth contradict each other: give one of them")
    settings = _settings(
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


def run_generate(options: argparse.Namespace) -> int:
    """Draws, saves, prints paths (or events with ``--json``)."""
    from webui.app import make_executor
    from webui.core.errors import RequestError
    from webui.core.request import Request
    from webui.workspace.preset import compare_pins

    logging.getLogger("webui").setLevel(logging.ERROR)  # warnings come with the events, and are printed from there
    settings = _settings(options, out=options.out)
    executor = make_executor(settings)
    try:
        values = _given(options, (*_text_flags(Request), *_switches(Request), "model", "loras"))
        request, preset = _request(options, settings, values | _read_init(options))
        job = executor.submit(request)
    except RequestError as error:
        executor.close()
        if options.json:
            print(json.dumps({"event": "failed", "message": str(error)}))
        raise BadInput(str(error)) from None
    if preset:
        catalog = executor.catalog()
        for line in preset.notices + compare_pins(preset.pins, job.request, catalog.models, catalog.loras):
            print(f"webui: preset {preset.name!r}: {line}", file=sys.stderr)
    try:
        events = (event for _, event in job.follow())
        status = _print_json(events) if options.json else _print_progress(events)
        return status or int(any(picture.path is None for picture in job.images))  # the files are the work here
    except KeyboardInterrupt:
        job.cancel()
        raise
    finally:
        executor.close()


def _request(options: argparse.Namespace, settings: Any, given: dict[str, Any]) -> tuple[Any, Any]:
    """The request of the flags, over the preset if there is one, and that preset; raises RequestError."""
    from webui.core.errors import RequestError
    from webui.core.request import Request
    from webui.workspace.presets import PresetShelf

    variables = {}
    for text in options.variables:
        name, equals, value = text.partition("=")
        if not equals:
            raise RequestError(f"--var must be NAME=TEXT, not {text[:60]!r}")
        variables[name] = value
    if options.preset is None:
        if variables:
            raise RequestError("--var needs --preset, whose variable it fills in")
        if "prompt" not in given:
            raise RequestError("--prompt is required, or a --preset that has one")
        return Request.parse(given), None
    preset = PresetShelf(settings.presets_dir).get(options.preset)
    if "prompt" not in given and "prompt" not in preset.fields:
        raise RequestError(f"--prompt is required: preset {preset.name!r} has none")
    return preset.request(variables, given), preset


def run_presets(options: argparse.Namespace) -> int:
    """Prints the presets, one a line: name, what it is good for, or what is wrong with it."""
    from webui.workspace.presets import PresetShelf

    for file in PresetShelf(_settings(options).presets_dir).files().values():
        print(f"{file.name}\t{file.preset.note if file.preset else f'{file.path.name} {file.problem}'}")
    return 0


def _text_flags(model: Any) -> list[str]:
    """The fields of Request or Init that are flags taking one value; the rest have flags of their own."""
    return [name for name in model.model_fields if name not in (*OWN_FLAGS, *_switches(model))]


def _switches(model: Any) -> list[str]:
    """The fields of Request or Init that are flags without a value."""
    return [name for name, field in model.model_fields.items() if field.annotation is bool]


def _given(options: argparse.Namespace, names: Sequence[str]) -> dict[str, Any]:
    return {name: getattr(options, name) for name in names if getattr(options, name) is not None}


def _read_init(options: argparse.Namespace) -> dict[str, Any]:
    """The start picture and all that goes with it, read from its files; raises RequestError naming the flag."""
    from webui.core.errors import RequestError
    from webui.core.groups.init import Init
    from webui.core.images import ImageError, open_image, to_rgb

    init = _given(options, (*_text_flags(Init), *_switches(Init), "outpaint"))
    if options.init is None:
        extra = [*init, *(["mask"] if options.mask else [])]
        if extra:
            raise RequestError(f"--{extra[0].replace('_', '-')} needs --init, the picture to start from")
        return {}
    for flag in ("init", "mask"):
        path = getattr(options, flag)
        if path is None:
            continue
        try:
            init["image" if flag == "init" else "mask"] = open_image(path)
        except ImageError as error:
            raise RequestError(f"--{flag} {str(path)!r} {error}") from None
    if "outpaint" in init:
        init["outpaint"] = tuple(init["outpaint"].split(","))
    if "mask" in init:  # a mask belongs to the picture as it is seen, turned by its EXIF orientation
        init["image"] = to_rgb(init["image"], init.get("background", "#ffffff"))
    return {"init": init}


def _print_json(events: Iterator[Any]) -> int:
    from webui.core.events import Failed, to_json

    status = 1
    for event in events:
        body = to_json(event)
        body.pop("preview", None)
        print(json.dumps(body, ensure_ascii=False), flush=True)
        status = _exit_status(event)
        if isinstance(event, Failed):
            print(f"webui: {event.message}", file=sys.stderr)
    return status


def _print_progress(events: Iterator[Any]) -> int:
    from tqdm import tqdm

    from webui.core.events import Cancelled, Done, Failed, Image, Loading, Step
    from webui.core.ledger import shares

    status = 1
    with tqdm(unit="step", disable=None, leave=False, file=sys.stderr) as bar:
        for event in events:
            match event:
                case Loading(what, _):
                    bar.set_description(what)
                case Step(index, total, _):
                    bar.set_description("Drawing")
                    bar.total = total
                    bar.update(index - bar.n)
                case Image(path=path) if path:
                    bar.clear()
                    print(path, flush=True)
                case Done(seconds, parts_s, warnings):
                    spent = ", ".join(f"{part} {spent_s:.2f} s" for part, spent_s in shares(parts_s))
                    lines = [f"webui: {text}" for text in warnings] + [f"Done in {seconds:.1f} s: {spent}"]
                    bar.clear()
                    print("\n".join(lines), file=sys.stderr)
                case Failed(message):
                    bar.clear()
                    print(f"webui: {message}", file=sys.stderr)
                case Cancelled():
                    bar.clear()
                    print("webui: stopped", file=sys.stderr)
            status = _exit_status(event)
    return status


def _exit_status(event: Any) -> int:
    from webui.core.events import Done, Failed

    if isinstance(event, Failed) and event.bad_input:
        return 2
    return 0 if isinstance(event, Done) else 1


def run_verify(options: argparse.Namespace) -> int:
    """Makes each picture again from its own recipe; prints identical, equal or different, and why."""
    if not options.images and not options.presets:
        raise BadInput("verify needs an IMAGE, or --preset NAME")
    logging.getLogger("webui").setLevel(logging.ERROR)
    from webui.verification import verify

    return verify(options.images, options.presets, _settings(options), options.json)


def run_info(options: argparse.Namespace) -> int:
    """Prints the settings inside each picture, and what of them could not be mapped."""
    logging.getLogger("webui").setLevel(logging.ERROR)
    from webui.inspection import inspect

    return inspect(options.images, _settings(options), options.json)


def run_doctor(options: argparse.Namespace) -> int:
    """Prints the state of the installation; status 1 where something is wrong."""
    from webui.doctor import examine

    return examine(_settings(options))


def run_bench(options: argparse.Namespace) -> int:
    """Hands over to the programs in ``benchmarks/``, which are not part of the installed package."""
    return subprocess.call([sys.executable, "-m", "benchmarks", *options.rest], cwd=REPOSITORY)


def run_tests(options: argparse.Namespace) -> int:
    """Lint, format, types, then the suite, spread over the cores; with arguments, only pytest with these."""
    for check in () if options.rest else CHECKS:
        print(f"$ {' '.join(check)}", flush=True)
        if status := subprocess.call([sys.executable, "-m", *check], cwd=REPOSITORY):
            return status
    command, more = [sys.executable, "-m", "pytest", *options.rest], {}
    if not options.rest:
        cores = os.cpu_count() or 1
        workers = min(cores + 1, MAX_TEST_WORKERS)  # a test of a page waits for it half of its time
        # A file's tests share what it sets up; in the files' own order the browser's, which take longest, come early.
        command += ["-n", str(workers), "--dist", "loadfile", "--no-loadscope-reorder"]
        more = {"OMP_NUM_THREADS": str(max(1, cores // workers))}
    return subprocess.call(command, cwd=REPOSITORY, env=os.environ | more)
