# SPDX-License-Identifier: Apache-2.0
"""A busy guest moves."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab import stage
from lab.machine import Machine
from lab.setup import Plan, Setup
from lab.workload import Kind

from .harness import expect, test
from .scene import Scene


def _tell(logs: Path, name: str) -> stage.Tell:
    def tell(line: str) -> None:
        with open(logs / name, "a", encoding="utf-8") as log:
            log.write(line + "\n")

    return tell


def _moved(
    logs: Path,
    plan: Plan,
    mode: str,
    kind: Kind,
    *options: str,
    beside: Callable[[Setup], Any] | None = None,
) -> stage.Outcome:
    tell = _tell(logs, "steps")
    outcome = stage.run(plan, mode, kind, logs, tell, tell, *options, beside=beside)
    expect(outcome.moved, "\n".join(outcome.reasons))
    return outcome


@test("6.1, 1 vCPU, Debian with systemd, database and web server, auto", 400, plan=Plan(memory_mib=1024, guest="debian"))
def whole_system_moves(logs: Path, plan: Plan) -> None:
    """Its services run on, and systemd finds nothing amiss."""
    _moved(logs, plan, "auto", Kind("services"))


@test("6.1, 1 vCPU, one NIC, stop-copy", 180, plan=Plan(kernel="6.1", vcpus=1))
@test("6.12, 1 vCPU, two NICs, stop-copy", 180, plan=Plan(kernel="6.12", vcpus=1, nics=2))
def stopped_guest_moves(logs: Path, plan: Plan) -> None:
    """All that the demo asks for, and no byte is sent in vain."""
    outcome = _moved(logs, plan, "stop-copy", Kind())
    in_use = outcome.figures["pages_in_use"] - outcome.figures["pages_zero"]
    expect(
        outcome.figures["bytes_sent"] <= 1.1 * 4096 * in_use,
        f"{outcome.figures['bytes_sent']} bytes were sent for {in_use} pages in use and not zero",
    )


@test("a stop of more than two minutes", 600, plan=Plan(kernel="6.1", vcpus=1, link="5mbit"))
def guest_moves_that_stood_still_for_long(logs: Path, plan: Plan) -> None:
    """Nobody takes the time that the guest did not see for a process that hangs."""
    outcome = _moved(logs, plan, "stop-copy", Kind())
    blackout_ms = outcome.figures["blackout_ms"]
    expect(blackout_ms > 130_000, f"the guest stood still for {blackout_ms} ms only")


class _Clock:
    """The guest's clock is the one that it was booted with, on the source and on the target."""

    def __init__(self, setup: Setup):
        self._setup = setup
        self._wanted = "hpet" if setup.plan.append else "tsc"
        self._expect_on(setup.machines[0])

    def _expect_on(self, machine: Machine) -> None:
        if self._setup.built.accel.startswith("tcg"):  # else it is the machine's choice
            now = machine.commands.run("cat /sys/devices/system/clocksource/clocksource0/current_clocksource").strip()
            expect(now == self._wanted, f"the guest's clock on {machine.name} is {now}")

    def close(self) -> None:
        self._expect_on(self._setup.machines[1])


