# SPDX-License-Identifier: Apache-2.0
"""A wrong target is refused by name, and the guest does not notice."""

from dataclasses import replace
from pathlib import Path

from lab.machine import TCG_CPU
from lab.setup import Plan, Setup, prepare

from .harness import test
from .scene import Scene


@test("wrong targets are refused by name", 300)
def wrong_targets(logs: Path) -> None:
    other = Plan(kernel="6.12")
    with Setup(other, logs / "other") as foreign:
        foreign.boot_source()
        foreign_landing = foreign.landing_image().read_bytes()
    (logs / "foreign-landing").write_bytes(foreign_landing)
    with Scene(Plan(), logs) as scene:
        setup = scene.setup
        wrong = (
            ({"kernel": prepare(other.kernel).kernel, "landing": logs / "foreign-landing"}, ("kernel",)),
            ({"shape": replace(setup.shape, memory_mib=448)}, ("memory",)),
            ({"shape": replace(setup.shape, memory_mib=768)}, ("memory ends",)),
            ({"shape": replace(setup.shape, cpu=f"{TCG_CPU},-avx2")}, ("avx2",)),
            ({"shape": replace(setup.shape, vcpus=2)}, ("cpu",)),
            ({"without_disk": True}, ("00:06.0",)),
            ({"disk": setup.other_disk()}, ("disk",)),
        )
        for options, names in wrong:
            number, target = scene.target(**options)
            scene.refused(number, *names)
            scene.drop(target)
        scene.unharmed("after all refusals")
        number, target = scene.target()
        scene.move(number, target)
        scene.finish()
