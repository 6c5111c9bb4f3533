# SPDX-License-Identifier: Apache-2.0
"""Whatever dies before go, the workload goes on where it was, and a second move succeeds."""

import time
from dataclasses import dataclass
from pathlib import Path

from lab.errors import LabError
from lab.machine import Machine
from lab.setup import Plan

from .harness import expect, test
from .scene import Scene

HOLD_MS = 4000
STRIKE_S = 1  # after the machines have met, in phases that the guest does not notice
CONNECT_S = 30
MET = "comparing the machines"  # the move says so
MODULE_CAPTURED, MODULE_CLONE = 3, 7  # enum smig_state


@dataclass(frozen=True)
class Phase:
    """A phase before go; `paused`: held by a target VM that stands still, else by --hold."""

    name: str
    frozen: bool = False
    paused: bool = False
    cloned: bool = False

    @property
    def options(self) -> list[str]:
        return [] if self.paused else ["--hold", f"{self.name}:{HOLD_MS}"]


PHASES = (
    Phase("source-checking", paused=True),
    Phase("source-landing"),
    Phase("source-passing"),
    Phase("source-stopping"),
    Phase("source-sending", frozen=True),
    Phase("source-awaiting-ready", frozen=True),
    Phase("clone-fenced", frozen=True, cloned=True),
)
RECOVERY_S = 100  # until the source has given up and its guest answers again


class Blow:
    """What strikes in a phase, and what it takes before the second move."""

    def __init__(self, scene: Scene, target: Machine, number: int):
        self.scene, self.target, self.number = scene, target, number
        self.console_end = 0  # what the target said before this does not count

    @staticmethod
    def boot_options(phase: Phase) -> tuple[str, ...]:
        """What the target gets on its kernel command line."""
        return ()

    @staticmethod
    def meets(phase: Phase) -> bool:
        """Whether the machines get as far as talking before the blow."""
        return not phase.paused

    def arm(self, phase: Phase) -> None:
        """Before the move."""
        if phase.paused:
            self.target.qmp.call("stop")

    def strike(self, phase: Phase) -> None:
        """In the phase."""

    def mend(self) -> tuple[int, Machine]:
        """A target for the second move."""
        self.scene.setup.wait_listening(self.target, self.console_end)
        return self.number, self.target


class TargetVm(Blow):
    """The target VM loses power."""

    def strike(self, phase: Phase) -> None:
        self.target.kill()

    def mend(self) -> tuple[int, Machine]:
        self.scene.drop(self.target)
        return self.scene.target()


class TargetAgent(Blow):
    """Every process of the target but init is killed (by its kernel, asked over the console).

    In the clone only the owner of the move is, for all of the target's processes are the guest's by then:
    its supervisor takes over, is told that the source has given up, and resets the target.
    """

    @staticmethod
    def boot_options(phase: Phase) -> tuple[str, ...]:
        # a VM that stood still would have no process to kill
        return (f"selfmigrate.hold=target-checking:{HOLD_MS}",) if phase.paused else ()

    @staticmethod
    def meets(phase: Phase) -> bool:
        return True

    def arm(self, phase: Phase) -> None:
        """In `paused` phases the target itself holds."""
        self.console_end = len(self.target.console())
        if phase.cloned:
            self.scene.arm_assassin(MODULE_CLONE)

    def strike(self, phase: Phase) -> None:
        if phase.cloned:
            return  # it is armed
        self.console_end = len(self.target.console())
        self.target.sysrq("i")


class SourceAgent(Blow):
    """All processes of the move die; while the guest is frozen, its owner does, by a process that is spared."""

    def arm(self, phase: Phase) -> None:
        super().arm(phase)
        if phase.frozen:
            self.scene.arm_assassin(MODULE_CAPTURED)

    def strike(self, phase: Phase) -> None:
        if phase.frozen:
            return  # it is armed
        self.scene.here.commands.attempt(
            "while :; do found=; for p in /proc/[0-9]*; do "
            '[ "$(readlink $p/exe)" = /usr/bin/selfmigrate ] && kill -9 ${p##*/} && found=1; done; '
            "[ $found ] || break; done",
            timeout_s=HOLD_MS / 1000 + RECOVERY_S,
        )


class Link(Blow):
    """The cable between the two is cut."""

    @property
    def _tap(self) -> str:
        return self.scene.setup.tap(self.target.name, self.scene.setup.network.migration_nic)

    def strike(self, phase: Phase) -> None:
        self.scene.setup.network.cut(self._tap)

    def mend(self) -> tuple[int, Machine]:
        self.scene.setup.network.mend(self._tap)
        return super().mend()


BLOWS: dict[str, type[Blow]] = {
    "target VM": TargetVm,
    "target agent": TargetAgent,
    "source agent": SourceAgent,
    "link": Link,
}


@test("the target VM dies in each phase", 420, blow="target VM")
@test("the target's agent dies in each phase", 420, blow="target agent")
@test("the source's agent dies in each phase", 420, blow="source agent")
@test("the link is cut in each phase", 600, blow="link")
def in_each_phase(logs: Path, blow: str) -> None:
    with Scene(Plan(memory_mib=256), logs) as scene:
        for phase in PHASES:
            what = f"{blow} in {phase.name}"
            number, target = scene.target(append=BLOWS[blow].boot_options(phase))
            strike = BLOWS[blow](scene, target, number)
            strike.arm(phase)
            stay = ("--stay", scene.setup.stay(scene.number))
            session = scene.setup.move(number, *stay, "--alive-timeout", "5", *phase.options)
            deadline = time.monotonic() + CONNECT_S
            while strike.meets(phase) and MET not in session.text:
                expect(time.monotonic() < deadline, f"{what}: the machines never met:\n{session.text}")
                time.sleep(0.05)
            if phase.frozen:
                expect(scene.wait_stopped(20), f"{what}: the guest never stopped:\n{session.text}")
            else:
                time.sleep(STRIKE_S if strike.meets(phase) else 2 * STRIKE_S)
            strike.strike(phase)
            if phase.paused and target.alive:
                target.qmp.call("cont")
            try:
                status = session.wait(RECOVERY_S)
            except LabError as error:
                raise LabError(f"{what}: {error}; it said:\n{session.text}") from error
            expect(status != 0, f"{what}: the move says that it succeeded:\n{session.text}")
            scene.unharmed(what)
            left = scene.here
            number, target = strike.mend()
            scene.move(number, target, *stay)
            scene.unharmed(f"moved after {what}")
            scene.drop(left)
        scene.finish()
