#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Draws what bench/move measured, from its CSV files alone: every figure that the runs have the data for.

    bench/plot.py RESULTS... [-o DIR]       RESULTS: folders that bench/move made; DIR: default the first of them

throughput-*.svg     what a client outside got, around the move, mode by mode
write-share-*.svg    blackout and total time against how fast a writer writes
memory-*.svg         blackout and total time against the guest's memory
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
SMOOTH = 10  # bins of 5 ms, in which a client asks once to five times


def read(folder: Path) -> list[Row]:
    with open(folder / "raw.csv", newline="", encoding="utf-8") as file:
        return [row | {"folder": str(folder)} for row in csv.DictReader(file) if row["verdict"] == "moved"]


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


def writer_of(row: Row) -> str | None:
    """What writers of several rates have in common, as a name."""
    name, *numbers = row["workload"].split(":")
    return f"{_guest(row)}-{row['memory_mib']}-writer-{numbers[0]}-{row['link']}" if name == "writer" else None


def _guest(row: Row) -> str:
    return f"{row['kernel']}-{row['vcpus']}"


def _groups(rows: list[Row], name_of) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        name = name_of(row)
        if name is not None:
            found[name].append(row)
    return found


def draw_throughput(pyplot, name: str, traces: dict[str, Path], path: Path) -> None:
    """The last run of every mode."""
    figure, axis = pyplot.subplots(figsize=(10, 4))
    for mode, trace in traces.items():
        with open(trace, newline="", encoding="utf-8") as file:
            points = [(float(row["ms_after_command"]), int(row["answers"])) for row in csv.DictReader(file)]
        starts = range(0, len(points) - SMOOTH, SMOOTH)
        rates = [sum(count for _, count in points[at : at + SMOOTH]) * 200 / SMOOTH for at in starts]
        axis.plot([points[at][0] / 1000 for at in starts], rates, label=mode, linewidth=1)
    axis.set(xlabel="seconds after the command", ylabel="answers a second", title=name)
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)
    axis.legend()
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)


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
    written = []

    def keep(name: str, drawn: bool = True) -> None:
        if drawn:
            written.append(out / name)

    for name, mine in _groups(rows, lambda row: f"{_guest(row)}-{'-'.join(scenario(row))}".replace(":", "-")).items():
        traces = {row["mode"]: Path(row["folder"]) / row["trace"] for row in mine if row.get("trace")}
        if traces:
            draw_throughput(pyplot, name, traces, out / f"throughput-{name}.svg")
            keep(f"throughput-{name}.svg")
    for name, mine in _groups(rows, lambda row: f"{_guest(row)}-{row['workload']}-{row['link']}".replace(":", "-")).items():
        path = out / f"memory-{name}.svg"
        keep(path.name, draw_lines(pyplot, mine, lambda row: float(row["memory_mib"]), "memory (MiB)", path))
    for name, mine in _groups(rows, writer_of).items():
        path = out / f"write-share-{name}.svg"
        keep(path.name, draw_lines(pyplot, mine, writer_rate, "pages written (MB/s)", path))
    for path in written:
        print(path)
    return 0 if written else 1


if __name__ == "__main__":
    sys.exit(main())