@test("6.1, 1 vCPU, one NIC, precopy", 180, plan=Plan(kernel="6.1", vcpus=1))
@test("6.1, 2 vCPUs, two NICs, precopy", 180, plan=Plan(kernel="6.1", vcpus=2, nics=2))
@test("6.12, 2 vCPUs, HPET, precopy", 180, plan=Plan(kernel="6.12", vcpus=2, append=("clocksource=hpet",)))
@test("6.12, 1 vCPU, 200 Mbit/s, precopy", 180, plan=Plan(kernel="6.12", vcpus=1, link="200mbit"))
@test("6.12, 2 vCPUs, one NIC, NVMe disk, precopy", 180, plan=Plan(kernel="6.12", vcpus=2, disk="nvme"))
@test("6.1, 4 vCPUs, no disk, writer, precopy", 180, plan=Plan(kernel="6.1", vcpus=4, disk=None), kind="writer")
def running_guest_moves(logs: Path, plan: Plan, kind: str = "redis") -> None:
    """All that the demo asks for; whatever changed unnoticed fails it."""
    outcome = _moved(logs, plan, "precopy", Kind(kind), "--verify", beside=_Clock)
    figures = outcome.figures
    expect(figures["passes"] >= 1, "there was no pass")
    expect(figures["verified_pages"] > figures["pages_in_use"] / 2, "the stop verified next to nothing")
    expect(
        figures["stop_image_pages"] < figures["pages_in_use"] / 4,
        f"the stop sent {figures['stop_image_pages']} of {figures['pages_in_use']} pages in use",
    )


def _for_ever(setup: Setup, name: str, command: str) -> None:
    """Does it again and again in the guest; its process is in /run/`name`.pid."""
    setup.machines[0].commands.run(
        f"echo 'while :; do {command}; done' > /run/{name}; sh /run/{name} >/dev/null 2>&1 & echo $! > /run/{name}.pid"
    )


class _DiskWriter:
    """A process that writes the disk all the time, and a kernel that writes back at once: the stop comes amid that, and must end.

    What it writes is not read back; Redis' log on the same disk is.
    """

    def __init__(self, setup: Setup):
        self._setup = setup
        setup.machines[0].commands.run(
            "echo 65536 > /proc/sys/vm/dirty_background_bytes; "
            "echo 5 > /proc/sys/vm/dirty_writeback_centisecs; echo 10 > /proc/sys/vm/dirty_expire_centisecs"
        )
        _for_ever(setup, "busy", "dd if=/dev/zero of=/disk/busy bs=64k count=800 conv=notrunc")

    def close(self) -> None:
        # wherever the guest is now
        self._setup.machines[1].commands.run(
            "kill $(cat /run/busy.pid); while pidof dd >/dev/null; do sleep 0.1; done; rm /disk/busy"
        )


@test("6.12, 2 vCPUs, NVMe disk that is written, precopy", 240, plan=Plan(kernel="6.12", vcpus=2, disk="nvme"))
@test("6.12, 1 vCPU, SCSI disk that is written, precopy", 240, plan=Plan(kernel="6.12", vcpus=1, disk="virtio-scsi"))
@test("6.1, 2 vCPUs, ATA disk that is written, precopy", 240, plan=Plan(kernel="6.1", vcpus=2, disk="ata"))
def guest_that_writes_its_disk_moves(logs: Path, plan: Plan) -> None:
    figures = _moved(logs, plan, "precopy", Kind(), "--verify", beside=_DiskWriter).figures
    expect(figures["passes"] >= 1, "there was no pass")


@test("6.1, 1 vCPU, one NIC, redis, hybrid", 240, mode="hybrid", plan=Plan(kernel="6.1", vcpus=1))
@test("6.12, 2 vCPUs, one NIC, writer, hybrid-ns", 240, mode="hybrid-ns", plan=Plan(kernel="6.12", vcpus=2), kind="writer")
@test("6.1, 4 vCPUs, one NIC, writer, postcopy", 240, mode="postcopy", plan=Plan(kernel="6.1", vcpus=4), kind="writer")
@test("6.12, 1 vCPU, two NICs, redis, postcopy", 240, mode="postcopy", plan=Plan(kernel="6.12", vcpus=1, nics=2))
@test("6.1, 2 vCPUs, 200 Mbit/s, writer, postcopy-i", 240, mode="postcopy-i", plan=Plan(kernel="6.1", vcpus=2, link="200mbit"), kind="writer")  # fmt: skip
def owing_guest_moves(logs: Path, mode: str, plan: Plan, kind: str = "redis") -> None:
    """All that the demo asks for, while pages are fetched; each of them travels as often as the mode allows."""
    figures = _moved(logs, plan, mode, Kind(kind)).figures
    expect(figures["owed_pages"] > 0, "no page was owed")
    expect(figures["passes"] == 1, f"there were {figures['passes']} passes")
    expect(figures["stop_reason"] == "owed", f"the stop was for {figures['stop_reason']}")
    came = figures["demand_pages"] + figures["speculated"] + figures["pushed"] + figures["freed_owed_pages"]
    expect(came >= figures["owed_pages"], f"of {figures['owed_pages']} owed pages {came} are accounted for")
    expect(figures["owed_reconnections"] == 0, f"{figures['owed_reconnections']} connections were lost")
    if mode in ("hybrid-ns", "postcopy", "postcopy-i"):
        expect(figures["speculated"] == 0, f"{figures['speculated']} pages were speculated in a mode that does not")


