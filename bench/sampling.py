# SPDX-License-Identifier: Apache-2.0
"""Where the processors of a VM are, sampled from outside through QEMU; no guest takes part.

An emulator knows a guest's instruction pointer as of its last indirect jump, so what a sample names is the function, not
the instruction.  Kernel functions are named by the guest's own symbols; another boot of the same kernel (the landing
environment) has them elsewhere, by a distance that the entry of its page-fault handler tells.
"""

import bisect
import re
import threading
import time
from dataclasses import dataclass
from typing import Any

from lab.errors import LabError
from lab.guest_memory import UserPlace, program
from lab.machine import Machine
from lab.network import FOLLOW
from lab.setup import Setup
from lab.shell import fetch

EVERY_S = 0.002
KERNEL_FROM = 0xFFFF800000000000
TEXT_FROM = 0xFFFFFFFF80000000
MODULES_FROM = 0xFFFFFFFFC0000000
PAGE_FAULT = "asm_exc_page_fault"
KASLR_STEP, KASLR_SPAN = 2 << 20, 1 << 30


@dataclass(frozen=True)
class Sample:
    mono_ns: int
    where: str


class Symbols:
    """The kernel functions of one boot; modules have them by name, in brackets."""

    def __init__(self, setup: Setup):
        self._named: list[tuple[int, str]] = []
        for line in fetch(setup.namespace, FOLLOW, "/proc/kallsyms").decode().splitlines():
            address, kind, name, *module = line.split()
            if kind in "tTwW" and int(address, 16) >= KERNEL_FROM:
                self._named.append((int(address, 16), " ".join([name, *module])))
        self._named.sort()
        self._addresses = [address for address, _ in self._named]
        self.page_fault = next(address for address, name in self._named if name == PAGE_FAULT)

    def name(self, address: int) -> str:
        return self._named[max(bisect.bisect(self._addresses, address) - 1, 0)][1]


class Sampler:
    """Samples `machine` from its making until `close`."""

    def __init__(self, machine: Machine, symbols: Symbols, booted_here: bool):
        self._machine, self._symbols = machine, symbols
        self._shift: int | None = 0 if booted_here else None  # None: not known yet
        self._programs: dict[int, str] = {}  # by page table
        self.samples: list[Sample] = []
        self.failure: str | None = None
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._ending.set()
        self._thread.join(10)

    def _run(self) -> None:
        try:
            while not self._ending.wait(EVERY_S):
                registers = self._machine.qmp.monitor("info registers -a")
                now = time.monotonic_ns()
                for number, cpu in enumerate(registers.split("CPU#")[1:]):
                    self.samples.append(Sample(now, self._where(number, cpu)))
        except (LabError, OSError, ValueError) as error:
            self.failure = str(error)

    def _where(self, number: int, registers: str) -> str:
        if re.search(r"\bHLT=1\b", registers):
            return "idle"
        rip = int(_field("RIP", registers), 16)
        place = UserPlace.parse(number, registers)
        if place:
            if place.cr3 not in self._programs:
                self._programs[place.cr3] = program(self._machine.qmp, place) or "?"
            return f"user: {self._programs[place.cr3].rsplit('/', 1)[-1]}"
        if rip < TEXT_FROM:
            return "the jump's own page"
        shift = self._shift_now(registers)
        if shift is None:
            return "?"
        if rip >= MODULES_FROM and shift:
            return "a module of the landing environment"
        return self._symbols.name(rip - shift)

    def _shift_now(self, registers: str) -> int | None:
        """How far the kernel that runs now is from the one whose symbols we have; None: no kernel's handlers."""
        if self._shift != 0:
            table = int(_field("IDT", registers), 16)
            said = self._machine.qmp.monitor(f"x /2gx {table + 14 * 16:#x}")
            words = [int(word, 16) for word in re.findall(r"0x([0-9a-f]{16})", said)]
            if len(words) == 2:
                low, high = words
                handler = low & 0xFFFF | low >> 32 & 0xFFFF0000 | (high & 0xFFFFFFFF) << 32
                # 0 from the jump on: then the guest's own kernel runs here
                shift = handler - self._symbols.page_fault
                if shift % KASLR_STEP or abs(shift) >= KASLR_SPAN:
                    return None
                self._shift = shift
        return self._shift


def _field(name: str, registers: str) -> str:
    match = re.search(rf"\b{name}\s*=\s*([0-9a-f]+)", registers)
    if not match:
        raise ValueError(f"no {name} among the registers")
    return match.group(1)


def shares(samples: list[Sample], from_ns: int, to_ns: int) -> list[tuple[float, str]]:
    """What part of the time between two moments was spent where, most first."""
    counts: dict[str, int] = {}
    for sample in samples:
        if from_ns <= sample.mono_ns < to_ns:
            counts[sample.where] = counts.get(sample.where, 0) + 1
    whole: Any = sum(counts.values())
    return sorted(((count / whole, where) for where, count in counts.items()), reverse=True)
