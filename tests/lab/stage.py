# SPDX-License-Identifier: Apache-2.0
"""One move, staged from nothing: boot, fill, watch, move, judge."""

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable

from . import throughput
from .errors import LabError, Timeout
from .frozen import FrozenWatch
from .observers import TapWatch
from .setup import Plan, Setup
from .workload import Kind, Workload

MODES = ("precopy", "stop-copy", "hybrid", "hybrid-ns", "postcopy", "postcopy-i", "auto")
REPORT = "/run/move.json"
MOVE_TIMEOUT_S = 300
WARM_S = 2.0  # watched before the move
SETTLE_S = 3.0  # and after it
MEASURED = ("udp_gap_ms", "tcp_gap_ms", "blackout_ms", "full_downtime_ms", "lost_work_ms", "bytes_sent")
FROM_REPORT = (
    "total_ms",
    "pages_in_use",
    "pages_zero",
    "pages_sent",
    "stop_image_pages",
    "stop_image_by_class",
    "stop_phases_ms",
    "passes",
    "pass_ms",
    "pass_read_ms",
    "pass_payload_bytes",
    "stop_payload_bytes",
    "stop_reason",
    "missed_pages",
    "verified_pages",
    "pages_sent_twice",
    "owed_pages",
    "owe_ms",
    "hot_pages",
    "owed_phase_ms",
    "demand_fetches",
    "demand_pages",
    "touched_owed_pages",
    "speculated",
    "speculated_used",
    "pushed",
    "pushed_used",
    "freed_owed_pages",
    "arrived_again",
    "owed_payload_bytes",
    "owed_reconnections",
    "speculation",
    "push_order",
    "owed_mean_run",
    "fault_wait_ms",
    "fault_phases_ms",
    "explanation",
)

Tell = Callable[[str], None]


def parse_mode(text: str) -> tuple[str, tuple[str, ...]]:
    """`hybrid:max-passes=1:speculate=ppm+file-single` as the mode and more options of `selfmigrate to`.

    A plus sign stands for a comma, which separates modes.
    """
    mode, *more = text.split(":")
    if mode not in MODES:
        raise LabError(f"no mode {mode!r}; there is {', '.join(MODES)}")
    options: list[str] = []
    for option in more:
        name, given, value = option.partition("=")
        options += [f"--{name}", value.replace("+", ",")] if given else [f"--{name}"]
    return mode, tuple(options)


@dataclass
class Trace:
    """What the outside saw, monotonic ns: the command given, the longest gap, Redis' answers.

    Until `until_ns` nobody disturbed the guest; then it was checked.
    """

    began_ns: int
    until_ns: int
    gap_ns: tuple[int, int]
    answers_ns: list[int]


@dataclass
class Outcome:
    """What became of one move; `figures` is one object of the demo's JSON."""

    figures: dict[str, Any]
    trace: Trace | None = None
    reasons: list[str] = field(default_factory=list)
    report: dict[str, Any] = field(default_factory=dict)

    @property
    def moved(self) -> bool:
        return not self.reasons


def _figures(plan: Plan, mode: str, kind: Kind) -> dict[str, Any]:
    return {
        "verdict": "failed",
        "mode": mode,
        "kernel": plan.kernel,
        "vcpus": plan.vcpus,
        "memory_mib": plan.memory_mib,
        "link": plan.link,
        "nics": plan.nics,
        "workload": kind.name,
        **dict.fromkeys(MEASURED + FROM_REPORT),
    }


def run(
    plan: Plan,
    mode: str,
    kind: Kind,
    logs: Path,
    tell: Tell,
    quote: Tell,
    *options: str,
    beside: Callable[[Setup], Any] | None = None,
) -> Outcome:
    """Stages one move.  `tell` gets what the lab does, `quote` what `selfmigrate to` prints in the guest.

    `mode` is what parse_mode() takes; `options` are more of `selfmigrate to`.  Pages that changed unnoticed make a run that looks for them fail.
    `beside` is called once both machines are up; what it returns is closed when the guest has been checked.
    """
    outcome = Outcome(_figures(plan, mode, kind))
    try:
        with Setup(plan, logs) as setup:
            try:
                _run(setup, outcome, mode, kind, tell, quote, options, beside)
            finally:
                if outcome.reasons or not outcome.report:
                    for machine in setup.machines:
                        machine.dump(logs)
    except (LabError, OSError) as error:
        outcome.reasons.append(str(error))
    outcome.figures["verdict"] = "moved" if outcome.moved else "failed"
    outcome.figures["reason"] = "; ".join(outcome.reasons) or None
    return outcome


