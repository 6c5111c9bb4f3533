# SPDX-License-Identifier: Apache-2.0
"""What the guest is busy with, and how the outside knows that nothing of it was harmed.

Every workload has Redis and one client connection that checks each answer; `redis` gives it a large data set
and a question a millisecond, the others a small one.  `writer`, `reader` and `mix` add a working set of random
pages that checks itself (guest/pages.cpp).  With a shared disk Redis logs its writes there, and a file is
left there half in the page cache, half on the disk.  `services` is a Debian guest's: a database and a web server at work.
"""

from dataclasses import dataclass
from typing import Any

from . import debian
from .errors import LabError
from .machine import Machine
from .network import FOLLOW
from .observers import Pinger, RedisClient
from .services import Services
from .setup import Setup

KINDS = ("redis", "idle", "writer", "reader", "mix", "aged", "walk", "services")
PATTERNS = ("random", "sequential", "hot")
WALKS = ("array", "arrays", "file", "files", "strides")
VALUE_BYTES = 4096
SMALL_KEYS = 256
FILL_TIMEOUT_S = 240
POWER_OFF_TIMEOUT_S = 120
FILE = "/disk/file"
FILE_MIB = 4
PF_KTHREAD = 0x00200000
PF_EXITING = 0x00000004


@dataclass(frozen=True)
class Kind:
    """`working_set_mib`: Redis' values or the pages; `rate_mb`: MB/s of pages that are touched.

    A mix checks every page that it touches and rewrites `write_percent` of them, in the order of `pattern`.
    An aged guest has touched and freed its working set, and half as much is in the cache of a clean file.
    A walk goes through its working set once, after the switch, one of WALKS (guest/walker.cpp).
    """

    name: str = "redis"
    working_set_mib: int = 32
    rate_mb: float = 10
    write_percent: int = 50  # of a mix; a writer's is 100, a reader's 5
    pattern: str = ""  # of pages or of a walk; empty: the first

    @property
    def guest(self) -> str:
        """The guest that it needs, or does with."""
        return "debian" if self.name == "services" else "small"

    @property
    def page_writes(self) -> int | None:
        """Percent of the touched pages that are rewritten; None: this workload has no pages."""
        return {"writer": 100, "reader": 5, "mix": self.write_percent}.get(self.name)


def services(machine: Machine) -> dict[int, str]:
    """The main processes of the services that a whole system always has, by pid: the service's name."""
    said = machine.commands.run(f"systemctl show --property=Id,MainPID {' '.join(debian.SERVICES)}")
    found = {}
    for stanza in said.strip().split("\n\n"):
        fields = dict(line.split("=", 1) for line in stanza.splitlines())
        if fields["MainPID"] == "0":
            raise LabError(f"{fields['Id']} does not run")
        found[int(fields["MainPID"])] = fields["Id"]
    return found


def processes(machine: Machine) -> dict[int, str]:
    """User processes of the guest by pid: name and start time; not those that carry out our commands."""
    found: dict[int, tuple[str, int]] = {}
    for line in machine.commands.run("cat /proc/[0-9]*/stat 2>/dev/null; true").splitlines():
        head, _, tail = line.rpartition(") ")
        if not tail:
            continue
        pid, _, name = head.partition(" (")
        fields = tail.split()
        if int(fields[6]) & (PF_KTHREAD | PF_EXITING) or fields[0] == "Z":
            continue
        found[int(pid)] = (f"{name}, started at {fields[19]}", int(fields[1]))
    carrier = {pid for pid, (name, _) in found.items() if name.startswith("commands,")}
    inside = set(carrier)
    while True:
        more = {pid for pid, (_, parent) in found.items() if parent in inside} - inside
        if not more:
            break
        inside |= more
    return {pid: name for pid, (name, _) in found.items() if pid not in inside or pid in carrier}


