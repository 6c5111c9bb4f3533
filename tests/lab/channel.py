# SPDX-License-Identifier: Apache-2.0
"""The two virtio-serial ports of a guest: commands that it runs, and verdicts that its programs write.

The ports belong to the VM, the programs behind them to the guest: after a move the same program answers on
the other VM's port.
"""

import json
import socket
import threading
import time
from pathlib import Path
from typing import Any

from .errors import LabError, Timeout


def _connect(path: Path) -> socket.socket:
    port = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    port.connect(str(path))
    return port


class Commands:
    """Runs shell scripts in the guest, one at a time (protocol: guest/commands.cpp)."""

    def __init__(self, path: Path):
        self._port = _connect(path)
        self._buffer = b""
        self._number = 0

    def _take(self, deadline: float) -> None:
        self._port.settimeout(max(deadline - time.monotonic(), 0.001))
        try:
            chunk = self._port.recv(1 << 16)
        except TimeoutError:
            raise Timeout("the guest does not answer on its command port") from None
        if not chunk:
            raise LabError("the guest's command port is closed")
        self._buffer += chunk

    def _line(self, deadline: float) -> str:
        while b"\n" not in self._buffer:
            self._take(deadline)
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode(errors="replace")

    def wait_ready(self, timeout_s: float) -> None:
        """Until the guest's init has started the other end."""
        deadline = time.monotonic() + timeout_s
        while self._line(deadline) != "READY":
            pass

    def attempt(self, script: str, timeout_s: float = 20) -> tuple[int, str]:
        """Exit status and output of `script`."""
        deadline = time.monotonic() + timeout_s
        self._number += 1
        content = script.encode()
        try:
            self._port.sendall(b"RUN %d %d\n" % (self._number, len(content)) + content)
        except OSError as error:
            raise LabError(f"the guest's command port: {error}") from error
        while True:
            words = self._line(deadline).split()
            if len(words) != 4 or words[0] != "DONE":
                continue
            length = int(words[3])
            while len(self._buffer) < length:
                self._take(deadline)
            output, self._buffer = self._buffer[:length], self._buffer[length:]
            if int(words[1]) == self._number:
                return int(words[2]), output.decode(errors="replace")

    def run(self, script: str, timeout_s: float = 20) -> str:
        """Output of `script`; LabError when it fails."""
        status, output = self.attempt(script, timeout_s)
        if status != 0:
            raise LabError(f"in the guest: {script!r} ended with {status}: {output.strip()[-500:]}")
        return output

    def continue_from(self, other: "Commands") -> None:
        """The guest has moved here: its answers to numbers of `other` are not ours."""
        self._number = other._number + 1000

    def close(self) -> None:
        self._port.close()


class Verdicts:
    """Collects the JSON lines that the guest's programs write, each with the time it arrived."""

    def __init__(self, path: Path):
        self._port = _connect(path)
        self.lines: list[dict[str, Any]] = []
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._collect, daemon=True)
        self._thread.start()

    def _collect(self) -> None:
        try:
            for line in self._port.makefile("r", encoding="utf-8", errors="replace"):
                try:
                    verdict = json.loads(line)
                except ValueError:
                    verdict = {"program": "?", "text": line.strip()}
                verdict["arrived_ns"] = time.monotonic_ns()
                with self._news:
                    self.lines.append(verdict)
                    self._news.notify_all()
        except (OSError, ValueError):
            pass  # closed

    def wait(self, since: int, timeout_s: float, **wanted: Any) -> dict[str, Any]:
        """The first line from index `since` on that has all of `wanted`."""
        deadline = time.monotonic() + timeout_s
        with self._news:
            while True:
                for line in self.lines[since:]:
                    if all(line.get(key) == value for key, value in wanted.items()):
                        return line
                if not self._news.wait(max(deadline - time.monotonic(), 0)) and time.monotonic() >= deadline:
                    raise Timeout(f"the guest did not report {wanted}")

    def close(self) -> None:
        try:
            self._port.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._port.close()
