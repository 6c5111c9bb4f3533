# SPDX-License-Identifier: Apache-2.0
"""What a person at the terminal sees: steps with their time, quotes from the guest, a table."""

import statistics
import sys
import time
from typing import Any


class Teller:
    """Prints steps with the seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def step(self, text: str) -> None:
        print(f"[{time.monotonic() - self._start:6.1f} s] {text}", flush=True)

    @staticmethod
    def quote(line: str) -> None:
        """A line that the guest printed."""
        print(f"           │ {line}", flush=True)

    @staticmethod
    def complain(text: str) -> None:
        print(text, file=sys.stderr, flush=True)


COLUMNS = (
    ("blackout", "blackout_ms", "{:.0f} ms"),
    ("TCP gap", "tcp_gap_ms", "{:.0f} ms"),
    ("stop", "stop_ms", "{:.0f} ms"),
    ("total", "total_ms", "{:.0f} ms"),
    ("sent", "bytes_sent", "{:,.0f} B"),
    ("in use", "pages_in_use", "{:,.0f} pages"),
    ("zero", "pages_zero", "{:,.0f}"),
    ("pages sent", "pages_sent", "{:,.0f}"),
    ("in the stop", "stop_image_pages", "{:,.0f}"),
    ("passes", "passes", "{:.0f}"),
    ("full downtime", "full_downtime_ms", "{:.0f} ms"),
    ("owed", "owed_pages", "{:,.0f}"),
    ("faults", "demand_fetches", "{:,.0f}"),
)


def _cells(figures: dict[str, Any]) -> list[str]:
    return [
        form.format(figures[key]) if isinstance(figures.get(key), (int, float)) else "-"
        for _, key, form in COLUMNS
    ]


def median(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Column by column, of the runs that have the figure."""
    result = {}
    for _, key, _ in COLUMNS:
        values = [run[key] for run in runs if isinstance(run.get(key), (int, float))]
        if values:
            result[key] = statistics.median(values)
    return result


def table(runs: list[dict[str, Any]]) -> str:
    """One line a run, and a line of medians for every mode that ran more than once."""
    rows = [["", *(title for title, _, _ in COLUMNS)]]
    rows += [
        [f"{number}. {run['mode']}: {run['verdict']}", *_cells(run)] for number, run in enumerate(runs, 1)
    ]
    for mode in dict.fromkeys(run["mode"] for run in runs):
        of_mode = [run for run in runs if run["mode"] == mode and run["verdict"] == "moved"]
        if len(of_mode) > 1:
            rows.append([f"median of {len(of_mode)}, {mode}", *_cells(median(of_mode))])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if not column else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths))
        )
        for row in rows
    )