class Workload:
    """Lives in the guest of `setup` and beside it; `start` returns when everything is filled."""

    def __init__(self, setup: Setup, kind: Kind):
        if kind.name not in KINDS:
            raise LabError(f"no workload {kind.name}; there are {', '.join(KINDS)}")
        self.setup, self.kind = setup, kind
        self.machine = setup.source  # where the guest is now
        self.redis: RedisClient
        self.pinger: Pinger | None = None
        self.reasons: list[str] = []  # what was found wrong
        self._file_sum = ""
        # what must live on: a whole system's other processes come and go
        self._living = services if setup.plan.guest == "debian" else processes
        self._processes: dict[int, str] = {}
        self._services = setup.own(Services(setup.namespace, FOLLOW)) if kind.name == "services" else None
        self._pages = 0
        self.walk: dict[str, Any] = {}  # what a walk came to

    def start(self) -> None:
        run = self.machine.commands.run
        log = (
            "--appendonly yes --auto-aof-rewrite-percentage 0 --dir /disk/redis"
            if self.setup.disk
            else "--dir /tmp"
        )
        if self.setup.disk:
            run("mkdir -p /disk/redis")
        listens = "grep -q ':18EB 0*:0000 0A' /proc/net/tcp"  # 18EB: port 6379, 0A: listening
        run(
            f"redis-server --bind {FOLLOW} --port 6379 --protected-mode no --save '' {log} "
            f">/run/redis.log 2>&1 & for i in $(seq 100); do {listens} && exit 0; sleep 0.1; done; "
            "cat /run/redis.log; exit 1"
        )
        big = self.kind.name == "redis"
        keys = self.kind.working_set_mib * (1 << 20) // VALUE_BYTES if big else SMALL_KEYS
        self.redis = self.setup.own(
            RedisClient(
                self.setup.namespace,
                FOLLOW,
                self.setup.logs / "redis.csv",
                keys,
                VALUE_BYTES,
                1000 if big else 5000,
            )
        )
        self.redis.wait_filled(FILL_TIMEOUT_S)
        if self.kind.name == "walk":
            way = self.kind.pattern or WALKS[0]
            run(f"walker {self.kind.working_set_mib} {way} /dev/lab.verdict >/run/walker.log 2>&1 &")
            self.machine.verdicts.wait(0, FILL_TIMEOUT_S, program="walker", event="filled")
        if self.kind.page_writes is not None:
            self._fill_pages(self.kind.rate_mb, self.kind.page_writes)
            self._pages = 1
        if self.setup.disk:
            # the log of the filling is on the disk now; its cache is not what this workload is about
            run("sync; echo 1 > /proc/sys/vm/drop_caches", 60)
            self.setup.source.commands.run(
                f"dd if=/dev/urandom of={FILE} bs=1M count={FILE_MIB // 2} 2>/dev/null; sync", 60
            )
        if self.kind.name == "aged":
            self._age()
        if self._services:
            self._services.start(self.machine)

    def _fill_pages(self, rate_mb: float, write_percent: int) -> None:
        self.machine.commands.run(
            f"pages {self.kind.working_set_mib} {rate_mb} {write_percent} {self.kind.pattern or PATTERNS[0]} /dev/lab.verdict "
            ">/run/pages.log 2>&1 &"
        )
        self.machine.verdicts.wait(0, FILL_TIMEOUT_S, program="pages", event="filled")

    def _age(self) -> None:
        """Memory that was used and is free again, and clean files in the page cache."""
        self._fill_pages(1, 0)
        cached_mib = self.kind.working_set_mib // 2
        self.machine.commands.run(
            f"kill $(pidof pages); dd if=/dev/urandom of=/disk/aged bs=1M count={cached_mib} 2>&1 && sync",
            FILL_TIMEOUT_S,
        )

    def before_move(self) -> None:
        """Takes down what must be the same afterwards, and starts to watch."""
        run = self.machine.commands.run
        if self.setup.disk:
            run(
                f"dd if=/dev/urandom of={FILE} bs=1M count={FILE_MIB // 2} seek={FILE_MIB // 2} 2>/dev/null",
                60,
            )
            self._file_sum = run(f"md5sum < {FILE}", 60)
        self._processes = self._living(self.machine)
        if self.pinger is None:
            self.pinger = self.setup.own(
                Pinger(self.setup.namespace, FOLLOW, 7, self.setup.logs / "pinger.csv")
            )
        self.redis.mark()
        if self._services:
            self._services.mark(self.machine)

    def moved_to(self, machine: Machine) -> None:
        self.setup.arrived(self.machine, machine)
        self.machine = machine

    def check(self) -> None:
        """Same processes, same connection, same file; LabError or self.reasons say what is not."""
        if self._services:
            self._services.settled(self.machine)
        self.redis.wait_answers(20, 30)
        now = self._living(self.machine)
        for pid, name in self._processes.items():
            if now.get(pid) != name:
                self.reasons.append(f"process {pid} ({name}) is gone")
        if self._file_sum:
            run = self.machine.commands.run
            cached = run(f"md5sum < {FILE}", 60)
            run("sync; echo 3 > /proc/sys/vm/drop_caches", 60)
            if cached != self._file_sum or run(f"md5sum < {FILE}", 60) != self._file_sum:
                self.reasons.append(f"{FILE} on the shared disk has changed")
        if self._services:
            self.reasons += self._services.check(self.machine)
        if self.kind.name == "walk":
            self.walk = self.machine.verdicts.wait(0, 60, program="walker", event="walked")
            if self.walk["wrong"]:
                self.reasons.append(f"{self.walk['wrong']} of the {self.walk['pages']} pages walked are damaged")
        if self._pages:
            verdicts = self.machine.verdicts
            seen = len(verdicts.lines)
            self.machine.commands.run("kill -USR1 $(pidof pages)")
            line = verdicts.wait(seen, 60, program="pages", event="all-checked")
            if line["wrong"]:
                self.reasons.append(
                    f"{line['wrong']} of {line['pages']} pages of the working set are damaged"
                )

    @property
    def served(self) -> dict[str, Any]:
        """What its services came to, after `check`."""
        return self._services.figures if self._services else {}

    def finish(self) -> dict[str, Any]:
        """Reads back every key and stops watching; figures of the client and the pinger."""
        client = self.redis.finish()
        if client["wrong"]:
            self.reasons.append(f"{client['wrong']} answers of Redis were wrong")
        if client["lost"]:
            self.reasons.append(f"{client['lost']} acknowledged writes are lost")
        pings = self.pinger.finish() if self.pinger else {}
        if self.pinger and not pings["answers"]:
            self.reasons.append("no datagram was ever answered")
        for line in self.machine.console().splitlines():
            if any(
                mark in line
                for mark in ("BUG:", "Oops", "WARNING:", "Call Trace", "rcu: INFO", "Kernel panic")
            ):
                self.reasons.append(f"the guest's kernel says: {line.strip()}")
                break
        return {"client": client, "pings": pings}

    def shut_down(self) -> None:
        """Ends the guest as an administrator would and checks the shared disk's filesystem from outside."""
        if not self.setup.disk:
            return
        if self.setup.plan.guest == "debian":
            self.machine.commands.run("(sleep 1; systemctl poweroff) >/dev/null 2>&1 &")
            self.machine.wait_status("shutdown", POWER_OFF_TIMEOUT_S)
        else:
            self.machine.commands.run(
                "kill $(pidof redis-server); for i in $(seq 100); do pidof redis-server >/dev/null "
                "|| break; sleep 0.1; done; umount /disk",
                60,
            )
        check = self.setup.namespace.run
        self.machine.qmp.call("quit")
        self.machine.process.wait(10)
        try:
            check("e2fsck", "-fn", str(self.setup.disk.file))
        except LabError as error:
            self.reasons.append(f"the shared disk's filesystem is damaged: {error}")
