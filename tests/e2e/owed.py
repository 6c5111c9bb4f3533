# SPDX-License-Identifier: Apache-2.0
"""Who dies while pages are owed: the guest goes on where it was released, and no page of it is lost."""

from pathlib import Path

from lab.setup import Plan

from .harness import expect, test
from .scene import Scene

MODULE_GIVEN, MODULE_OWING = 4, 8  # enum smig_state
HOLD_MS = 4000  # before the source serves a page; the assassin waits for one second


@test("the clone's process dies while pages are owed", 240, state=MODULE_OWING)
@test("the source's stop process dies while pages are owed", 240, state=MODULE_GIVEN)
def process_dies(logs: Path, state: int) -> None:
    with Scene(Plan(memory_mib=256), logs) as scene:
        number, target = scene.target()
        scene.arm_assassin(state)
        left = scene.here
        session = scene.move(number, target, "--mode", "postcopy", "--hold", f"source-owing:{HOLD_MS}")
        expect("owed:" in session.text, f"no page was owed:\n{session.text}")
        scene.unharmed("after somebody died while pages were owed")
        left.wait_status("shutdown", 20)
        scene.finish()


@test("pages owed again and again: A to B to C", 300)
def chain_of_owing(logs: Path) -> None:
    with Scene(Plan(vcpus=2), logs) as scene:
        for mode in ("hybrid", "postcopy"):
            number, target = scene.target()
            left = scene.here
            scene.move(number, target, "--mode", mode)
            scene.unharmed(f"on {target.name}")
            left.wait_status("shutdown", 20)
        scene.finish()
