# SPDX-License-Identifier: Apache-2.0
"""The workloads that a benchmark can be asked for, by name."""

from lab.workload import PATTERNS, Kind

HELP = """Workloads: idle, redis, services (a whole Debian: sysbench's OLTP on MariaDB, and a client of Apache), fresh (half of memory filled with random data), aged (70 % of memory touched and freed,
half as much in clean page cache, which our modes give back first), writer:MIB:MB/s, reader:MIB:MB/s,
mix:MIB:MB/s:PERCENT (of the touched pages are rewritten).  The last three touch pages at random; with :sequential they
go through them, with :hot nine touches of ten fall on a tenth of them."""


def parse(text: str, memory_mib: int) -> tuple[Kind, tuple[str, ...]]:
    """The workload in a guest of that size, and what `selfmigrate to` is told besides; ValueError: no such thing."""
    name, *numbers = text.split(":")
    if name in ("writer", "reader", "mix"):
        pattern = numbers.pop() if numbers and numbers[-1] in PATTERNS else PATTERNS[0]
        if len(numbers) != (3 if name == "mix" else 2):
            raise ValueError(f"no workload {text!r}")
        kind = Kind(name, int(numbers[0]), float(numbers[1]), int(numbers[2]) if name == "mix" else 0, pattern)
        if kind.working_set_mib < 1 or kind.rate_mb <= 0 or not 0 <= kind.write_percent <= 100:
            raise ValueError(f"no workload {text!r}")
        return kind, ()
    if numbers or name not in ("idle", "redis", "services", "fresh", "aged"):
        raise ValueError(f"no workload {text!r}")
    if name == "fresh":
        return Kind("reader", memory_mib // 2, 1), ()
    if name == "aged":
        return Kind("aged", memory_mib * 7 // 10), ("--drop-cache",)
    return Kind(name), ()
