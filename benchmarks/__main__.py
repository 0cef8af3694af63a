"""``python launch.py bench [WORKLOAD...] [--rounds N] [--json FILE]``."""

import argparse
import importlib
import json
import sys
from pathlib import Path

from benchmarks.measure import Row, machine, print_table

WORKLOADS = ("coldstart", "txt2img", "images", "lora", "load")


def main() -> int:
    """Runs the named workloads (all of them without a name), prints a table each, writes JSON where asked."""
    parser = argparse.ArgumentParser(prog="webui bench", description="Measures this product on this machine.")
    parser.add_argument("workload", nargs="*", metavar="WORKLOAD", help=f"of {', '.join(WORKLOADS)} (default: all)")
    parser.add_argument("--rounds", type=int, default=7, help="measured rounds after one warm-up (default: 7)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    options = parser.parse_args()
    if unknown := [name for name in options.workload if name not in WORKLOADS]:
        parser.error(f"unknown workload {unknown[0]!r}; there are {', '.join(WORKLOADS)}")
    if options.rounds < 1:
        parser.error(f"--rounds must be at least 1, not {options.rounds}")
    results: dict[str, list[Row]] = {}
    print(machine())
    for name in options.workload or WORKLOADS:
        results[name] = importlib.import_module(f"benchmarks.{name}").run(options.rounds)
        print_table(name, results[name])
    if options.json:
        rows = {name: [row.as_dict() for row in table] for name, table in results.items()}
        options.json.write_text(json.dumps({"machine": machine(), "workloads": rows}, indent=1), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
