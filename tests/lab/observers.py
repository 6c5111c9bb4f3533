# SPDX-License-Identifier: Apache-2.0
"""The programs that watch a guest from outside (sources in observe/), as Python sees them."""

import json
import subprocess
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

from .errors import LabError, Timeout
from .netns import Namespace, end
from .paths import PROGRAMS


class _Program:
    """A program that answers lines on stdin by JSON lines on stdout."""

    def __init__(self, namespace: Namespace, name: str, *arguments: str):
        self.name = name
        self.process = namespace.popen(
            [str(PROGRAMS / name), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._lines: deque[dict[str, Any]] = deque()
        self._news = threading.Condition()
        self._ended = False
        threading.Thread(target=self._collect, daemon=True).start()

    def _collect(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            with self._news:
                self._lines.append(json.loads(line))
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    def _answer(self, timeout_s: float) -> dict[str, Any]:
        with self._news:
            self._news.wait_for(lambda: self._lines or self._ended, timeout_s)
            if self._lines:
                return self._lines.popleft()
        if self._ended:
            raise LabError(f"{self.name} has ended")
        raise Timeout(f"{self.name} does not answer")

    def _ask(self, command: str, timeout_s: float = 10) -> dict[str, Any]:
        assert self.process.stdin
        try:
            self.process.stdin.write(command + "\n")
            self.process.stdin.flush()
        except OSError:
            pass  # its last line says why
        return self._answer(timeout_s)

    def close(self) -> None:
        end(self.process)


class Pinger(_Program):
    """One datagram every millisecond, open loop."""

    def __init__(self, namespace: Namespace, address: str, port: int, trace: Path):
        super().__init__(namespace, "pinger", address, str(port), str(trace))
        self.trace = trace

    def finish(self) -> dict[str, Any]:
        """Counts, and the longest time without an answer in the whole trace."""
        assert self.process.stdin
        self.process.stdin.close()
        return self._answer(20)

    def longest_gap(self, since_ns: int) -> tuple[int, int]:
        """The longest time between two answers of which the later arrived after `since_ns`: (start, end)."""
        arrivals = [int(line.partition(",")[0]) for line in self.trace.read_text().splitlines()[1:]]
        gaps = [(start, end) for start, end in zip(arrivals, arrivals[1:]) if end > since_ns]
        if not gaps:
            raise LabError("no datagram was answered after the move began")
        return max(gaps, key=lambda gap: gap[1] - gap[0])


class RedisClient(_Program):
    """One TCP connection to Redis that checks every answer."""

    def __init__(
        self,
        namespace: Namespace,
        address: str,
        trace: Path,
        keys: int,
        value_bytes: int,
        pace_us: int = 1000,
    ):
        super().__init__(
            namespace, "redis_client", address, "6379", str(keys), str(value_bytes), str(pace_us), str(trace)
        )
        self.trace = trace

    def answer_times(self) -> list[int]:
        """When each answer arrived, monotonic ns; complete after `finish`."""
        return [int(line) for line in self.trace.read_text().splitlines()[1:]]

    def wait_filled(self, timeout_s: float) -> dict[str, Any]:
        return self._expect(self._answer(timeout_s), "filled")

    def mark(self) -> dict[str, Any]:
        return self._expect(self._ask("mark"), "mark")

    def status(self) -> dict[str, Any]:
        return self._expect(self._ask("status"), "status")

    def finish(self, timeout_s: float = 120) -> dict[str, Any]:
        return self._expect(self._ask("finish", timeout_s), "finished")

    def wait_answers(self, more: int, timeout_s: float) -> dict[str, Any]:
        """Until `more` further questions were answered."""
        deadline = time.monotonic() + timeout_s
        first = self.status()["answers"]
        while True:
            status = self.status()
            if status["answers"] >= first + more:
                return status
            if time.monotonic() > deadline:
                raise Timeout(
                    f"Redis answered only {status['answers'] - first} of {more} questions "
                    f"in {timeout_s:.0f} s"
                )
            time.sleep(0.05)

    @staticmethod
    def _expect(line: dict[str, Any], event: str) -> dict[str, Any]:
        if line["event"] == "lost":
            raise LabError(f"the client's TCP connection is gone: {line['why']}")
        if line["event"] != event:
            raise LabError(f"redis_client said {line} where {event} was due")
        return line


class TapWatch(_Program):
    """Counts frames and bytes at a VM's tap by kind and direction."""

    def __init__(self, namespace: Namespace, tap: str, log: Path, stay: list[str]):
        super().__init__(namespace, "tap_watch", tap, str(log), *stay)
        self.log = log

    def count(self) -> dict[str, Any]:
        """Counts so far; what LOG says is complete up to now."""
        counts = self._ask("")
        if counts["missed"]:
            raise LabError(f"tap_watch missed {counts['missed']} frames")
        return counts

    def frames(self, direction: str, kind: str) -> list[tuple[int, int, str]]:
        """(time, bytes, ethertype) of logged frames; call count() before."""
        found = []
        for line in self.log.read_text().splitlines()[1:]:
            moment, its_direction, its_kind, length, ethertype = line.split(",")
            if its_direction == direction and its_kind == kind:
                found.append((int(moment), int(length), ethertype))
        return found
