"""``python launch.py bench [WORKLOAD...]``."""

import argparse
import datetime
import importlib
import json
import os
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import SIZES, Conditions, Options, describe, machine, print_table

EVERY_SIZE = tuple(SIZES)
TWO_SIZES = ("demo", "sd15")
WORKLOADS = {
    "coldstart": TWO_SIZES,
    "page": ("demo",),
    "flows": ("demo",),
    "completion": ("demo",),
    "txt2img": EVERY_SIZE,
    "img2img": EVERY_SIZE,
    "inpaint": EVERY_SIZE,
    "previews": EVERY_SIZE,
    "operators": TWO_SIZES,
    "approximate": TWO_SIZES,
    "lora": TWO_SIZES,
    "lora_steps": EVERY_SIZE,
    "images": TWO_SIZES,
    "queue": TWO_SIZES,
    "together": TWO_SIZES,
    "memory": TWO_SIZES,
    "large": ("demo",),
    "upscale": ("demo",),
    "regions": ("demo",),
    "grid": TWO_SIZES,
    "loading": ("sd15",),
    "quantised": ("sd15",),
    "control": ("demo",),
    "anima": ("demo",),
    "families": ("demo",),
    "workers": ("demo",),
    "load": ("demo",),
    "held": ("demo",),
    "history": ("demo",),
}
"""The sizes at which each can be measured, its own first."""

IN_ANOTHER = ("lora_steps", "large")
"""Parts of other workloads, and what takes long: measured only where they are named."""

ON_CUDA = ("txt2img", "img2img", "inpaint", "previews", "lora", "lora_steps", "together")
"""Workloads that ``--device cuda`` measures; the others are about a CPU."""

MID_PICTURE, MIN_STEPS = ("lora", "lora_steps"), 3
"""Workloads that change weights in mid-picture, and in how many steps: one of them has to be without a change."""

AGAINST = ("txt2img", "img2img", "inpaint", "previews", "lora", "coldstart")
"""Workloads that ``--against`` measures: whole pictures, and starts."""


