# SPDX-License-Identifier: Apache-2.0
"""What a Debian guest serves: a database under sysbench's OLTP load from within, and pages of its web server to a client
outside that keeps its connection.
"""

import http.client
import re
import socket
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
RECONNECTIONS = re.compile(r"reconn/s: ([\d.]+)")
USUAL_S = 3.0  # for so long the usual rate is watched
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

    def close(self) -> None:
        self._ending.set()
        try:
            self._connection.sock.shutdown(socket.SHUT_RDWR)  # whoever waits for an answer waits no more
        except (AttributeError, OSError):
            pass  # it has ended already
        self._thread.join(5)
        self._connection.close()


FIGURES = ("web_answers", "web_gap_ms", "transactions_per_s", "transactions_lost")


class Services:
    """The load on both; `start` returns when both are under way.

    FIGURES are of the time between `mark` and `settled`, by the clock outside: answers of the web server and the longest wait for one;
    the database's commits a second in the three seconds before, and how many fewer there were than at that rate.
    """

    def __init__(self, namespace: Namespace, address: str):
        self._namespace, self._address = namespace, address
        self._web: WebClient | None = None
        self._marked: tuple[int, int] = (0, 0)
        self._per_s = 0.0
        self.figures: dict[str, Any] = {}

    def start(self, machine: Machine) -> None:
        run = machine.commands.run
        run(f"mariadb -e 'create database sbtest' && {SYSBENCH} prepare", 120)
        run(f"{SYSBENCH} --threads=2 --time=0 --report-interval=1 run > {LOG} 2>&1 &")
        self._web = WebClient(self._namespace, self._address)
        self._wait_commits(machine)

    def close(self) -> None:
        if self._web:
            self._web.close()

    @staticmethod
    def _commits(machine: Machine) -> tuple[int, int]:
        """(monotonic ns, transactions that the database has committed)."""
        before = time.monotonic_ns()
        said = machine.commands.run("mariadb -NBe \"show global status like 'Com_commit'\"")
        return (before + time.monotonic_ns()) // 2, int(said.split()[1])

    def _wait_commits(self, machine: Machine) -> None:
        first = self._commits(machine)[1]
        deadline = time.monotonic() + ANSWER_TIMEOUT_S
        while self._commits(machine)[1] < first + 10:
            if time.monotonic() > deadline:
                said = machine.commands.attempt(f"tail -3 {LOG}")[1].strip()
                raise Timeout(f"the database has committed next to nothing for {ANSWER_TIMEOUT_S} s; sysbench says: {said}")
            time.sleep(0.2)

    def mark(self, machine: Machine) -> None:
        """The guest is about to move."""
        first_ns, first = self._commits(machine)
        time.sleep(USUAL_S)
        self._marked = self._commits(machine)
        self._per_s = (self._marked[1] - first) / ((self._marked[0] - first_ns) / 1e9)

    def settled(self, machine: Machine) -> None:
        """The guest has moved; before anything disturbs it."""
        assert self._web
        moment_ns, commits = self._commits(machine)
        marked_ns, before = self._marked
        answers = [at for at in self._web.answered_ns if marked_ns < at <= moment_ns]
        moments = [marked_ns, *answers, moment_ns]
        self.figures = {
            "web_answers": len(answers),
            "web_gap_ms": max((after - earlier) / 1e6 for earlier, after in zip(moments, moments[1:])),
            "transactions_per_s": self._per_s,
            "transactions_lost": self._per_s * (moment_ns - marked_ns) / 1e9 - (commits - before),
        }

    def check(self, machine: Machine) -> list[str]:
        """What was harmed."""
        assert self._web
        run = machine.commands.run
        answered = len(self._web.answered_ns)
        self._wait_commits(machine)
        reasons = [self._web.fault] if self._web.fault else []
        if len(self._web.answered_ns) == answered:
            reasons.append("the web server has answered nothing more")
        # any error ends it but those that transactions get in each other's way with
        run(f"kill $(pidof sysbench) && ! grep FATAL {LOG}")
        if any(float(count) for count in RECONNECTIONS.findall(run(f"cat {LOG}"))):
            reasons.append("the database's client had to connect anew")
        damaged = [line for line in run("mariadb-check sbtest", 60).splitlines() if not line.endswith("OK")]
        reasons += [f"the database: {line}" for line in damaged]
        state = machine.commands.attempt("systemctl is-system-running")[1].strip()
        if state != "running":
            reasons.append(f"systemd says {state}: {run('systemctl --failed --no-legend --plain')}")
        run("logger -t lab it-has-moved; journalctl --sync; journalctl -q -t lab --grep it-has-moved")
        return reasons
