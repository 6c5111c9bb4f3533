# SPDX-License-Identifier: Apache-2.0
"""Bridges, taps and shaped links inside one namespace.

    client 10.8.0.254 ──┐ br0                      one NIC: service and migration share it
                        ├── tap of the source      two NICs: br0 carries the service (10.8.0.0/24),
                        └── tap of each target               br1 the migration  (10.9.0.0/24)

A tap's queue discipline shapes what goes to its guest: every link has the given rate, each way.
"""

import json
import re

from .errors import LabError
from .netns import Namespace

CLIENT = "10.8.0.254"
FOLLOW = "10.8.0.1"
PREFIX = 24
# 2 ms: the host's timers are no finer than such a burst, and a longer queue delays the answer to whoever waits for
# one page.
SPAN_S = 0.002
# What a guest hands over at once; a bucket that holds less would cut it, and an emulated CPU take each piece alone.
WHOLE_BYTES = 68 * 1024
RATES = {"bit": 1, "kbit": 10**3, "mbit": 10**6, "gbit": 10**9}


def bits_per_second(rate: str) -> int:
    """ "1gbit", "200mbit" → bit/s."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(k|m|g)?bit", rate.lower())
    if not match:
        raise LabError(f"a link rate looks like 1gbit or 200mbit, not {rate!r}")
    return int(float(match.group(1)) * RATES[(match.group(2) or "") + "bit"])


class Network:
    """What joins the machines of one setup.  `link` may be None: not shaped."""

    def __init__(self, nics: int, link: str | None):
        self.namespace = Namespace()
        self.nics = nics
        self.link = link
        self._ip("link", "set", "lo", "up")
        for bridge in range(nics):
            self._ip("link", "add", f"br{bridge}", "type", "bridge", "stp_state", "0", "forward_delay", "0")
            self._ip("link", "set", f"br{bridge}", "up")
        self._ip("addr", "add", f"{CLIENT}/{PREFIX}", "dev", "br0")

    def _ip(self, *arguments: str) -> str:
        return self.namespace.run("ip", *arguments)

    def stay_address(self, number: int) -> str:
        """Where machine `number` (1: source, 2, 3…: targets) is itself, whatever guest it runs."""
        return f"10.{8 if self.nics == 1 else 9}.0.{10 + number}"

    @property
    def migration_nic(self) -> int:
        return self.nics - 1

    def add_tap(self, machine: str, nic: int) -> str:
        """A tap on bridge `nic`; returns its name."""
        tap = f"{machine}{nic}"
        self._ip("tuntap", "add", tap, "mode", "tap", "vnet_hdr")
        self._ip("link", "set", tap, "master", f"br{nic}", "up")
        self._shape(tap, "root")
        return tap

    def _shape(self, device: str, *parent: str) -> None:
        if not self.link:
            return
        rate = bits_per_second(self.link)
        burst = max(int(rate / 8 * SPAN_S), WHOLE_BYTES)
        bucket = f"tbf rate {rate} burst {burst} limit {2 * burst}"
        self.namespace.run("tc", "qdisc", "add", "dev", device, *parent, *bucket.split())

    def shape_loopback(self, port: int) -> None:
        """What is sent to this TCP port on loopback goes over a link of the same rate; nothing else is slowed."""
        # the classes only part the traffic; the bucket in the first is the link
        for command in (
            "qdisc add dev lo root handle 1: htb default 2",
            "class add dev lo parent 1: classid 1:1 htb rate 100gbit quantum 200000",
            "class add dev lo parent 1: classid 1:2 htb rate 100gbit quantum 200000",
            f"filter add dev lo parent 1: protocol ip u32 match ip dport {port} 0xffff flowid 1:1",
        ):
            self.namespace.run("tc", *command.split())
        self._shape("lo", "parent", "1:1")

    def loopback_bytes(self) -> int:
        """Sent over it so far, headers included."""
        answer = json.loads(self._ip("-s", "-j", "link", "show", "lo"))
        return answer[0]["stats64"]["tx"]["bytes"]

    def cut(self, tap: str) -> None:
        """Pulls a tap's cable: frames are lost both ways, the guest sees no link change."""
        self._ip("link", "set", tap, "nomaster")

    def mend(self, tap: str) -> None:
        self._ip("link", "set", tap, "master", f"br{tap[-1]}")

    def close(self) -> None:
        self.namespace.close()
