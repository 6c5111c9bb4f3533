# SPDX-License-Identifier: Apache-2.0
"""Watches the source from outside: once the guest is given away, nothing of it may run, speak or write there.

Three things are sampled through QEMU, every SAMPLE_S, without the source taking part:

    processors   a CPU in user mode runs the agent or nobody: the stop process and the supervisor are not
                 frozen, they sleep in poll() and wake now and then.  Whose instruction a sample has met is
                 read from the stack in the VM's memory (guest_memory.py).
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
from .guest_memory import UserPlace, program
from .machine import Machine

SAMPLE_S = 0.02
AGENT = "/usr/bin/selfmigrate"
TICKER_MAGIC = 0x72656B636974616C


@dataclass
class Sample:
    mono_ns: int
    user_mode: list[UserPlace]  # where each CPU in user mode was
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
        cpus = registers.split("CPU#")[1:]
        places = [UserPlace.parse(number, cpu) for number, cpu in enumerate(cpus)]
        words = re.findall(r"0x([0-9a-f]{16})", self._machine.qmp.monitor(f"xp /2gx {self._ticker:#x}"))
        if len(words) != 2 or int(words[0], 16) != TICKER_MAGIC:
            raise LabError("the ticker's page is not where it was")
        user_mode = [place for place in places if place]
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
        places = [place for sample in after for place in sample.user_mode]
        programs = [program(self._machine.qmp, place) or f"unknown, at {place.rip:#x}" for place in places]
        figures = {
            "samples": len(after),
            "user_mode": [name for name in programs if name != AGENT],
            "agent_in_user_mode": programs.count(AGENT),
            "user_mode_before": sum(bool(sample.user_mode) for sample in before),
            "ticks_before": before[-1].ticks - before[0].ticks,
            "ticks": after[-1].ticks - after[0].ticks,
            # the last sample before the commit lies in the stop: the disk is fenced already
            "disk_writes": after[-1].disk_writes - before[-1].disk_writes,
            "service_frames": frames_after,
        }
        reasons = []
        if figures["user_mode"]:
            reasons.append(f"the given-away source ran {', '.join(sorted(set(figures['user_mode'])))}")
        if figures["ticks"]:
            reasons.append(f"a frozen task of the given-away source ran {figures['ticks']} times")
        if not figures["ticks_before"]:
            reasons.append("the ticker did not tick before the move: a still counter proves nothing")
        if figures["disk_writes"]:
            reasons.append(f"the given-away source wrote to the disk {figures['disk_writes']} times")
        if frames_after:
            reasons.append(f"the given-away source sent {frames_after} service frames")
        return figures, reasons
