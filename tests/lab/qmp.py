# SPDX-License-Identifier: Apache-2.0
"""QEMU's control socket (QMP), as much of it as the lab uses."""

import json
import socket
import threading
from pathlib import Path
from typing import Any

from .errors import LabError


class Qmp:
    """One connection; calls may come from several threads."""

    def __init__(self, path: Path):
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(10)
        self._socket.connect(str(path))
        self._reader = self._socket.makefile("r", encoding="utf-8")
        self._lock = threading.Lock()
        self.events: list[dict[str, Any]] = []
        self._message()
        self.call("qmp_capabilities")

    def _message(self) -> dict[str, Any]:
        line = self._reader.readline()
        if not line:
            raise LabError("QEMU closed its control socket")
        return json.loads(line)

    def call(self, command: str, **arguments: Any) -> Any:
        """The return value of one QMP command."""
        with self._lock:
            try:
                self._socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode())
                while True:
                    message = self._message()
                    if "event" in message:
                        self.events.append(message)
                    elif "error" in message:
                        raise LabError(f"QMP {command}: {message['error']['desc']}")
                    else:
                        return message["return"]
            except OSError as error:
                raise LabError(f"QMP {command}: {error}") from error

    def give(self, name: str, descriptor: int) -> None:
        """QEMU gets a duplicate of `descriptor` and knows it as `name` (in URIs: fd:NAME)."""
        with self._lock:
            socket.send_fds(self._socket, [b" "], [descriptor])
        self.call("getfd", fdname=name)

    def monitor(self, line: str) -> str:
        """What QEMU's human monitor says to `line`."""
        return self.call("human-monitor-command", **{"command-line": line})

    def status(self) -> str:
        """ "running", "shutdown", "paused" …"""
        return self.call("query-status")["status"]

    def close(self) -> None:
        self._reader.close()
        self._socket.close()
