# SPDX-License-Identifier: Apache-2.0
"""What a person may ask while memory travels: how far it is, to stop it, to switch at once."""

import json
from pathlib import Path

from lab.setup import Plan
from lab.workload import Kind

from .harness import expect, test
from .scene import Scene

# A link slow enough to see every pass, and a stop that is never short enough to end them.
SLOW = ("--mode", "precopy", "--bandwidth", "10MB", "--downtime-limit", "1", "--max-passes", "50")
PASS_S = 60
WRITER = Kind("writer", working_set_mib=16, rate_mb=10)

CANCEL = "selfmigrate cancel"
# Quick, for a pass may be over soon after it has begun.
INTERRUPT = (
    "for p in $(pidof selfmigrate); do "
    'tr "\\0" " " < /proc/$p/cmdline | grep -q " to " && kill -INT $p; done; true'
)


# Of all of its processes: what nice(1) sets.
PRIORITIES = 'for p in $(pidof selfmigrate); do cut -d " " -f 19 "/proc/$p/stat"; done 2>/dev/null; true'


def _wait_for_pass(scene: Scene, number: int) -> dict:
    """What `selfmigrate status --json` says once this pass has begun."""
    answer = scene.run(
        "while :; do s=$(selfmigrate status --json); n=${s#*\\\"pass\\\":}; n=${n%%,*}; "
        f'case $n in [0-9]*) [ "$n" -ge {number} ] && break;; esac; done; echo "$s"',
        PASS_S,
    )
    return json.loads(answer)


@test("cancel and Ctrl-C in every pass, then switch-now; 6.1, 2 vCPUs", 400, series="6.1", vcpus=2)
@test("cancel and Ctrl-C in every pass, then switch-now; 6.12, 1 vCPU", 400, series="6.12", vcpus=1)
def orders(logs: Path, series: str, vcpus: int) -> None:
    with Scene(Plan(kernel=series, vcpus=vcpus), logs, WRITER) as scene:
        number, target = scene.target()
        for in_pass in (1, 2, 3):
            for name, order in (("cancel", CANCEL), ("Ctrl-C", INTERRUPT)):
                what = f"{name} in pass {in_pass}"
                console_end = len(target.console())
                scene.workload.redis.mark()
                session = scene.setup.move(number, *SLOW)
                status = _wait_for_pass(scene, in_pass)
                expect(
                    status["state"] == "source-passing" and status["pages"] > 0,
                    f"{what}: status says {status}",
                )
                if in_pass == 1:
                    nice = scene.run(PRIORITIES).split()
                    expect("-10" in nice and "0" in nice, f"{what}: priorities are {nice}")
                scene.run(order)
                expect(session.wait(PASS_S) == 1, f"{what}: the move did not end with 1:\n{session.text}")
                expect("cancelled" in session.text, f"{what}: it does not say why:\n{session.text}")
                gap_ms = scene.workload.redis.status()["longest_gap_ms"]
                expect(gap_ms < 2000, f"{what}: the guest stood still for {gap_ms:.0f} ms")
                scene.unharmed(what)
                scene.setup.wait_listening(target, console_end)
        expect("rolled-back" in scene.run("selfmigrate status"), "the last move is not recorded")
        expect(
            "no move is under way" in scene.run("selfmigrate cancel 2>&1; true"),
            "cancel says nothing of there being no move",
        )
        session = scene.setup.move(
            number, *SLOW, "--nice", "7", "--verify", "--json", "/run/switched.json"
        )
        _wait_for_pass(scene, 1)
        nice = scene.run(PRIORITIES).split()
        expect("7" in nice and "-10" not in nice, f"--nice 7: priorities are {nice}")
        # The guest may be gone before the answer of this command is: so that comes first.
        scene.run("(sleep 1; selfmigrate switch-now) >/run/switch-now.log 2>&1 &")
        expect(session.wait(PASS_S) == 0, f"switch-now: it did not move:\n{session.text}")
        scene.here, scene.number = target, number
        scene.workload.moved_to(target)
        report = json.loads(scene.run("cat /run/switched.json"))
        expect(
            report["stop_reason"] == "asked" and report["passes"] == 1,
            f"switch-now: the report has {report['stop_reason']} after {report['passes']} passes",
        )
        expect(report["missed_pages"] == 0, f"{report['missed_pages']} pages had changed unnoticed")
        scene.finish()


@test("a dry run moves nothing, hashes alone suffice; 6.12, 2 vCPUs", 240)
def forecast(logs: Path) -> None:
    with Scene(Plan(kernel="6.12", vcpus=2), logs, WRITER) as scene:
        number, target = scene.target()
        console_end = len(target.console())
        scene.workload.redis.mark()
        session = scene.setup.move(number, "--dry-run", "--json", "/run/forecast.json")
        expect(session.wait(PASS_S) == 0, f"the dry run failed:\n{session.text}")
        gap_ms = scene.workload.redis.status()["longest_gap_ms"]
        expect(gap_ms < 2000, f"the guest stood still for {gap_ms:.0f} ms in a dry run")
        scene.unharmed("after a dry run")
        seen = json.loads(scene.run("cat /run/forecast.json"))
        expect(seen["verdict"] == "dry-run" and seen["passes"] >= 1, f"the forecast says {seen}")
        expect(seen["dirty_pages_per_s"] > 0, f"a writer writes nothing, says {seen}")
        scene.setup.wait_listening(target, console_end)
        session = scene.setup.move(number, "--dry-run", "--detect", "hash")
        expect(session.wait(PASS_S) == 2, f"a dry run by hashes should be refused:\n{session.text}")
        scene.move(number, target, "--drop-cache", "--detect", "hash", "--json", "/run/hashed.json")
        report = json.loads(scene.run("cat /run/hashed.json"))
        expect(report["detection"] == "hash", f"changes were told by {report['detection']}")
        expect(
            report["stop_image_pages"] < report["pages_in_use"] / 4,
            f"the stop sent {report['stop_image_pages']} of {report['pages_in_use']} pages in use",
        )
        scene.finish()
