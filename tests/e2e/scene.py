# SPDX-License-Identifier: Apache-2.0
"""A busy guest and the steps that tests take with it, each with its expectation."""

import time
from pathlib import Path
from typing import Any

from lab.errors import LabError, Timeout
from lab.machine import Machine
from lab.setup import Plan, Setup
from lab.shell import Session
from lab.workload import Kind, Workload

from .harness import Failed, expect

MOVE_S = 120
SMALL = Kind("redis", working_set_mib=8)


class Scene:
    """A source with a running workload; `here` is the VM the guest is in."""

    def __init__(self, plan: Plan, logs: Path, kind: Kind = SMALL):
        self.setup = Setup(plan, logs)
        try:
            self.here = self.setup.boot_source()
            self.number = self._last = 1  # of the machine it is in, of the newest machine
            self.workload = Workload(self.setup, kind)
            self.workload.start()
            self.workload.before_move()
        except BaseException:
            self.setup.close()
            raise

    def __enter__(self) -> "Scene":
        return self

    def __exit__(self, kind: type | None, *_: Any) -> None:
        if kind is not None:
            for machine in self.setup.machines:
                machine.dump(self.setup.logs)
        self.setup.close()

    def target(self, **options: Any) -> tuple[int, Machine]:
        """A new VM waiting for the guest, and its number."""
        self._last += 1
        return self._last, self.setup.boot_target(self._last, **options)

    def drop(self, machine: Machine) -> None:
        """This VM is not needed any more."""
        machine.dump(self.setup.logs)
        machine.close()
        self.setup.machines.remove(machine)

    def run(self, script: str, timeout_s: float = 20) -> str:
        return self.here.commands.run(script, timeout_s)

    def arm_assassin(self, state: int) -> None:
        """The owner of the move dies a second after the module of this guest, wherever it is, got into `state`."""
        self.run(f"assassin {state} 1000 >/run/assassin.log 2>&1 &")

    def unharmed(self, what: str) -> None:
        """The workload goes on where it is, on the same connection, with nothing lost."""
        try:
            self.workload.check()
        except LabError as error:
            raise Failed(f"{what}: the workload does not go on: {error}") from error
        expect(not self.workload.reasons, f"{what}: {'; '.join(self.workload.reasons)}")

    def move(self, number: int, target: Machine, *options: str) -> Session:
        """Moves the guest to `target`, which must succeed."""
        session = self.setup.move(number, *options)
        status = session.wait(MOVE_S)
        expect(status == 0, f"the move ended with {status}:\n{session.text}")
        self.here, self.number = target, number
        self.workload.moved_to(target)
        return session

    def refused(self, number: int, *names: str) -> Session:
        """A move that must be refused, naming all of `names`, without the guest noticing."""
        self.workload.redis.mark()
        session = self.setup.move(number)
        status = session.wait(MOVE_S)
        expect(status == 1, f"it should be refused, but ended with {status}:\n{session.text}")
        for name in names:
            expect(
                name.lower() in session.text.lower(), f"the refusal does not name {name!r}:\n{session.text}"
            )
        gap_ms = self.workload.redis.status()["longest_gap_ms"]
        expect(gap_ms < 1000, f"the guest stood still for {gap_ms:.0f} ms though the target was refused")
        return session

    def wait_stopped(self, timeout_s: float) -> bool:
        """True once the client has had no answer for 300 ms: the guest stands still."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            status = self.workload.redis.status()
            if status["mono_ns"] - status["last_answer_ns"] > 300_000_000:
                return True
            time.sleep(0.05)
        return False

    def finish(self) -> dict[str, Any]:
        """Every key is right, the disk is clean."""
        self.unharmed("at the end")
        figures = self.workload.finish()
        self.workload.shut_down()
        expect(not self.workload.reasons, "; ".join(self.workload.reasons))
        return figures


__all__ = ["Scene", "Timeout"]
