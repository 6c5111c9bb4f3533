# SPDX-License-Identifier: Apache-2.0
"""A person's way into the guest: SSH to its follow address, whichever VM it runs on."""

import queue
import subprocess
import threading
import time
from typing import Callable

from .errors import LabError, Timeout
from .image import ssh_key
from .netns import Namespace, end


class Session:
    """One SSH connection that runs one command; what the command prints arrives as lines with their time."""

    def __init__(
        self, namespace: Namespace, address: str, command: str, told: Callable[[str], None] | None = None
    ):
        self.lines: list[tuple[int, str]] = []
        self._told = told
        self._news: queue.Queue[str | None] = queue.Queue()
        self.process = namespace.popen(
            ["dbclient", "-y", "-y", "-T", "-i", str(ssh_key()), f"root@{address}", command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self._thread = threading.Thread(target=self._collect, daemon=True)
        self._thread.start()

    def _collect(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            line = line.rstrip("\r\n")
            if line.startswith("dbclient: ") or (not line and not self.lines):
                continue  # what the SSH client itself has to say
            self.lines.append((time.monotonic_ns(), line))
            if self._told:
                self._told(line)
            self._news.put(line)
        self._news.put(None)

    @property
    def text(self) -> str:
        return "\n".join(line for _, line in self.lines)

    def wait(self, timeout_s: float) -> int:
        """The command's exit status."""
        try:
            status = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise Timeout(f"the command over SSH did not end in {timeout_s:.0f} s") from None
        self._thread.join(5)
        return status

    def close(self) -> None:
        end(self.process)


def fetch(namespace: Namespace, address: str, path: str, timeout_s: float = 60) -> bytes:
    """The content of a file in the guest."""
    process = namespace.popen(
        ["dbclient", "-y", "-y", "-T", "-i", str(ssh_key()), f"root@{address}", f"cat {path}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        content = process.communicate(timeout=timeout_s)[0]
        if process.returncode != 0 or not content:
            raise LabError(f"{path} did not come out of the guest")
        return content
    except subprocess.TimeoutExpired:
        raise Timeout(f"{path} did not come out of the guest in {timeout_s:.0f} s") from None
    finally:
        end(process)
