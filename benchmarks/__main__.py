"""``python launch.py bench [WORKLOAD...]``."""

import argparse
import datetime
import importlib
import json
import sys
from dataclasses import fields
from pathlib import Path

from benchmarks.measure import Options, Row, machine, print_table

WORKLOADS = (
    "coldstart",
    "page",
    "txt2img",
    "img2img",
    "inpaint",
    "previews",
    "operators",
    "approximate",
    "lora",
    "images",
    "queue",
    "memory",
    "load",
)


ON_CUDA = ("txt2img", "img2img", "inpaint", "previews")
"""Workloads that ``--device cuda`` measures; the others are about a CPU."""


def main() -> int:
    """Runs the named workloads (all of them without a name), prints a table each, writes JSON where asked."""
    options = _parse()
    chosen = Options(**{field.name: getattr(options, field.name) for field in fields(Options)})
    results: dict[str, list[Row]] = {}
    print(machine())
    for name in options.workload or WORKLOADS:
        results[name] = importlib.import_module(f"benchmarks.{name}").run(chosen)
        print_table(name, results[name])
        if options.json:  # after each, since a run takes long
            tables = {name: [row.as_dict() for row in table] for name, table in results.items()}
            about = {"machine": machine(), "date": datetime.date.today().isoformat(), "size": chosen.size}
            options.json.write_text(json.dumps({**about, "workloads": tables}, indent=1), "utf-8")
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="webui bench", description="Measures this product on this machine.")
    parser.add_argument("workload", nargs="*", metavar="WORKLOAD", help=f"of {', '.join(WORKLOADS)} (default: all)")
    parser.add_argument("--rounds", type=int, default=7, help="measured rounds after one warm-up (default: 7)")
    parser.add_argument(
        "--size", choices=("demo", "sd15"), default="demo", help="the demo model, or SD 1.5's size with random weights"
    )
    parser.add_argument("--steps", type=int, default=0, help="instead of the workload's own (4 with --size sd15)")
    parser.add_argument("--threads", type=int, default=Options().threads, help="for every program")
    parser.add_argument("--peers", action="store_true", help="other programs too, in environments made for them")
    parser.add_argument("--comfyui", type=Path, metavar="DIR", help="a checkout of ComfyUI to measure too")
    parser.add_argument("--comfyui-python", type=Path, metavar="FILE", help="the interpreter of its environment")
    parser.add_argument("--sdapi", default="", metavar="URL", help="a running A1111 or SD.Next (--api) to measure too")
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help=f"what draws in {', '.join(ON_CUDA)} (default: cpu)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    options = parser.parse_args()
    if unknown := [name for name in options.workload if name not in WORKLOADS]:
        parser.error(f"unknown workload {unknown[0]!r}; there are {', '.join(WORKLOADS)}")
    if options.device == "cuda":
        options.workload = options.workload or list(ON_CUDA)
        if others := [name for name in options.workload if name not in ON_CUDA]:
            parser.error(f"{others[0]} is measured on the CPU alone; --device cuda takes {', '.join(ON_CUDA)}")
        if options.peers or options.comfyui or options.sdapi:
            parser.error("other programs are measured on the CPU alone: leave out --device cuda")
    for name in ("rounds", "threads"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1, not {getattr(options, name)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