TWINS_MIB = 32
PATIENCE_S = 60


class _BusyMemory:
    """Swap in compressed memory that is used; compaction, same-page merging and khugepaged all the time."""

    def __init__(self, setup: Setup):
        self._setup = setup
        setup.machines[0].commands.run(
            "modprobe -q lzo_rle; modprobe zram num_devices=1 && echo 128M > /sys/block/zram0/disksize && "
            "mkswap /dev/zram0 >/dev/null && swapon /dev/zram0 && "
            "mkdir -p /mnt && mount -t tmpfs -o size=80% memory /mnt && dd if=/dev/zero bs=1M count=4 2>/dev/null | tr '\\0' x > /run/same && "
            "for i in $(seq 6); do cat /run/same; done > /mnt/ballast && "
            "echo 100 > /proc/sys/vm/swappiness",
            60,
        )
        self.swap_out()
        _for_ever(setup, "compact", "echo 1 > /proc/sys/vm/compact_memory; sleep 0.2")
        setup.machines[0].commands.run(
            # a guest of this size has large pages off
            "cd /sys/kernel/mm; echo madvise > transparent_hugepage/enabled; echo madvise > transparent_hugepage/defrag; "
            "echo 1000 > ksm/pages_to_scan; echo 20 > ksm/sleep_millisecs; echo 1 > ksm/run; "
            "cd transparent_hugepage/khugepaged; echo 1 > defrag; echo 100 > scan_sleep_millisecs; echo 100 > alloc_sleep_millisecs; echo 4096 > pages_to_scan; "
            f"twins {TWINS_MIB} /run/twins >/run/twins.log 2>&1 &"
        )
        self._expect_rearranged(setup.machines[0])

    def swap_out(self) -> None:
        """Takes more memory than there is, of what packs well, and gives it back."""
        run = self._setup.machines[0].commands.run
        run(
            "free=$(awk '/MemAvailable/ {print int($2 / 1024)}' /proc/meminfo); "
            "for i in $(seq $((free / 4 + 4))); do cat /run/same; done > /mnt/more; rm /mnt/more",
            60,
        )
        used = run("awk 'NR == 2 {print $4}' /proc/swaps")
        expect(int(used) > 1024, f"only {used} KiB were swapped out")

    @staticmethod
    def _expect_rearranged(machine: Machine) -> None:
        """All three do their work, now."""
        # what is merged is not any more, and merging begins anew
        machine.commands.run("echo 2 > /sys/kernel/mm/ksm/run && echo 1 > /sys/kernel/mm/ksm/run", 60)
        counters = {  # what counts, and what it is to exceed
            "compaction": ("awk '/^pgmigrate_success/ {print $2}' /proc/vmstat", "$was"),
            "khugepaged": ("cat /sys/kernel/mm/transparent_hugepage/khugepaged/pages_collapsed", "$was"),
            "merging": ("cat /sys/kernel/mm/ksm/pages_sharing", "500"),
        }
        for what, (counter, least) in counters.items():
            machine.commands.run(
                f"was=$({counter}) || exit 1; until=$(($(date +%s) + {PATIENCE_S})); "
                f"while [ $({counter}) -le {least} ]; do [ $(date +%s) -gt $until ] && "
                f"{{ echo {what} has done next to nothing; grep thp_collapse /proc/vmstat; grep MemFree /proc/meminfo; exit 1; }}; sleep 0.1; done",
                PATIENCE_S + 30,
            )

    def close(self) -> None:
        here = self._setup.machines[1]
        self._expect_rearranged(here)
        said = here.commands.run(
            "kill -USR1 $(pidof twins) || { cat /run/twins.log; exit 1; }; "
            "for i in $(seq 300); do [ -e /run/twins ] && break; sleep 0.1; done; cat /run/twins",
            60,
        )
        pages, wrong = map(int, said.split())
        expect(not wrong, f"{wrong} damages among {pages} merged or large pages")
        here.commands.run("kill $(cat /run/compact.pid)")


