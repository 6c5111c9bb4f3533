# SPDX-License-Identifier: Apache-2.0
"""What no move can beat: from what the link carries and what the guest's own processor and network card can do.

    total      the bytes in use and not zero, by our own census, over the link: packed as our agent packed them, and not.
               Also over what one TCP connection out of such a guest really carries: under emulation that is less.
    blackout   what our stop had to send, over the link; two round trips between the machines (the image is whole, the
               clone is alive); and two copies of these pages, one on either side.
"""

import json
import socket
import statistics
import threading
import time
from pathlib import Path
from typing import Any

import in_guest
from lab import setup
from lab.network import CLIENT, FOLLOW, Link

SOURCE = Path(__file__).with_name("speed") / "guest_speed.cpp"
ECHOES = 200
PAGE = 4096


def _echo_ms(lab: setup.Setup) -> float:
    """Median time until the guest's echo answers a datagram from outside."""
    took = []
    with lab.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as echo:
        echo.settimeout(1)
        echo.connect((FOLLOW, 7))
        for _ in range(ECHOES):
            began = time.monotonic()
            echo.send(bytes(16))
            echo.recv(16)
            took.append((time.monotonic() - began) * 1e3)
            time.sleep(0.002)
    return statistics.median(took)


class _Sink:
    """Takes one TCP connection and counts."""

    def __init__(self, lab: setup.Setup):
        self._listening = lab.namespace.socket()
        self._listening.bind((CLIENT, 0))
        self._listening.listen(1)
        self.port = self._listening.getsockname()[1]
        self.bit_per_s = 0.0
        self._thread = threading.Thread(target=self._take, daemon=True)
        self._thread.start()

    def _take(self) -> None:
        connection, _ = self._listening.accept()
        buffer = bytearray(1 << 20)
        began, count = time.monotonic(), 0
        while got := connection.recv_into(buffer):
            count += got
        self.bit_per_s = count * 8 / (time.monotonic() - began)
        connection.close()

    def close(self) -> float:
        self._thread.join(10)
        self._listening.close()
        return self.bit_per_s


def speed_of_guest(kernel: str, vcpus: int, link: str) -> dict[str, float]:
    """Measured in a guest that does nothing else.

    instructions_per_s, copy_mb_s; echo_ms: there and back from outside; stream_bit_per_s: one TCP connection out of it,
    on a link that is not the limit.
    """
    with in_guest.booted(setup.Plan(kernel, vcpus, 512, link), SOURCE) as (lab, guest):
        echo = _echo_ms(lab)
        sink = _Sink(lab)
        seen = json.loads(guest.commands.run(f"guest_speed {CLIENT} {sink.port}", 120))
        return {**seen, "echo_ms": echo, "stream_bit_per_s": sink.close()}


def must_bytes(row: dict[str, Any]) -> float | None:
    """In use and not zero."""
    return (row["pages_in_use"] - row["pages_zero"]) * PAGE if row.get("pages_in_use") else None


def packed_share(row: dict[str, Any]) -> float | None:
    """What our agent's packing left of the pages that it sent."""
    payload = (row.get("pass_payload_bytes") or 0) + (row.get("stop_payload_bytes") or 0)
    return payload / (row["pages_sent"] * PAGE) if payload and row.get("pages_sent") else None


def blackout_ms(row: dict[str, Any], guest: dict[str, float]) -> float | None:
    """For one of our runs, with the speed of such a guest; None: the row does not say what its stop sent."""
    if row.get("stop_payload_bytes") is None or row.get("stop_image_pages") is None:
        return None
    link = Link.parse(row["link"])
    sending = row["stop_payload_bytes"] * 8e3 / link.rate
    # an echo is one way into a guest and out; between machines there are two of them
    trip = 2 * link.delay_us / 1e3 + 2 * (guest["echo_ms"] - link.delay_us / 1e3)
    copying = 2 * row["stop_image_pages"] * PAGE / 1e3 / guest["copy_mb_s"]
    return sending + 2 * max(trip, 0) + copying
