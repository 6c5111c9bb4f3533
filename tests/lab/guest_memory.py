# SPDX-License-Identifier: Apache-2.0
"""Reads a VM's memory from outside, to say which program a CPU in user mode was running."""

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from .qmp import Qmp

PAGE = 4096
PRESENT, HUGE = 1, 1 << 7
ADDRESS_BITS = 0x000FFFFFFFFFF000
LA57 = 1 << 12  # of CR4: five levels of page tables
STACK_SEARCH_PAGES = 512


@dataclass(frozen=True)
class UserPlace:
    """Where a CPU was in user mode."""

    cpu: int
    rip: int
    rsp: int
    cr3: int
    cr4: int

    @staticmethod
    def parse(cpu: int, registers: str) -> "UserPlace | None":
        """From QEMU's `info registers` of one CPU; None when it was in the kernel."""
        if not re.search(r"\bCPL=3\b", registers):
            return None
        values = [
            re.search(rf"\b{name}\s?=\s?([0-9a-f]+)", registers) for name in ("RIP", "RSP", "CR3", "CR4")
        ]
        return UserPlace(cpu, *(int(value.group(1), 16) if value else 0 for value in values))


def _read(qmp: Qmp, address: int, length: int) -> bytes:
    with tempfile.NamedTemporaryFile(prefix="selfmigrate-lab-") as file:
        qmp.call("pmemsave", val=address, size=length, filename=file.name)
        return Path(file.name).read_bytes()


class AddressSpace:
    """The user memory of the process that `place` was in; reads each table once."""

    def __init__(self, qmp: Qmp, place: UserPlace):
        self._qmp = qmp
        self._root = place.cr3 & ADDRESS_BITS
        self._levels = 5 if place.cr4 & LA57 else 4
        self._tables: dict[int, bytes] = {}

    def _entry(self, table: int, index: int) -> int:
        if table not in self._tables:
            self._tables[table] = _read(self._qmp, table, PAGE)
        return int.from_bytes(self._tables[table][index * 8 : index * 8 + 8], "little")

    def page(self, address: int) -> bytes | None:
        """The page at virtual `address`, if it is present."""
        table = self._root
        for level in range(self._levels - 1, -1, -1):
            shift = 12 + 9 * level
            entry = self._entry(table, address >> shift & 511)
            if not entry & PRESENT:
                return None
            frame = entry & ADDRESS_BITS
            if level and entry & HUGE:
                inside = address & ((1 << shift) - 1)
                return _read(self._qmp, (frame & ~((1 << shift) - 1)) + inside, PAGE)
            table = frame
        return _read(self._qmp, table, PAGE)


def program(qmp: Qmp, place: UserPlace) -> str | None:
    """The path that the process was started by: the kernel leaves it at the upper end of the stack, followed
    by eight zeros.  None when the stack's end is not found, as in other threads than the first."""
    space = AddressSpace(qmp, place)
    first = place.rsp & ~(PAGE - 1)
    for number in range(STACK_SEARCH_PAGES):
        page = space.page(first + number * PAGE)
        match = page and re.search(rb"\0(/[^\0]{1,255})\0{9}$", page)
        if match:
            return match.group(1).decode(errors="replace")
    return None
