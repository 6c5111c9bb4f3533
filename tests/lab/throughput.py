# SPDX-License-Identifier: Apache-2.0
"""What a client outside got of its service around a move: from the times of its answers, one clock for both VMs."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .stage import Trace

BIN_NS = 5_000_000
BASE_NS = 2_000_000_000  # before the command: what the guest does undisturbed
WINDOW = 20  # bins: 100 ms say whether it is back
BACK = 0.9


def bins(trace: "Trace") -> list[int]:
    """Answers in every 5 ms from BASE_NS before the command until the guest was checked."""
    first = trace.began_ns - BASE_NS
    counts = [0] * ((trace.until_ns - first) // BIN_NS)
    for moment in trace.answers_ns:
        index = (moment - first) // BIN_NS
        if 0 <= index < len(counts):
            counts[index] += 1
    return counts


def lost_ms(trace: "Trace") -> float | None:
    """How much undisturbed time the missing answers would have taken, from the command on.

    None: there were no answers before it to compare with.
    """
    counts = bins(trace)
    base_bins = BASE_NS // BIN_NS
    base = sum(counts[:base_bins]) / base_bins
    if base == 0:
        return None
    after = counts[base_bins:]
    return (len(after) - sum(after) / base) * BIN_NS / 1e6


def back_ms(trace: "Trace") -> float | None:
    """From the end of the gap until 100 ms brought 90 % of what they brought before; None: never."""
    counts = bins(trace)
    base = sum(counts[: BASE_NS // BIN_NS]) / (BASE_NS // BIN_NS)
    if base == 0:
        return None
    start = (trace.gap_ns[1] - trace.began_ns + BASE_NS) // BIN_NS
    for index in range(start, len(counts) - WINDOW):
        if sum(counts[index : index + WINDOW]) >= BACK * base * WINDOW:
            return (index - start) * BIN_NS / 1e6
    return None


def full_downtime_ms(trace: "Trace") -> float | None:
    """From the beginning of the gap until a whole second brings 90 % of what it brought before; None: never seen."""
    counts = bins(trace)
    base = sum(counts[: BASE_NS // BIN_NS]) / (BASE_NS // BIN_NS)
    if base == 0:
        return None
    second = 1_000_000_000 // BIN_NS
    stop, start = ((moment - trace.began_ns + BASE_NS) // BIN_NS for moment in trace.gap_ns)
    for index in range(start, len(counts) - second + 1):
        if sum(counts[index : index + second]) >= BACK * base * second:
            return (index - stop) * BIN_NS / 1e6
    return None
