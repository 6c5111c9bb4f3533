#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Draws what bench/move measured, from its CSV files alone: every figure that the runs have the data for.

    bench/plot.py RESULTS... [-o DIR]       RESULTS: folders that bench/move made; DIR: default the first of them

throughput-*.svg     what a client outside got, around the move, mode by mode
write-share.svg      blackout and total time against how fast a writer writes
memory.svg           blackout and total time against the guest's memory
"""

import argparse
import csv
import statistics
import sys
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from lab import install  # noqa: E402
from lab.errors import LabError  # noqa: E402

Row = dict[str, str]
SMOOTH = 10  # bins of 5 ms: a client asks about once a millisecond


def read(folder: Path) -> list[Row]:
    with open(folder / "raw.csv", newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row["verdict"] == "moved"]


def scenario(row: Row) -> tuple[str, str, str]:
    return row["memory_mib"], row["workload"], row["link"]


def medians(rows: list[Row], x_of, key: str) -> dict[str, list[tuple[float, float]]]:
    """By mode: points (x, median of `key`)."""
    found: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        x = x_of(row)
        if x is not None and row[key]:
            found[row["mode"]][x].append(float(row[key]))
    return {mode: sorted((x, statistics.median(ys)) for x, ys in points.items()) for mode, points in found.items()}


def draw_lines(pyplot, rows: list[Row], x_of, label: str, path: Path) -> bool:
    """Blackout and total time against x, one line a mode; nothing where no mode has two points."""
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4))
    drawn = False
    for axis, (key, title) in zip(axes, (("blackout_ms", "blackout (ms)"), ("total_ms", "total time (ms)"))):
        for mode, points in medians(rows, x_of, key).items():
            if len(points) > 1:
                axis.plot(*zip(*points), marker="o", label=mode)
                drawn = True
        axis.set(xlabel=label, ylabel=title)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    if drawn:
        axes[0].legend()
        figure.tight_layout()
        figure.savefig(path)
    pyplot.close(figure)
    return drawn


def writer_rate(row: Row) -> float | None:
    name, *numbers = row["workload"].split(":")
    return float(numbers[1]) if name == "writer" else None


def draw_throughput(pyplot, folder: Path, out: Path) -> list[Path]:
    """One figure a scenario: the last run of every mode that left a trace."""
    traces: dict[str, dict[str, Path]] = defaultdict(dict)
    for path in sorted(folder.glob("*/throughput.csv")):
        _, memory, rest = path.parent.name.split("-", 2)
        for link in ("1gbit", "200mbit"):
            workload, found, mode = rest.partition(f"-{link}-")
            if found:
                traces[f"{memory}-{workload}-{link}"][mode] = path
    written = []
    for name, modes in traces.items():
        figure, axis = pyplot.subplots(figsize=(10, 4))
        for mode, path in modes.items():
            with open(path, newline="", encoding="utf-8") as file:
                points = [(float(row["ms_after_command"]), int(row["answers"])) for row in csv.DictReader(file)]
            starts = range(0, len(points) - SMOOTH, SMOOTH)
            rates = [sum(count for _, count in points[at : at + SMOOTH]) * 200 / SMOOTH for at in starts]
            axis.plot([points[at][0] / 1000 for at in starts], rates, label=mode, linewidth=1)
        axis.set(xlabel="seconds after the command", ylabel="answers a second", title=name.replace("-", ", "))
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
        axis.legend()
        figure.tight_layout()
        written.append(out / f"throughput-{name}.svg")
        figure.savefig(written[-1])
        pyplot.close(figure)
    return written


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="+")
    parser.add_argument("-o", "--out", type=Path)
    given = parser.parse_args()
    out = given.out or given.results[0]
    try:
        install.install(print, "python3-matplotlib")
        rows = [row for folder in given.results for row in read(folder)]
    except (LabError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    import matplotlib  # noqa: E402, PLC0415: installed just now

    matplotlib.use("svg")
    from matplotlib import pyplot  # noqa: PLC0415

    out.mkdir(parents=True, exist_ok=True)
    written = [path for folder in given.results for path in draw_throughput(pyplot, folder, out)]
    workloads = defaultdict(list)
    for row in rows:
        workloads[row["workload"], row["link"]].append(row)
    for (workload, link), mine in workloads.items():
        path = out / f"memory-{workload.replace(':', '-')}-{link}.svg"
        if draw_lines(pyplot, mine, lambda row: float(row["memory_mib"]), "memory (MiB)", path):
            written.append(path)
    if draw_lines(pyplot, rows, writer_rate, "pages written (MB/s)", out / "write-share.svg"):
        written.append(out / "write-share.svg")
    for path in written:
        print(path)
    return 0 if written else 1


if __name__ == "__main__":
    sys.exit(main())