def main() -> int:
    """Runs the named workloads (without a name all), prints a table each, writes JSON where asked.

    The status is 1 where a promise that they judge does not hold.
    """
    options = _parse()
    chosen = Options(**{field.name: getattr(options, field.name) for field in fields(Options)})
    torch.set_num_threads(chosen.threads)
    os.environ["OMP_NUM_THREADS"] = str(chosen.threads)  # for the processes that are started
    conditions, sizes, results, status = Conditions(), dict[str, str](), dict[str, Any](), 0
    print(machine())
    for name in options.workload:
        sizes[name] = options.size or WORKLOADS[name][0]
        rows = importlib.import_module(f"benchmarks.{name}").run(replace(chosen, size=sizes[name]))
        print_table(f"{name}, {SIZES[sizes[name]]}", rows)
        results[name] = [row.as_dict() for row in rows]
        status |= any(row.holds is False for row in rows)
        if options.json:  # after each, since a run takes long
            about: dict[str, Any] = {"machine": machine(), "date": datetime.date.today().isoformat(), "sizes": sizes}
            about |= {"side": chosen.side} if chosen.side else {}
            found = {**about, "conditions": conditions.as_dict(), "workloads": results}
            options.json.write_text(json.dumps(found, indent=1, allow_nan=False), "utf-8")
    print(f"\n{describe(conditions.as_dict())}".rstrip())
    return status


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="webui bench", description="Measures this product on this machine.")
    parser.add_argument("workload", nargs="*", metavar="WORKLOAD", help=f"of {', '.join(WORKLOADS)} (default: all)")
    parser.add_argument("--rounds", type=int, default=7, help="measured rounds after one warm-up (default: 7)")
    parser.add_argument(
        "--size",
        choices=EVERY_SIZE,
        help=f"the demo model (default), or SD 1.5's or SDXL's size with random weights; {_only('demo')} demo alone,"
        f" {_only('sd15')} sd15 alone",
    )
    parser.add_argument("--steps", type=int, default=0, help="instead of the workload's own (4 with other sizes)")
    text = "of pictures, instead of 128, or 256 and 512 with --size sd15, or 1024 with sdxl"
    parser.add_argument("--side", type=int, default=0, metavar="PX", help=text)
    parser.add_argument("--visitors", type=int, default=Options().visitors, help="of load (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=Options().minutes, help="of load (default: %(default)g)")
    parser.add_argument("--threads", type=int, default=Options().threads, help="for every program")
    parser.add_argument("--peers", action="store_true", help="other programs too, in environments made for them")
    parser.add_argument("--comfyui", type=Path, metavar="DIR", help="a checkout of ComfyUI to measure too")
    parser.add_argument("--comfyui-python", type=Path, metavar="FILE", help="the interpreter of its environment")
    parser.add_argument("--sdapi", default="", metavar="URL", help="a running A1111 or SD.Next (--api) to measure too")
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help=f"what draws in {', '.join(ON_CUDA)} (default: cpu)"
    )
    text = "with --device cuda compiled programs too, ours and diffusers, which take minutes to make"
    parser.add_argument("--compiled", action="store_true", help=text)
    text = f"another checkout of this product to compare with, instead of other programs: {', '.join(AGAINST)}"
    parser.add_argument("--against", type=Path, metavar="DIR", help=text)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    options = parser.parse_args()
    if unknown := [name for name in options.workload if name not in WORKLOADS]:
        parser.error(f"unknown workload {unknown[0]!r}; there are {', '.join(WORKLOADS)}")
    if others := [name for name in options.workload if options.size not in (None, *WORKLOADS[name])]:
        parser.error(f"{others[0]} is measured at --size {' and '.join(WORKLOADS[others[0]])} alone")
    if not options.workload:
        those = ON_CUDA if options.device == "cuda" else AGAINST if options.against else WORKLOADS
        everything = [name for name in those if name not in IN_ANOTHER]
        options.workload = [name for name in everything if options.size in (None, *WORKLOADS[name])]
        if left_out := [name for name in everything if name not in options.workload]:
            print(f"not measured at --size {options.size}: {', '.join(left_out)}")
    if options.compiled and options.device != "cuda":
        parser.error("--compiled is for --device cuda; on the CPU the demo model is measured compiled too")
    if options.device == "cuda":
        if others := [name for name in options.workload if name not in ON_CUDA]:
            parser.error(f"{others[0]} is measured on the CPU alone; --device cuda takes {', '.join(ON_CUDA)}")
        if options.peers or options.comfyui or options.sdapi:
            parser.error("other programs are measured on the CPU alone: leave out --device cuda")
    if options.against:
        _check_against(parser, options)
    elif 0 < options.steps < MIN_STEPS and (changing := next(filter(options.workload.__contains__, MID_PICTURE), "")):
        parser.error(f"{changing} changes weights in mid-picture: --steps must be at least {MIN_STEPS}")
    for name, least in (("rounds", 1), ("threads", 1), ("visitors", 4), ("minutes", 0.1)):
        if not getattr(options, name) >= least:
            parser.error(f"--{name} must be at least {least}, not {getattr(options, name)}")
    return options


def _check_against(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    options.against = options.against.resolve()
    if not (options.against / "benchmarks/peers/darkroom_worker.py").is_file():
        parser.error(f"--against {options.against} is no checkout of this product")
    if others := [name for name in options.workload if name not in AGAINST]:
        parser.error(f"{others[0]} is not measured --against another checkout; there are {', '.join(AGAINST)}")
    if "lora" in options.workload and options.size == "sd15":
        parser.error("lora is measured --against another checkout at --size demo alone")
    if options.peers or options.comfyui or options.sdapi:
        parser.error("other programs are not measured --against another checkout: leave one of them out")


def _only(size: str) -> str:
    return ", ".join(name for name, sizes in WORKLOADS.items() if sizes == (size,))


if __name__ == "__main__":
    sys.exit(main())
