# SPDX-License-Identifier: Apache-2.0
"""Moves a running guest from one virtual machine to another and judges from outside whether it really moved.

Run as root on Debian 12; installs and builds by itself what it needs.
"""

import argparse
import json
import shutil
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lab import install, network, setup, stage, tell, workload  # noqa: E402
from lab.errors import LabError  # noqa: E402
from lab.paths import OUT  # noqa: E402


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    parser.add_argument(
        "--kernel", choices=("6.1", "6.12"), default="6.1", help="series of the guest's kernel"
    )
    parser.add_argument("--vcpus", type=int, default=1, metavar="N", help="1 to 8 (default %(default)s)")
    parser.add_argument(
        "--memory", type=int, metavar="MIB", help="256 to 4096 (default 512, of a debian guest 1024)"
    )
    parser.add_argument("--link", default="1gbit", metavar="RATE[+DELAY]", help="each way, as 1gbit or 200mbit+5ms (default %(default)s)")
    parser.add_argument(
        "--nics",
        type=int,
        choices=(1, 2),
        default=1,
        help="one for everything, or one for the service and one for the migration",
    )
    parser.add_argument(
        "--mode",
        default="auto",
        metavar="M[,M…]",
        help=f"of: {', '.join(stage.MODES)}; each may be followed by options of `selfmigrate to`, as in precopy:max-passes=1 or hybrid:speculate=ppm+file-single "
        "(default %(default)s)",
    )
    parser.add_argument("--runs", type=int, default=1, metavar="N", help="of every mode, interleaved")
    parser.add_argument("--workload", choices=workload.KINDS, default="redis")
    parser.add_argument(
        "--working-set",
        type=int,
        metavar="MIB",
        default=32,
        help="Redis' data or the pages of writer and reader (default %(default)s)",
    )
    parser.add_argument(
        "--dirty-rate",
        type=float,
        metavar="MB/s",
        default=10,
        help="what writer and reader touch (default %(default)s)",
    )
    parser.add_argument(
        "--guest",
        choices=setup.GUESTS,
        default="small",
        help="small: an initramfs with Redis; debian: a whole Debian 12 with systemd, which alone has the workload services (default %(default)s)",
    )
    parser.add_argument(
        "--verify",
        action="store_true",
        help="in the stop, hash every page believed unchanged; one that did change fails the run",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="an array, one object a run")
    parser.add_argument(
        "--keep-logs", type=Path, metavar="DIR", help="keeps consoles and traces of every run there"
    )
    given = parser.parse_args()
    given.modes = given.mode.split(",")
    given.memory = given.memory or (1024 if given.guest == "debian" else 512)
    if not 1 <= given.vcpus <= 8:
        parser.error("--vcpus must be from 1 to 8")
    if not 256 <= given.memory <= 4096:
        parser.error("--memory must be from 256 to 4096")
    if given.runs < 1 or given.working_set < 1 or given.dirty_rate <= 0:
        parser.error("--runs, --working-set and --dirty-rate must be above zero")
    if given.workload == "services" and given.guest != "debian":
        parser.error("the workload services needs --guest debian")
    try:
        for mode in given.modes:
            stage.parse_mode(mode)
        network.Link.parse(given.link)
    except LabError as error:
        parser.error(str(error))
    return given


def main() -> int:
    given = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    teller = tell.Teller()
    outcomes: list[stage.Outcome] = []
    wanted = [(run, mode) for run in range(1, given.runs + 1) for mode in given.modes]
    try:
        install.install(teller.step)
        plan = setup.Plan(
            kernel=given.kernel,
            vcpus=given.vcpus,
            memory_mib=given.memory,
            link=given.link,
            nics=given.nics,
            disk_mib=256 + 4 * given.working_set,
            guest=given.guest,
        )
        kind = workload.Kind(given.workload, given.working_set, given.dirty_rate)
        setup.prepare(given.kernel, teller.step, given.guest)
        for run, mode in wanted:
            if len(wanted) > 1:
                teller.step(f"── run {run} of {given.runs}, {mode}")
            logs = setup.logs_folder(given.keep_logs or OUT / "runs", mode)
            options = ("--verify",) if given.verify and stage.parse_mode(mode)[0] != "stop-copy" else ()
            outcome = stage.run(plan, mode, kind, logs, teller.step, teller.quote, *options)
            outcomes.append(outcome)
            if outcome.moved and not given.keep_logs:
                shutil.rmtree(logs)
            if not outcome.moved:
                for console in sorted(logs.glob("*.console")):
                    teller.complain(f"── last lines of {console}")
                    teller.complain("\n".join(console.read_text(errors="replace").splitlines()[-25:]))
                teller.step(f"run {run} failed; everything about it is in {logs}")
    except LabError as error:
        teller.complain(str(error))
        print(f"VERDICT: failed ({str(error).splitlines()[0]})")
        return 1
    except KeyboardInterrupt:
        print("VERDICT: failed (interrupted)")
        return 1
    figures = [outcome.figures for outcome in outcomes]
    if given.json:
        given.json.write_text(json.dumps(figures, indent=1) + "\n")
    print("\n" + tell.table(figures) + "\n")
    failed = [outcome for outcome in outcomes if not outcome.moved]
    if not failed:
        source = figures[-1]["source_after_commit"]
        print(
            f"The source after the commit: {source['samples']} samples, "
            f"{len(source['user_mode'])} in user mode, {source['ticks']} wakenings of a frozen task, {source['service_frames']} service frames, "
            f"{source['disk_writes']} disk writes."
        )
    if not failed:
        print("VERDICT: moved")
        return 0
    which = f"{len(failed)} of {len(outcomes)} runs: " if len(outcomes) > 1 else ""
    print(f"VERDICT: failed ({which}{failed[0].reasons[0].splitlines()[0]})")
    return 1


if __name__ == "__main__":
    sys.exit(main())
