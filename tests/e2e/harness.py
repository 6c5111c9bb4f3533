# SPDX-License-Identifier: Apache-2.0
"""Registers tests, bounds each in time, runs some side by side, keeps the logs of those that fail."""

import multiprocessing
import queue
import shutil
import signal
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Iterator

from lab.errors import LabError
from lab.paths import OUT
from lab.setup import Plan

LOGS = OUT / "e2e"


class Failed(AssertionError):
    """What a test expected did not happen; the text says both."""


class OutOfTime(BaseException):
    """A test used up its time.  Not an Exception: nothing on the way may swallow it."""


@dataclass(frozen=True)
class Test:
    name: str
    limit_s: int
    body: Callable[[Path], None]
    plan: Plan | None  # what it is given, if it is


TESTS: list[Test] = []


def test(name: str, limit_s: int, **arguments: Any) -> Callable[[Callable], Callable]:
    """Registers a function that takes a folder for logs (and `arguments`); may be stacked."""

    def register(function: Callable) -> Callable:
        TESTS.append(Test(name, limit_s, lambda logs: function(logs, **arguments), arguments.get("plan")))
        return function

    return register


def expect(condition: object, text: str) -> None:
    if not condition:
        raise Failed(text)


def logs_of(one: Test) -> Path:
    return LOGS / one.name.replace(" ", "-").replace(",", "").replace(";", "").replace("/", "-")


def _alarm(*_: Any) -> None:
    raise OutOfTime()


def run(one: Test) -> str | None:
    """None when it passed, else why not."""
    logs = logs_of(one)
    shutil.rmtree(logs, ignore_errors=True)
    logs.mkdir(parents=True)
    signal.signal(signal.SIGALRM, _alarm)
    signal.alarm(one.limit_s)
    reason: str | None = None
    try:
        one.body(logs)
    except OutOfTime as error:
        # the last frame is the alarm's own
        frames = traceback.extract_tb(error.__traceback__)[1:-1]
        where = " ← ".join(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in reversed(frames))
        reason = f"it took more than {one.limit_s} s; it was at {where}"
    except (Failed, LabError) as error:
        reason = str(error)
    except Exception:  # a bug of the test: as much as there is to know of it
        reason = traceback.format_exc()
    finally:
        signal.alarm(0)
    if reason is None:
        shutil.rmtree(logs)
    else:
        (logs / "reason").write_text(reason + "\n")
    return reason


def _work(numbers: Any, results: Any, wanted: list[Test]) -> None:
    while (number := numbers.get()) is not None:
        start = time.monotonic()
        reason = run(wanted[number])
        results.put((number, reason, time.monotonic() - start))


def _results(wanted: list[Test], jobs: int) -> Iterator[tuple[Test, str | None, float]]:
    """(test, why it failed, seconds) as they end.  What workers keep between tests they keep for themselves."""
    context = multiprocessing.get_context("fork")
    numbers, results = context.Queue(), context.Queue()
    for number in [*range(len(wanted)), *[None] * jobs]:
        numbers.put(number)
    # they end with this process
    workers = [context.Process(target=_work, args=(numbers, results, wanted), daemon=True) for _ in range(jobs)]
    for worker in workers:
        worker.start()
    left = set(range(len(wanted)))
    while left:
        alive = any(worker.is_alive() for worker in workers)
        try:
            number, reason, took = results.get(timeout=1)
        except queue.Empty:
            if alive:
                continue
            for number in sorted(left):
                yield wanted[number], "the process that was to run it has ended", 0
            return
        left.remove(number)
        yield wanted[number], reason, took
    for worker in workers:
        worker.join()


def run_all(wanted: list[Test], jobs: int) -> int:
    """Runs tests, `jobs` at a time; the process's exit code."""
    failed = []
    for one, reason, took in _results(wanted, jobs):
        print(f"{'FAILED' if reason else 'passed'}  {took:5.0f} s  {one.name}", flush=True)
        if reason:
            failed.append(one.name)
            for line in reason.splitlines()[-40:]:
                print(f"          {line}", flush=True)
            print(f"          logs: {logs_of(one)}", flush=True)
    print(f"{len(wanted) - len(failed)} passed, {len(failed)} failed")
    return 1 if failed else 0
