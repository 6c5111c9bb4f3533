# SPDX-License-Identifier: Apache-2.0
"""Watches the source from outside: once the guest is given away, nothing of it may run, speak or write there.

Three things are sampled through QEMU, every SAMPLE_S, without the source taking part:

    processors   no CPU is in user mode.  The stop process and the supervisor may run there, but they sleep in
                 poll() but for microseconds, so that not one sample should meet them either: no exception is
                 made for anybody.
    a counter    the ticker (guest/ticker.cpp) counts 100 times a second in a page whose physical address is
                 known; on a frozen source the count in that page stands still.  Unlike samples of processors,
                 which an idle guest passes as well, this shows even one wakening of a frozen task.
    the disk     QEMU's count of write requests stands still.

The tap is watched by tap_watch: no service frame leaves the source.
"""

import re
import threading
import time
from dataclasses import dataclass
from typing import Any

from .errors import LabError
from .machine import Machine

SAMPLE_S = 0.02
TICKER_MAGIC = 0x72656B636974616C


@dataclass
class Sample:
    mono_ns: int
    user_mode: list[str]  # where each CPU in user mode was
    ticks: int
    disk_writes: int


class FrozenWatch:
    """Samples from its making until `judge`."""

    def __init__(self, machine: Machine):
        self._machine = machine
        self._ticker = int(machine.commands.run("ticker where"))
        self._samples: list[Sample] = []
        self._ending = threading.Event()
        self._failure: str | None = None
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _sample(self) -> Sample:
        registers = self._machine.qmp.monitor("info registers -a")
        user_mode = []
        for cpu in registers.split("CPU#")[1:]:
            if re.search(r"CPL=3\b", cpu):
                place = re.search(r"RIP=(\w+)", cpu)
                user_mode.append(f"CPU {cpu.split()[0]} at {place.group(1) if place else '?'}")
        words = re.findall(r"0x([0-9a-f]{16})", self._machine.qmp.monitor(f"xp /2gx {self._ticker:#x}"))
        if len(words) != 2 or int(words[0], 16) != TICKER_MAGIC:
            raise LabError("the ticker's page is not where it was")
        return Sample(time.monotonic_ns(), user_mode, int(words[1], 16), self._machine.disk_writes()[0])

    def _watch(self) -> None:
        try:
            while not self._ending.wait(SAMPLE_S):
                self._samples.append(self._sample())
        except (LabError, OSError, ValueError) as error:
            self._failure = str(error)

    def stop(self) -> None:
        self._ending.set()
        self._thread.join(10)

    close = stop

    def judge(self, commit_ns: int, frames_after: int) -> tuple[dict[str, Any], list[str]]:
        """Figures and complaints.  `commit_ns`: when the guest was first heard from its new place, so the
        commit was before; `frames_after`: service frames that left the source after that."""
        self.stop()
        before = [sample for sample in self._samples if sample.mono_ns <= commit_ns]
        after = [sample for sample in self._samples if sample.mono_ns > commit_ns]
        if self._failure or len(after) < 20 or len(before) < 2:
            return {}, [f"the source could not be watched: {self._failure or 'too few samples'}"]
        figures = {
            "samples": len(after),
            "user_mode": [place for sample in after for place in sample.user_mode],
            "user_mode_before": sum(bool(sample.user_mode) for sample in before),
            "ticks_before": before[-1].ticks - before[0].ticks,
            "ticks": after[-1].ticks - after[0].ticks,
            # the last sample before the commit lies in the stop: the disk is fenced already
            "disk_writes": after[-1].disk_writes - before[-1].disk_writes,
            "service_frames": frames_after,
        }
        reasons = []
        if figures["user_mode"]:
            reasons.append(f"{len(figures['user_mode'])} samples of the given-away source were in user mode")
        if figures["ticks"]:
            reasons.append(f"a frozen task of the given-away source ran {figures['ticks']} times")
        if not figures["ticks_before"]:
            reasons.append("the ticker did not tick before the move: a still counter proves nothing")
        if figures["disk_writes"]:
            reasons.append(f"the given-away source wrote to the disk {figures['disk_writes']} times")
        if frames_after:
            reasons.append(f"the given-away source sent {frames_after} service frames")
        return figures, reasons
