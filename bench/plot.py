#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Draws what bench/move and bench/find measured, from their CSV files alone: every picture that the runs have data for.

    bench/plot.py RESULTS... [-o DIR]       RESULTS: folders that these made; DIR: default the first of them

throughput-*    what a client outside got, mode by mode: of the whole move, and around the switch
write-share-*   blackout and total time against the share of writes among the touched pages
write-rate-*    the same against how fast a writer writes
memory-*        blackout, total time and bytes against the guest's memory
find-*          what the stop takes to find and copy the changes, against the guest's memory

Points are medians, bars reach from the least to the most.  A cross at the top: no run of this mode got through.
"""

import argparse
import csv
import statistics
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any, Callable

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from lab import install  # noqa: E402
from lab.errors import LabError  # noqa: E402

Row = dict[str, str]
BIN_MS = 5  # of the traces
SMOOTH = 10  # bins: a client asks once to five times in each
BEFORE_MS, AFTER_MS = 1000, 3000  # of the start of the gap
COST = (("blackout_ms", "blackout (ms)"), ("total_ms", "total time (s)"))
SENT = ("sent_mb", "sent (MB)")
FIND = {
    "find_kernel_ms": "find: kernel's page tables",
    "find_user_ms": "find: processes' page tables",
    "copy_ms": "copy of kernel pages",
}
OURS = ("#0b5fa5", "#d1495b", "#2e8b57", "#8e44ad", "#e08e0b", "#17a2b8", "#8c564b")
THEIRS = ("#333333", "#777777", "#a8a8a8", "#5c5c5c")
PEER = "qemu-"
LEGEND_COLUMNS = 5


def read(folder: Path) -> list[Row]:
    with open(folder / "raw.csv", newline="", encoding="utf-8") as file:
        return [row | {"folder": str(folder)} for row in csv.DictReader(file)]


class Looks:
    """How a mode is drawn, the same in every picture."""

    def __init__(self, modes: list[str]):
        ours = [mode for mode in modes if not mode.startswith(PEER)]
        theirs = [mode for mode in modes if mode.startswith(PEER)]
        self._of: dict[str, dict[str, Any]] = {}
        for number, mode in enumerate(ours):
            self._of[mode] = {"color": OURS[number % len(OURS)], "linestyle": "-", "marker": "o", "linewidth": 1.8}
        for number, mode in enumerate(theirs):
            color, marker = THEIRS[number % len(THEIRS)], "sD^v"[number % 4]
            self._of[mode] = {"color": color, "linestyle": "--", "marker": marker, "linewidth": 1.3}
        self.modes = ours + theirs

    def of(self, mode: str) -> dict[str, Any]:
        return self._of[mode]


def _workload(text: str) -> str:
    """ "writer:128:20" as a person says it."""
    name, *numbers = text.split(":")
    if name in ("writer", "reader", "mix") and len(numbers) > 1:
        pattern = f", {numbers[-1]}" if numbers[-1].isalpha() else ""
        share = f", {numbers[2]} % written" if name == "mix" else ""
        return f"{name} of {numbers[0]} MiB at {numbers[1]} MB/s{share}{pattern}"
    return text


def _guest(row: Row) -> str:
    return f"kernel {row['kernel']}, {row['vcpus']} vCPU"


def _file(row: Row, *parts: str) -> str:
    """A name for a picture of such runs."""
    parts = (*parts, row["kernel"], f"{row['vcpus']}vcpu")
    return "-".join(parts).replace(":", "-").replace("+", "-").replace(" ", "")


def _share(row: Row) -> float | None:
    name, *numbers = row["workload"].split(":")
    return float(numbers[2]) if name == "mix" else {"writer": 100.0, "reader": 5.0}.get(name)


def _pages(row: Row) -> list[str]:
    """Size, rate and order of the touched pages: what runs of one write-share picture have in common."""
    _, *numbers = row["workload"].split(":")
    return numbers[:2] + [number for number in numbers[2:] if number.isalpha()]


def _rate(row: Row) -> float | None:
    name, *numbers = row["workload"].split(":")
    return float(numbers[1]) if name == "writer" else None


def _group(rows: list[Row], key_of: Callable[[Row], tuple[str, ...]]) -> dict[tuple[str, ...], list[Row]]:
    found: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in rows:
        found[key_of(row)].append(row)
    return found


def _points(rows: list[Row], x_of, key: str) -> list[tuple[float, list[float]]]:
    """(x, values of the runs that moved), by x."""
    found: dict[float, list[float]] = defaultdict(list)
    for row in rows:
        found[x_of(row)] += [float(row[key])] if row["verdict"] == "moved" and row[key] else []
    return sorted(found.items())


def draw_cost(pyplot, looks: Looks, rows: list[Row], x_of, label: str, title: str, columns, path: Path) -> bool:
    """One panel a column, one line a mode; nothing where all runs have the same x."""
    if len({x_of(row) for row in rows}) < 2:
        return False
    figure, axes = pyplot.subplots(1, len(columns), figsize=(4.8 * len(columns), 4.6))
    for axis, (key, name) in zip(axes, columns):
        scale = 1e3 if name.endswith("(s)") else 1
        failed: set[str] = set()
        for mode in looks.modes:
            points = _points([row for row in rows if row["mode"] == mode], x_of, key)
            there = [(x, [value / scale for value in values]) for x, values in points if values]
            if there:
                middle = [statistics.median(values) for _, values in there]
                least = [m - min(values) for m, (_, values) in zip(middle, there)]
                most = [max(values) - m for m, (_, values) in zip(middle, there)]
                xs = [x for x, _ in there]
                axis.errorbar(xs, middle, [least, most], label=mode, capsize=3, markersize=4, **looks.of(mode))
            for x in (x for x, values in points if not values):
                axis.plot([x], [0.97], marker="x", markersize=8, markeredgewidth=2, clip_on=False, linestyle="",
                          color=looks.of(mode)["color"], transform=axis.get_xaxis_transform())  # fmt: skip
                failed.add(mode)
        if failed:
            axis.plot([], [], marker="x", linestyle="", color="black", label="(at the top) no run got through")
        axis.set(xlabel=label, ylabel=name)
        axis.set_xticks(sorted({x_of(row) for row in rows}))
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.25)
    _finish(figure, axes[0], title, path)
    pyplot.close(figure)
    return True


def _finish(figure, axis, title: str, path: Path) -> None:
    handles, names = axis.get_legend_handles_labels()
    lines = -(-len(names) // LEGEND_COLUMNS)
    figure.suptitle(title, fontsize=11)
    figure.legend(handles, names, loc="lower center", ncol=-(-len(names) // lines), frameon=False, fontsize=9)
    figure.tight_layout(rect=(0, 0.02 + 0.055 * lines, 1, 0.99))
    figure.savefig(path, dpi=110)


def _trace(row: Row) -> list[tuple[float, float]]:
    """(ms after the command, answers a second)."""
    with open(Path(row["folder"]) / row["trace"], newline="", encoding="utf-8") as file:
        return [(float(line["ms_after_command"]), int(line["answers"]) * 1e3 / BIN_MS) for line in csv.DictReader(file)]


def _smooth(points: list[tuple[float, float]], bins: int) -> tuple[list[float], list[float]]:
    starts = range(0, len(points) - bins + 1, bins)
    return (
        [points[at][0] + bins * BIN_MS / 2 for at in starts],
        [sum(rate for _, rate in points[at : at + bins]) / bins for at in starts],
    )


def draw_throughput(pyplot, looks: Looks, title: str, rows: list[Row], path: Path) -> bool:
    """One line of panels a mode, its last run: the whole move, and around the switch."""
    last = {row["mode"]: row for row in rows if row.get("trace") and row.get("gap_start_ms")}
    modes = [mode for mode in looks.modes if mode in last]
    if not modes:
        return False
    size = (11, 1.2 + 1.5 * len(modes))
    figure, axes = pyplot.subplots(len(modes), 2, figsize=size, squeeze=False, sharex="col", sharey=True)
    for (whole, switch), mode in zip(axes, modes):
        row, color = last[mode], looks.of(mode)["color"]
        points = _trace(row)
        start, end = float(row["gap_start_ms"]), float(row["gap_end_ms"])
        times, rates = _smooth(points, 2 * SMOOTH)
        whole.fill_between([time / 1e3 for time in times], rates, color=color, alpha=0.75, linewidth=0)
        whole.axvline(0, color="black", linewidth=0.8)
        near = [(time, rate) for time, rate in points if start - BEFORE_MS <= time <= max(end, start) + AFTER_MS]
        times, rates = _smooth(near, SMOOTH // 2)
        switch.fill_between([(time - start) / 1e3 for time in times], rates, color=color, alpha=0.75, linewidth=0)
        switch.axvspan(0, (end - start) / 1e3, color="#f4c542", alpha=0.35, linewidth=0)
        switch.text((end - start) / 1e3 + 0.03, 0.85, f"{end - start:.0f} ms", fontsize=8, transform=switch.get_xaxis_transform(),
                    bbox={"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 1})  # fmt: skip
        whole.axvspan(start / 1e3, end / 1e3, color="#f4c542", alpha=0.35, linewidth=0)
        whole.set_title(mode, loc="left", fontsize=9)
        for axis in (whole, switch):
            axis.set_ylim(bottom=0)
            axis.grid(alpha=0.25)
    axes[-1][0].set_xlabel("seconds after the command")
    axes[-1][1].set_xlabel("seconds after the last ping before the blackout (shaded) was answered")
    axes[len(modes) // 2][0].set_ylabel("answers a second")
    figure.suptitle(title, fontsize=11)
    figure.tight_layout(rect=(0, 0, 1, 0.98))
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return True


def draw_find(pyplot, title: str, rows: list[Row], path: Path) -> bool:
    """Finding and copying, stacked, by memory; over it the frames in use."""
    by_size = {float(size): mine for (size,), mine in _group(rows, lambda row: (row["memory_mib"],)).items()}
    sizes = sorted(by_size)
    if len(sizes) < 2:
        return False

    def middle(key: str) -> list[float]:
        return [statistics.median(float(row[key]) for row in by_size[size]) for size in sizes]

    figure, axis = pyplot.subplots(figsize=(6.5, 4.2))
    below = [0.0] * len(sizes)
    for color, (key, name) in zip(OURS, FIND.items()):
        heights = middle(key)
        axis.bar(range(len(sizes)), heights, 0.55, bottom=below, color=color, label=name)
        below = [low + height for low, height in zip(below, heights)]
    beside = axis.twinx()
    beside.plot(range(len(sizes)), [pages / 1000 for pages in middle("pages_in_use")], color="black", marker="o", linewidth=1)
    beside.set_ylabel("thousand frames in use (line)")
    beside.set_ylim(bottom=0)
    axis.set(xlabel="memory (MiB)", ylabel="ms in the stop")
    axis.set_xticks(range(len(sizes)), [f"{size:.0f}" for size in sizes])
    _finish(figure, axis, title, path)
    pyplot.close(figure)
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="+")
    parser.add_argument("-o", "--out", type=Path)
    parser.add_argument("--format", choices=("svg", "png"), default="svg")
    given = parser.parse_args()
    out = given.out or given.results[0]
    try:
        install.install(print, "python3-matplotlib")
        rows = [row for folder in given.results for row in read(folder)]
    except (LabError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    import matplotlib  # noqa: E402, PLC0415: installed just now

    matplotlib.use("agg" if given.format == "png" else "svg")
    from matplotlib import pyplot  # noqa: PLC0415

    pyplot.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "font.size": 9})
    out.mkdir(parents=True, exist_ok=True)
    written = []

    def keep(draw, name: str) -> None:
        path = out / f"{name}.{given.format}"
        if draw(path):
            written.append(path)

    found = [row for row in rows if "find_kernel_ms" in row]
    moves = [row for row in rows if "mode" in row]
    looks = Looks(list(dict.fromkeys(row["mode"] for row in moves)))

    def keep_costs(name: str, x_of, label: str, columns, rest_of: Callable[[Row], tuple[str, ...]], title_of) -> None:
        """One picture for all runs that differ only in x and mode; `rest_of`: what they have in common."""
        fitting = [row for row in moves if x_of(row) is not None]
        for (guest, link, *rest), mine in _group(fitting, lambda row: (_guest(row), row["link"], *rest_of(row))).items():
            title = f"{title_of(*rest)}, {link}; {guest}"
            path_name = _file(mine[0], name, *rest, link)
            keep(lambda path: draw_cost(pyplot, looks, mine, x_of, label, title, columns, path), path_name)

    def pages_title(memory: str, mib: str, rate: str, *pattern: str) -> str:
        return ", ".join([f"{memory} MiB, {mib} MiB of pages touched at {rate} MB/s", *pattern])

    for (memory, workload, link, guest), mine in _group(
        moves, lambda row: (row["memory_mib"], row["workload"], row["link"], _guest(row))
    ).items():
        title = f"{memory} MiB, {_workload(workload)}, {link}; {guest}"
        name = _file(mine[0], "throughput", memory, workload, link)
        keep(lambda path: draw_throughput(pyplot, looks, title, mine, path), name)
    keep_costs("write-share", _share, "writes among the touched pages (%)", COST,
               lambda row: (row["memory_mib"], *_pages(row)), pages_title)  # fmt: skip
    keep_costs("write-rate", _rate, "pages written (MB/s)", COST,
               lambda row: (row["memory_mib"], row["workload"].split(":")[1]),
               lambda memory, mib: f"{memory} MiB, {mib} MiB of pages rewritten")  # fmt: skip
    keep_costs("memory", lambda row: float(row["memory_mib"]), "memory (MiB)", (*COST, SENT),
               lambda row: (row["workload"],), _workload)  # fmt: skip
    for (guest,), mine in _group(found, lambda row: (_guest(row),)).items():
        title = f"What the stop looks at; {guest}"
        keep(lambda path: draw_find(pyplot, title, mine, path), _file(mine[0], "find"))
    for path in written:
        print(path)
    return 0 if written else 1


if __name__ == "__main__":
    sys.exit(main())