def _run(
    setup: Setup,
    outcome: Outcome,
    mode: str,
    kind: Kind,
    tell: Tell,
    quote: Tell,
    options: tuple[str, ...],
    beside: Callable[[Setup], Any] | None,
) -> None:
    plan = setup.plan
    tell(
        f"booting the source: {plan.vcpus} vCPU, {plan.memory_mib} MiB, kernel {setup.built.kernel.release}, "
        f"accelerator {setup.built.accel.split(',')[0]}"
    )
    source = setup.boot_source()
    tell(
        "the guest is up; filling Redis"
        if kind.name == "redis"
        else f"the guest is up; starting the workload {kind.name}"
    )
    workload = Workload(setup, kind)
    workload.start()
    tell("booting the target into the landing image that the guest makes")
    target = setup.boot_target()

    stays = [setup.stay(1), setup.stay(2)]
    tap = setup.own(
        TapWatch(
            setup.namespace,
            setup.tap("source", setup.network.migration_nic),
            setup.logs / "source-tap.csv",
            stays,
        )
    )
    service_tap = (
        tap
        if plan.nics == 1
        else setup.own(
            TapWatch(setup.namespace, setup.tap("source", 0), setup.logs / "source-service-tap.csv", stays)
        )
    )
    workload.before_move()
    watch = setup.own(FrozenWatch(source))
    watcher = beside(setup) if beside else None
    tell("a client outside reads and writes on one TCP connection, another pings every millisecond")
    time.sleep(WARM_S)

    before = tap.count()
    began_ns = time.monotonic_ns()
    base, of_mode = parse_mode(mode)
    given = ("--mode", base, *of_mode, *options)
    tell(f"in the guest: selfmigrate to {setup.stay(2)} {' '.join(given)}")
    session = setup.move(2, *given, "--keep-source", "--json", REPORT, told=quote)
    status = session.wait(MOVE_TIMEOUT_S)
    after = tap.count()
    if status != 0:
        outcome.reasons.append(f"selfmigrate to ended with {status}: {_last_words(session.text)}")
        return
    tell("the command has returned; watching on")
    workload.moved_to(target)
    time.sleep(SETTLE_S)
    until_ns = time.monotonic_ns()
    if watcher:
        watcher.close()
    workload.check()
    outcome.report = json.loads(target.commands.run(f"cat {REPORT}"))
    tell("reading back every key")
    seen = workload.finish()
    pings, client = seen["pings"], seen["client"]

    gap_start_ns, gap_end_ns = workload.pinger.longest_gap(began_ns)
    commit_ns = gap_end_ns  # the guest was heard from its new place, so the commit was before
    blackout_ms = (gap_end_ns - gap_start_ns) / 1e6
    outcome.trace = Trace(began_ns, until_ns, (gap_start_ns, gap_end_ns), workload.redis.answer_times())
    service_tap.count()
    if tap is not service_tap:
        tap.count()
    frames = [
        one
        for watched in {tap, service_tap}
        for one in watched.frames("from_guest", "service")
        if one[0] > commit_ns
    ]
    frozen, complaints = watch.judge(commit_ns, len(frames))
    workload.shut_down()

    outcome.reasons += workload.reasons + complaints + _owed_complaints(outcome.report, base)
    if outcome.report.get("verdict") != "moved":
        outcome.reasons.append(f"the report's verdict is {outcome.report.get('verdict')}")
    if outcome.report.get("missed_pages"):
        outcome.reasons.append(f"{outcome.report['missed_pages']} pages had changed unnoticed")
    outcome.figures.update({key: outcome.report.get(key) for key in FROM_REPORT})
    outcome.figures["walk_ms"] = workload.walk.get("walk_ms")
    outcome.figures.update(workload.served)
    outcome.figures.update(
        {
            "udp_gap_ms": blackout_ms,
            "tcp_gap_ms": client["longest_gap_ms"],
            "blackout_ms": blackout_ms,
            "full_downtime_ms": throughput.full_downtime_ms(outcome.trace),
            "lost_work_ms": throughput.lost_ms(outcome.trace),
            "pinger_lateness_ms": pings["own_lateness_ms"],
            "bytes_sent": after["from_guest_migration"]["bytes"] - before["from_guest_migration"]["bytes"],
            "bytes_received": after["to_guest_migration"]["bytes"] - before["to_guest_migration"]["bytes"],
            "stop_ms": outcome.report.get("stop_ms"),
            "client_answers": client["answers"],
            "acknowledged_writes": client["writes"],
            "source_after_commit": frozen,
        }
    )


def _owed_complaints(report: dict[str, Any], mode: str) -> list[str]:
    """What the report says of owed pages and must not."""
    owed, sent_twice = report.get("owed_pages", 0), report.get("pages_sent_twice", 0)
    complaints = []
    if mode in ("precopy", "stop-copy") and owed:
        complaints.append(f"{owed} pages were owed in a mode that owes none")
    if mode in ("hybrid", "hybrid-ns", "postcopy", "postcopy-i") and not report.get("owed_reconnections"):
        # whatever came was missing, or its last user had let go of it
        if report.get("arrived_again", 0) > report.get("freed_owed_pages", 0):
            complaints.append(f"{report['arrived_again']} pages came that were not missing")
    if mode in ("postcopy", "postcopy-i") and sent_twice > report.get("stop_image_pages", 0):
        complaints.append(f"{sent_twice} pages travelled twice")
    return complaints


def _last_words(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it said nothing"


__all__ = ["MODES", "Outcome", "Timeout", "run"]
