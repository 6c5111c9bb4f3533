# SPDX-License-Identifier: Apache-2.0
"""Clocks and timers go on across a move; two clones of one image are not the same."""

import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from lab.machine import Machine
from lab.setup import Plan, Setup

from .harness import expect, test
from .scene import Scene
from .tee import Tee

MONOTONIC, BOOTTIME, REALTIME = range(3)
NAMES = ("CLOCK_MONOTONIC", "CLOCK_BOOTTIME", "CLOCK_REALTIME")


def _report(machine: Machine, signal: str) -> tuple[dict[str, Any], float]:
    """What `clocks` says, and how many ms the guest's CLOCK_REALTIME is ahead of the host's."""
    seen = len(machine.verdicts.lines)
    machine.commands.run(f"kill -{signal} $(pidof clocks)")
    line = machine.verdicts.wait(seen, 20, program="clocks")
    host_ns = time.time_ns() - (time.monotonic_ns() - line["arrived_ns"])
    return line, (line["realtime_ns"] - host_ns) / 1e6


@test("clocks and timers, 6.1", 180, series="6.1")
@test("clocks and timers, 6.12", 180, series="6.12")
def clocks(logs: Path, series: str) -> None:
    with Scene(Plan(kernel=series, vcpus=2, disk=None), logs) as scene:
        scene.run("clocks /dev/lab.verdict >/dev/null 2>&1 &")
        number, target = scene.target()
        before, ahead_before = _report(scene.here, "USR1")
        began_ns = time.monotonic_ns()
        scene.move(number, target)
        time.sleep(45 - min(45, before["ran_ms"] / 1000 + (time.monotonic_ns() - began_ns) / 1e9))
        after, ahead = _report(scene.here, "TERM")
        scene.finish()
        start_ns, end_ns = scene.workload.pinger.longest_gap(began_ns)
        blackout_ms = (end_ns - start_ns) / 1e6

        for clock, name in enumerate(NAMES):
            expect(after["back"][clock] == 0, f"{name} went back {after['back'][clock]} times")
            step = after["longest_step_ms"][clock]
            expect(
                0.5 * blackout_ms - 50 < step < blackout_ms + 100,
                f"{name} advanced by {step:.0f} ms at once in a blackout of {blackout_ms:.0f} ms",
            )
        expect(
            abs(ahead - ahead_before) < 50,
            f"CLOCK_REALTIME has shifted by {ahead - ahead_before:.1f} ms against the host's",
        )
        expect(
            not (after["early"] or after["repeated"] or after["missed"]),
            f"one-shot timers: {after['early']} early, {after['repeated']} more than once, "
            f"{after['missed']} never",
        )
        expect(
            abs(after["periods"] - after["periods_expected"]) <= 1,
            f"the periodic timer counted {after['periods']} of {after['periods_expected']} periods",
        )


@test("two clones of one image draw different random bytes", 180)
def two_clones(logs: Path) -> None:
    plan = Plan(disk=None)
    with ExitStack() as stack:
        source, first, second = (
            stack.enter_context(Setup(plan, logs / name)) for name in ("source", "one", "two")
        )
        source.boot_source()
        landing = source.landing_image()
        for world in (first, second):
            world.boot_target(2, landing=landing)
        tee = source.own(
            Tee(source.namespace, [first.namespace, second.namespace], source.stay(1), source.stay(2))
        )
        session = source.move(2)
        expect(tee.wait(90), f"not both clones called: {tee.drawn}; the source said:\n{session.text}")
        one, two = tee.drawn
        expect(any(one) and any(two), f"a clone drew nothing: {tee.drawn}")
        expect(one != two, f"both clones drew {one!r}")
