"""``python -m benchmarks.report FILE...``: figures that ``bench --json`` wrote, as RESULTS.md and bar charts.

A section is of one day, size and machine. What is measured anew takes the place of its workload there; all else stays.
Needs matplotlib (``pip install matplotlib``), which nothing else here does.
"""

import argparse
import json
import re
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import SIZES, describe

HERE = Path(__file__).resolve().parent
FOLDERS = re.compile(r"(?<![\w.:/])/(?:[\w.@+-]+/)+")
"""Of a file on the machine that measured, which are nobody else's business; not of an address or a fraction."""
OURS, THEIRS, INK = "#c2410c", "#94a3b8", "#1e293b"
MAX_BARS = 14

INTRODUCTION = """\
Written by `python -m benchmarks.report` from what `python launch.py bench --json` measured; losses are in it. A ratio is the
median of the round-by-round ratios to the row it names. Programs alternate within a run, each a process of its own, with the same
weights, prompt, steps, sampler, size and, where they take it, the same noise. The machine's floor is the time that a picture's
operations take at the speed of one large matrix product and one convolution, measured in the same run.
"""  # noqa: E501

Figures = Mapping[str, Any]
Sections = dict[str, dict[str, str]]
"""By heading and machine, a section's workloads by name, each with all that stands below its own heading."""


def main() -> int:
    """Reads the files; the sections that they change come first in RESULTS.md."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    runs = [json.loads(path.read_text("utf-8")) for path in parser.parse_args().files]
    page = HERE / "RESULTS.md"
    known = read_sections(page.read_text("utf-8")) if page.exists() else {}
    page.write_text(write_sections(merge(known, runs, HERE)), "utf-8")
    return 0


def read_sections(page: str) -> Sections:
    """What ``write_sections`` wrote; the introduction is left out."""
    sections: Sections = {}
    for section in re.split(r"^## ", page, flags=re.MULTILINE)[1:]:
        head, *workloads = re.split(r"^### ", section, flags=re.MULTILINE)
        parts = (workload.partition("\n") for workload in workloads)
        sections[head.strip()] = {name: text.strip("\n") for name, _, text in parts}
    return sections


def write_sections(sections: Sections) -> str:
    """The whole page."""
    parts = ["# Results", INTRODUCTION.rstrip()]
    for head, workloads in sections.items():
        parts.append(f"## {head}")
        parts += [f"### {name}\n\n{text}" for name, text in workloads.items()]
    return "\n\n".join(parts) + "\n"


def merge(known: Sections, runs: Iterable[Figures], folder: Path) -> Sections:
    """With the runs' workloads, in the order of the runs, then what is left; charts go to ``folder / "results"``."""
    changed: Sections = {}
    for run in runs:
        for name in run["workloads"]:
            head = f"{run['date']}, {SIZES[run['sizes'][name]]}\n\n{run['machine']}"
            section = changed.setdefault(head, dict(known.get(head, {})))
            title = f"{name}, {run['side']} px alone" if "side" in run else name
            section[title] = "\n".join(_workload(run, name, title, folder))
    return changed | {head: section for head, section in known.items() if head not in changed}


def _workload(run: Figures, name: str, title: str, folder: Path) -> Iterator[str]:
    rows, size = run["workloads"][name], run["sizes"][name]
    machine, file = zlib.crc32(run["machine"].encode()), re.sub(r"\W+", "-", title)
    if chart := _chart(f"{run['date']}-{file}-{size}-{machine:08x}", rows, folder / "results"):
        yield f"![{title}: bars of the medians below]({chart.relative_to(folder).as_posix()})\n"
    yield "| | median | p10 to p90 | n | ratio | |\n|---|---|---|---|---|---|"
    yield from map(_line, rows)
    if conditions := describe(run["conditions"]):
        yield f"\n{conditions[0].upper()}{conditions[1:]}."


def _line(row: Figures) -> str:
    if not row["n"]:
        return f"| {row['name']} | | | | | {FOLDERS.sub('', row['note'])} |"
    ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f} of {row['against'].rpartition(': ')[2]}"
    spread = f"{_short(row['p10'])} to {_short(row['p90'])}"
    note = row.get("note", "").strip("()")
    return f"| {row['name']} | {_short(row['median'])} {row['unit']} | {spread} | {row['n']} | {ratio} | {note} |"


def _short(number: float) -> str:
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"


def _chart(name: str, rows: Sequence[Figures], folder: Path) -> Path | None:
    """Bars of what programs took, in the order of the table; None where nothing is compared, as among promises."""
    bars = [row for row in rows if row["n"] and row["unit"] in ("ms", "s") and ", to " not in row["name"]]
    bars = [row for row in bars if "on to off" not in row["name"]][:MAX_BARS]
    if len(bars) < 2 or any("holds" in row for row in rows):
        return None
    import matplotlib  # only here, so that all else goes without it

    matplotlib.use("agg")
    from matplotlib import pyplot

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
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.png"
    figure.savefig(path, dpi=90)
    pyplot.close(figure)
    return path


if __name__ == "__main__":
    sys.exit(main())