@test("6.1, 2 vCPUs, busy memory, writer, hybrid", 400, mode="hybrid", plan=Plan(kernel="6.1", vcpus=2))
@test("6.12, 1 vCPU, busy memory, writer, postcopy", 400, mode="postcopy", plan=Plan(kernel="6.12", vcpus=1))
def guest_with_busy_memory_moves(logs: Path, mode: str, plan: Plan) -> None:
    figures = _moved(logs, plan, mode, Kind("writer", 64, 20), beside=_BusyMemory).figures
    expect(figures["owed_pages"] > 1000, f"only {figures['owed_pages']} pages were owed")


@test("6.1, 2 vCPUs, writer faster than the link, auto", 300)
def auto_owes(logs: Path) -> None:
    plan = Plan(kernel="6.1", vcpus=2, link="200mbit", disk_mib=512)
    figures = _moved(logs, plan, "auto", Kind("writer", 64, 60), "--explain").figures
    expect(figures["owed_pages"] > 0, f"nothing was owed: {figures['explanation']}")
    expect(figures["passes"] <= 3, f"{figures['passes']} passes that did not converge")


# While passes run only the landing environment's room may be held: there is none for the stop's shadow as well.
@test("6.12, 2 vCPUs, 272 of 512 MiB being written, hybrid", 240)
def full_guest_moves(logs: Path) -> None:
    plan = Plan(kernel="6.12", vcpus=2)
    figures = _moved(logs, plan, "hybrid", Kind("writer", 272, 1000)).figures
    expect(figures["owed_pages"] > 10_000, f"only {figures['owed_pages']} pages were owed")


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


def _free_share(scene: Scene) -> float:
    words = dict(line.split(":") for line in scene.run("cat /proc/meminfo").splitlines())
    return int(words["MemFree"].split()[0]) / int(words["MemTotal"].split()[0])


@test("an aged guest, less than 3 % of its memory free", 180)
def aged(logs: Path) -> None:
    with Scene(Plan(disk_mib=1024), logs) as scene:
        # A small guest's own reserve, which huge pages raise to 4 %, goes down to what it is on a large one.
        scene.run(
            "echo 2048 > /proc/sys/vm/min_free_kbytes; "
            "dd if=/dev/urandom of=/disk/random bs=1M count=8 2>/dev/null; "
            "for i in $(seq 60); do cat /disk/random > /disk/old$i; done; sync; cat /disk/old* > /dev/null",
            120,
        )
        # Reclaim frees some at a time: what is free goes up and down with the files that are read.
        for file in range(1, 61):
            if (free := _free_share(scene)) < 0.03:
                break
            scene.run(f"cat /disk/old{file} > /dev/null")
        expect(free < 0.03, f"{free:.1%} of the guest's memory is free: this is no aged guest")
        number, target = scene.target()
        scene.move(number, target)
        wrong = scene.run("for f in /disk/old*5; do cmp -s /disk/random $f || echo $f; done", 120)
        expect(not wrong, f"old files have changed: {wrong}")
        scene.finish()
