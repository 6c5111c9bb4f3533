# SPDX-License-Identifier: Apache-2.0
"""A busy guest moves."""

from pathlib import Path

from lab import stage
from lab.setup import Plan
from lab.workload import Kind

from .harness import expect, test
from .scene import Scene


def _tell(logs: Path, name: str) -> stage.Tell:
    def tell(line: str) -> None:
        with open(logs / name, "a", encoding="utf-8") as log:
            log.write(line + "\n")

    return tell


@test("6.1, 1 vCPU, one NIC", 180, plan=Plan(kernel="6.1", vcpus=1))
@test("6.1, 2 vCPUs, two NICs", 180, plan=Plan(kernel="6.1", vcpus=2, nics=2))
@test("6.12, 1 vCPU, two NICs", 180, plan=Plan(kernel="6.12", vcpus=1, nics=2))
@test("6.12, 2 vCPUs, one NIC, NVMe disk", 180, plan=Plan(kernel="6.12", vcpus=2, disk="nvme"))
@test("6.1, 4 vCPUs, no disk, writer", 180, plan=Plan(kernel="6.1", vcpus=4, disk=None), kind="writer")
def busy_guest_moves(logs: Path, plan: Plan, kind: str = "redis") -> None:
    """All that the demo asks for."""
    outcome = stage.run(plan, "stop-copy", Kind(kind), logs, _tell(logs, "steps"), _tell(logs, "steps"))
    expect(outcome.moved, "\n".join(outcome.reasons))
    in_use = outcome.figures["pages_in_use"] - outcome.figures["pages_zero"]
    expect(
        outcome.figures["bytes_sent"] <= 1.1 * 4096 * in_use,
        f"{outcome.figures['bytes_sent']} bytes were sent for {in_use} pages in use and not zero",
    )


@test("A to B to C, and the source powers off each time", 240)
def chain(logs: Path) -> None:
    with Scene(Plan(vcpus=2), logs) as scene:
        for _ in range(2):
            number, target = scene.target()
            left = scene.here
            scene.move(number, target)
            scene.unharmed(f"on {target.name}")
            left.wait_status("shutdown", 20)
        scene.finish()


@test("an aged guest, less than 3 % of its memory free", 180)
def aged(logs: Path) -> None:
    with Scene(Plan(memory_mib=256, disk_mib=512), logs) as scene:
        # the kernel's own reserve, 4 % of so small a guest, goes down to what it is on a large one
        scene.run(
            "echo 2048 > /proc/sys/vm/min_free_kbytes; i=0; while free=$(awk '/MemTotal/ {all = $2} /MemFree/ {print int($2 * 1000 / all)}' /proc/meminfo); "
            "[ $free -gt 25 ] && [ $i -lt 60 ]; do i=$((i + 1)); "
            "dd if=/dev/urandom bs=1M count=4 2>/dev/null >> /disk/old; done; sync",
            120,
        )
        words = dict(line.split(":") for line in scene.run("cat /proc/meminfo").splitlines())
        free = int(words["MemFree"].split()[0]) / int(words["MemTotal"].split()[0])
        expect(free < 0.03, f"{free:.1%} of the guest's memory is free: this is no aged guest")
        number, target = scene.target()
        before = scene.run("md5sum < /disk/old", 120)
        scene.move(number, target)
        expect(scene.run("md5sum < /disk/old", 120) == before, "the old file has changed")
        scene.finish()
