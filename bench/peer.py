# SPDX-License-Identifier: Apache-2.0
"""The peer: QEMU's own migration of the same guest, over a link of the same rate, judged by the same clock outside.

The emulators talk over the namespace's loopback.  What goes to the twin's port is shaped like a guest's link, the
way back is not.  A link with delay is one between two namespaces instead, made of what a guest's link is made of: a relay
of bytes would answer the sender's TCP at once, and its window would never know of the way.  Service traffic does not
share it, unlike ours with one NIC, and nothing samples the source's registers: both are in QEMU's favour.  The total
time is what each side says of itself.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.errors import LabError
from lab.machine import Machine
from lab.setup import Plan, Setup
from lab.stage import SETTLE_S, WARM_S, Outcome, Trace
from lab.workload import Kind, Workload

PORT = 4444
PATIENCE_S = 60  # after its first pass; then a migration that does not converge is cancelled
POLL_S = 0.02
OWN = ("own_downtime_ms", "own_demand_requests")  # figures that only QEMU has, by its own word


@dataclass(frozen=True)
class Way:
    """Capabilities of QEMU's migration; `passes`: pages are owed after so many, None: never."""

    capabilities: tuple[str, ...] = ()
    passes: int | None = None


WAYS = {
    "qemu-precopy": Way(),
    "qemu-auto-converge": Way(("auto-converge",)),
    "qemu-postcopy": Way(("postcopy-ram",), 0),
    "qemu-precopy-postcopy": Way(("postcopy-ram",), 1),
}


def _enable(machine: Machine, capabilities: tuple[str, ...]) -> None:
    states = [{"capability": name, "state": True} for name in capabilities]
    machine.qmp.call("migrate-set-capabilities", capabilities=states)
    # the link is what limits it, not its own default
    machine.qmp.call("migrate-set-parameters", **{"max-bandwidth": 10**11})


class Loopback:
    """The emulators' connection over the namespace's loopback, shaped."""

    def __init__(self, setup: Setup):
        self._network = setup.network
        self._network.shape_loopback(PORT)

    def join(self, source: Machine, twin: Machine) -> None:
        """The migration begins."""
        twin.qmp.call("migrate-incoming", uri=f"tcp:127.0.0.1:{PORT}")
        source.qmp.call("migrate", uri=f"tcp:127.0.0.1:{PORT}")

    def sent_bytes(self) -> int:
        return self._network.loopback_bytes()


class Away:
    """The same over a link with delay; QEMU is given the two ends of a connection."""

    def __init__(self, setup: Setup):
        self._link = setup.network.peer_link()
        self.sent_bytes = self._link.sent_bytes

    def join(self, source: Machine, twin: Machine) -> None:
        """The migration begins."""
        for machine, end in zip((source, twin), self._link.connected()):
            machine.qmp.give("migration", end.fileno())
            end.close()
        twin.qmp.call("migrate-incoming", uri="fd:migration")
        source.qmp.call("migrate", uri="fd:migration")


def _migrate(source: Machine, twin: Machine, way: Way, between: Loopback | Away) -> dict[str, Any]:
    """Returns query-migrate's last answer once no page is left behind."""
    for machine in (source, twin):
        _enable(machine, way.capabilities)
    between.join(source, twin)
    deadline: float | None = None
    switched = way.passes is None
    while True:
        state = source.qmp.call("query-migrate")
        status = state.get("status")
        if status == "completed":
            break
        if status in ("failed", "cancelled"):
            raise LabError(f"QEMU's migration {status}: {state.get('error-desc', 'no reason given')}")
        passes = state["ram"]["dirty-sync-count"] if "ram" in state else 0  # 1 in the first
        if not switched and status == "active" and passes > way.passes:
            source.qmp.call("migrate-start-postcopy")
            switched = True
        if passes > 1 and deadline is None:
            deadline = time.monotonic() + PATIENCE_S
        if deadline and time.monotonic() > deadline:
            source.qmp.call("migrate_cancel")
            raise LabError(f"it does not converge: cancelled {PATIENCE_S} s after its first pass")
        time.sleep(POLL_S)
    twin.wait_status("running", 10)
    return state


def run(plan: Plan, name: str, kind: Kind, logs: Path) -> Outcome:
    """One migration; figures as those of a move, where QEMU has them."""
    outcome = Outcome({"verdict": "failed", "mode": name, "reason": None})
    try:
        with Setup(plan, logs) as setup:
            _run(setup, WAYS[name], kind, outcome)
    except (LabError, OSError) as error:
        outcome.reasons.append(str(error))
    outcome.figures["verdict"] = "moved" if outcome.moved else "failed"
    outcome.figures["reason"] = "; ".join(outcome.reasons) or None
    return outcome


def _run(setup: Setup, way: Way, kind: Kind, outcome: Outcome) -> None:
    link = setup.network.link
    between = Away(setup) if link and link.delay_us else Loopback(setup)
    source = setup.boot_source()
    workload = Workload(setup, kind)
    workload.start()
    twin = setup.incoming_twin()
    workload.before_move()
    time.sleep(WARM_S)
    bytes_before = between.sent_bytes()
    began_ns = time.monotonic_ns()
    state = _migrate(source, twin, way, between)
    bytes_sent = between.sent_bytes() - bytes_before
    workload.moved_to(twin)
    time.sleep(SETTLE_S)
    until_ns = time.monotonic_ns()
    workload.check()
    seen = workload.finish()
    assert workload.pinger
    start_ns, end_ns = workload.pinger.longest_gap(began_ns)
    outcome.trace = Trace(began_ns, until_ns, (start_ns, end_ns), workload.redis.answer_times())
    workload.shut_down()
    outcome.figures |= workload.served
    outcome.reasons += workload.reasons
    outcome.figures |= {
        "total_ms": state["total-time"],
        "bytes_sent": bytes_sent,
        "blackout_ms": (end_ns - start_ns) / 1e6,
        "udp_gap_ms": (end_ns - start_ns) / 1e6,
        "tcp_gap_ms": seen["client"]["longest_gap_ms"],
        "passes": state["ram"]["dirty-sync-count"],
        "pages_sent": state["ram"]["normal"],
        "own_downtime_ms": state.get("downtime"),
        "own_demand_requests": state["ram"].get("postcopy-requests"),
    }
