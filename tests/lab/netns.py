# SPDX-License-Identifier: Apache-2.0
"""A network namespace without a name: it lives as long as this object or a process in it, and leaves nothing."""

import ctypes
import os
import signal
import socket
import subprocess
from contextlib import contextmanager
from typing import Any, Iterator

from .errors import LabError

CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        raise LabError(f"{what}: {os.strerror(ctypes.get_errno())} (the lab must run as root)")


class Namespace:
    """Made at once; `close` gives it up."""

    def __init__(self) -> None:
        outside = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _check(_libc.unshare(CLONE_NEWNET), "network namespace")
            self._fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            _check(_libc.setns(outside, CLONE_NEWNET), "setns")
        finally:
            os.close(outside)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    @contextmanager
    def entered(self) -> Iterator[None]:
        """This thread is inside: sockets it makes belong to the namespace and keep belonging to it."""
        outside = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        _check(_libc.setns(self._fd, CLONE_NEWNET), "setns")
        try:
            yield
        finally:
            _check(_libc.setns(outside, CLONE_NEWNET), "setns")
            os.close(outside)

    def socket(self, *arguments: Any) -> socket.socket:
        with self.entered():
            return socket.socket(*arguments)

    def run(self, *command: str) -> str:
        """Runs a short command inside and returns what it prints."""
        with self.entered():
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
            )
        if done.returncode != 0:
            raise LabError(f"{' '.join(command)}: {done.stderr.strip()}")
        return done.stdout

    def popen(self, command: list[str], **options: Any) -> subprocess.Popen:
        """Starts a program inside.  Ctrl-C at the terminal does not reach it; it is killed when this process
        ends, however that comes about."""
        with self.entered():
            return subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *command], start_new_session=True, **options
            )


def end(process: subprocess.Popen | None, patience_s: float = 3) -> None:
    """Ends one process of ours: asks, then insists."""
    if process is None or process.poll() is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(patience_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
