# SPDX-License-Identifier: Apache-2.0
"""What a Debian guest serves: a database under sysbench's OLTP load from within, and pages of its web server to a client
outside that keeps its connection.
"""

import http.client
import re
import statistics
import threading
import time
from typing import Any

from . import debian
from .errors import Timeout
from .machine import Machine
from .netns import Namespace

TABLE_ROWS = 2000
LOG = "/run/sysbench.log"
SYSBENCH = f"sysbench oltp_read_write --mysql-socket=/run/mysqld/mysqld.sock --mysql-user=root --table-size={TABLE_ROWS}"
LINE = re.compile(
    r"^\[ (?P<at>\d+)s \] thds: \d+ tps: (?P<tps>[\d.]+) .* reconn/s: (?P<reconnections>[\d.]+)$",
    re.MULTILINE,
)
HTTP_PORT = 80
PACE_S = 0.005
ANSWER_TIMEOUT_S = 30


class WebClient:
    """One HTTP connection that asks for the same page again and again, and looks at every byte."""

    def __init__(self, namespace: Namespace, address: str):
        self._connection = http.client.HTTPConnection(address, HTTP_PORT, timeout=ANSWER_TIMEOUT_S)
        with namespace.entered():
            self._connection.connect()
        # a connection that ends is a fault, not something to make anew
        self._connection.auto_open = 0
        self._page = debian.web_page()
        self.answered_ns: list[int] = []
        self.fault: str | None = None
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._ending.wait(PACE_S):
                self._connection.request("GET", f"/{debian.WEB_PAGE}")
                answer = self._connection.getresponse()
                if answer.status != 200 or answer.read() != self._page:
                    self.fault = f"the web server answered {answer.status}, or with another page"
                    return
                self.answered_ns.append(time.monotonic_ns())
        except (OSError, http.client.HTTPException) as error:
            self.fault = f"the web client's connection: {error!r}"

    def longest_gap_ms(self, since_ns: int) -> float:
        moments = [moment for moment in self.answered_ns if moment > since_ns]
        return max((after - before) / 1e6 for before, after in zip(moments, moments[1:]))

    def close(self) -> None:
        self._ending.set()
        self._thread.join(ANSWER_TIMEOUT_S + 1)
        self._connection.close()


FIGURES = ("web_answers", "web_gap_ms", "transactions_per_s", "transactions_lost")


class Services:
    """The load on both; `start` returns when both are under way.

    Of its FIGURES `transactions_per_s` is the usual rate before the move, and `transactions_lost` what from then on was
    done less than at that rate.
    """

    def __init__(self, namespace: Namespace, address: str):
        self._namespace, self._address = namespace, address
        self._web: WebClient
        self._marked_ns = 0
        self._marked_s = 0  # of sysbench's own time

    def start(self, machine: Machine) -> None:
        run = machine.commands.run
        run(f"mariadb -e 'create database sbtest' && {SYSBENCH} prepare", 120)
        run(f"{SYSBENCH} --threads=2 --time=0 --report-interval=1 run > {LOG} 2>&1 &")
        self._web = WebClient(self._namespace, self._address)
        self._wait_transactions(machine, 0)

    def close(self) -> None:
        if hasattr(self, "_web"):
            self._web.close()

    def _seconds(self, machine: Machine) -> list[dict[str, float]]:
        """What sysbench has said, a line a second."""
        said = machine.commands.run(f"cat {LOG}")
        return [{name: float(value) for name, value in line.groupdict().items()} for line in LINE.finditer(said)]

    def _wait_transactions(self, machine: Machine, after_s: float) -> None:
        deadline = time.monotonic() + ANSWER_TIMEOUT_S
        while not any(line["at"] > after_s + 1 and line["tps"] > 0 for line in self._seconds(machine)):
            if time.monotonic() > deadline:
                raise Timeout(f"the database has carried out nothing for {ANSWER_TIMEOUT_S} s")
            time.sleep(0.2)

    def mark(self, machine: Machine) -> None:
        """The guest is about to move."""
        seconds = self._seconds(machine)
        self._marked_s = int(seconds[-1]["at"])
        self._marked_ns = time.monotonic_ns()

    def check(self, machine: Machine) -> tuple[dict[str, Any], list[str]]:
        """Figures of the move, and what was harmed."""
        run = machine.commands.run
        answered = len(self._web.answered_ns)
        self._wait_transactions(machine, self._seconds(machine)[-1]["at"])
        reasons = [self._web.fault] if self._web.fault else []
        if len(self._web.answered_ns) == answered:
            reasons.append("the web server has answered nothing more")
        seconds = self._seconds(machine)
        for line in seconds:
            if line["reconnections"]:
                reasons.append(f"the database's client connected anew in second {line['at']:.0f}")
        # it ends of itself on any error but those that transactions get in each other's way with
        run(f"kill $(pidof sysbench) && ! grep FATAL {LOG}")
        damaged = [line for line in run("mariadb-check sbtest", 60).splitlines() if not line.endswith("OK")]
        reasons += [f"the database: {line}" for line in damaged]
        state = machine.commands.attempt("systemctl is-system-running")[1].strip()
        if state != "running":
            reasons.append(f"systemd says {state}: {machine.commands.run('systemctl --failed --no-legend --plain')}")
        run("logger -t lab it-has-moved; journalctl --sync; journalctl -q -t lab --grep it-has-moved")
        # the first second is a warm-up
        usual = statistics.median(line["tps"] for line in seconds[1:] if line["at"] <= self._marked_s)
        return {
            "web_answers": len(self._web.answered_ns),
            "web_gap_ms": self._web.longest_gap_ms(self._marked_ns),
            "transactions_per_s": usual,
            "transactions_lost": sum(usual - line["tps"] for line in seconds if line["at"] > self._marked_s),
        }, reasons

