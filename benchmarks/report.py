"""``python -m benchmarks.report FILE...``: figures that ``bench --json`` wrote, as RESULTS.md and bar charts.

Needs matplotlib (``pip install matplotlib``), which nothing else here does.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")
from matplotlib import pyplot

HERE = Path(__file__).resolve().parent
OURS, THEIRS, INK = "#c2410c", "#94a3b8", "#1e293b"
MAX_BARS = 14

INTRODUCTION = """\
Written by `python -m benchmarks.report` from what `python launch.py bench --json` measured; losses are in it. A ratio is the
median of the round-by-round ratios to the row it names. Programs alternate within a run, each a process of its own, with the same
weights, prompt, steps, sampler, size and, where they take it, the same noise. The machine's floor is the time that a picture's
operations take at the speed of one large matrix product and one convolution, measured in the same run.
"""  # noqa: E501

Figures = Mapping[str, Any]


def main() -> int:
    """Reads the files; their sections come first in RESULTS.md, in the place of those with the same heading."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    runs = [json.loads(path.read_text("utf-8")) for path in parser.parse_args().files]
    charts, page = HERE / "results", HERE / "RESULTS.md"
    charts.mkdir(exist_ok=True)
    new = {_heading(run): "\n".join(_section(run, charts)) for run in runs}
    sections = re.split(r"^(?=## )", page.read_text("utf-8"), flags=re.MULTILINE)[1:] if page.exists() else []
    kept = [section.rstrip("\n") for section in sections if section.partition("\n")[0] not in new]
    page.write_text("\n\n".join(["# Results", INTRODUCTION.rstrip(), *new.values(), *kept]) + "\n", "utf-8")
    return 0


def _heading(run: Figures) -> str:
    return f"## {run['date']}, {'demo model' if run['size'] == 'demo' else 'SD 1.5 size, random weights'}"


def _section(run: Figures, charts: Path) -> Iterator[str]:
    yield f"{_heading(run)}\n\n{run['machine']}"
    for name, rows in run["workloads"].items():
        yield f"\n### {name}\n"
        if chart := _chart(f"{run['date']}-{name}-{run['size']}", rows, charts):
            yield f"![{name}: bars of the medians below]({chart.relative_to(HERE).as_posix()})\n"
        yield "| | median | p10 to p90 | n | ratio | |\n|---|---|---|---|---|---|"
        yield from map(_line, rows)


def _line(row: Figures) -> str:
    if not row["n"]:
        return f"| {row['name']} | | | | | {row['note']} |"
    ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f} of {row['against'].rpartition(': ')[2]}"
    spread = f"{_short(row['p10'])} to {_short(row['p90'])}"
    note = row.get("note", "").strip("()")
    return f"| {row['name']} | {_short(row['median'])} {row['unit']} | {spread} | {row['n']} | {ratio} | {note} |"


def _short(number: float) -> str:
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"


def _chart(name: str, rows: Iterable[Figures], folder: Path) -> Path | None:
    """Bars of what programs took, in the order of the table; None where there is nothing to compare."""
    bars = [row for row in rows if row["n"] and row["unit"] in ("ms", "s") and ", to " not in row["name"]]
    bars = [row for row in bars if "on to off" not in row["name"]][:MAX_BARS]
    if len(bars) < 2:
        return None
    figure, axes = pyplot.subplots(figsize=(9, 0.6 + 0.36 * len(bars)), layout="constrained")
    names = [row["name"] for row in bars]
    medians = [row["median"] for row in bars]
    spread = [[row["median"] - row["p10"] for row in bars], [row["p90"] - row["median"] for row in bars]]
    ours = ("darkroom", "generate", "page answers", "first p")
    colours = [OURS if any(word in label for word in ours) else THEIRS for label in names]
    axes.barh(names, medians, xerr=spread, color=colours, error_kw={"ecolor": INK, "capsize": 2, "lw": 1})
    axes.invert_yaxis()
    axes.set_xlabel(f"{bars[0]['unit']}, median with p10 to p90; shorter is better")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlim(0, 1.15 * max(row["median"] for row in bars))
    path = folder / f"{name}.png"
    figure.savefig(path, dpi=90)
    pyplot.close(figure)
    return path


if __name__ == "__main__":
    sys.exit(main())
