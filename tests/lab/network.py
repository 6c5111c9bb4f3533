# SPDX-License-Identifier: Apache-2.0
"""Bridges, taps and shaped links inside one namespace.

    client 10.8.0.254 ──┐ br0                      one NIC: service and migration share it
                        ├── tap of the source      two NICs: br0 carries the service (10.8.0.0/24),
                        └── tap of each target               br1 the migration  (10.9.0.0/24)

A tap's queue discipline shapes what goes to its guest: every link has the given rate, each way.  With a delay each
machine is away from the bridge by half of it (link/delay_link.cpp), so two machines are a whole one apart:

    br0 ── TAPf ─ delay_link ─ TAPn ── TAPb (a bridge) ── TAP
"""

import fcntl
import json
import os
import re
import socket
import struct
import subprocess
from dataclasses import dataclass

from .errors import LabError
from .netns import Namespace, end
from .paths import PROGRAMS

CLIENT = "10.8.0.254"
FOLLOW = "10.8.0.1"
PREFIX = 24
# 2 ms: the host's timers are no finer than such a burst, and a longer queue delays the answer to whoever waits for
# one page.
SPAN_S = 0.002
# What a guest hands over at once; a bucket that holds less would cut it, and an emulated CPU take each piece alone.
WHOLE_BYTES = 68 * 1024
RATES = {"bit": 1, "kbit": 10**3, "mbit": 10**6, "gbit": 10**9}
TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x2, 0x1000, 0x4000
PEERS = ("10.10.0.1", "10.10.0.2")  # the emulators' own


@dataclass(frozen=True)
class Link:
    """Each way: `rate` in bit/s, `delay_us` from one machine to another."""

    rate: int
    delay_us: int = 0

    @staticmethod
    def parse(text: str) -> "Link":
        """ "1gbit", "200mbit+5ms"."""
        match = re.fullmatch(r"(\d+(?:\.\d+)?)(k|m|g)?bit(?:\+(\d+(?:\.\d+)?)(m|u)s)?", text.lower())
        if not match:
            raise LabError(f"a link looks like 1gbit or 200mbit+5ms, not {text!r}")
        number, factor, delay, unit = match.groups()
        delay_us = float(delay or 0) * (1000 if unit == "m" else 1)
        return Link(int(float(number) * RATES[(factor or "") + "bit"]), int(delay_us))


def _tap(namespace: Namespace, name: str) -> int:
    """A tap that lives as long as this descriptor."""
    with namespace.entered():
        fd = os.open("/dev/net/tun", os.O_RDWR)
    try:
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
    except OSError as error:
        os.close(fd)
        raise LabError(f"tap {name}: {error}") from error
    return fd


class Delay:
    """Two new taps, each in its namespace, joined by a link that takes `delay_us` either way."""

    def __init__(self, one: tuple[Namespace, str], other: tuple[Namespace, str], delay_us: int):
        taps = [_tap(*one), _tap(*other)]
        command = [str(PROGRAMS / "delay_link"), *map(str, taps), str(delay_us)]
        self._process = one[0].popen(command, stdin=subprocess.DEVNULL, pass_fds=taps)
        for tap in taps:
            os.close(tap)

    def processor_s(self) -> float:
        """Seconds of processor time that it has taken."""
        with open(f"/proc/{self._process.pid}/stat", encoding="ascii") as stat:
            user, system = stat.read().rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        end(self._process)


class PeerLink:
    """A delayed link between two places that are each in a namespace of their own, for the emulators' connection."""

    def __init__(self, link: Link):
        self._places = [Namespace(), Namespace()]
        self._delay = Delay((self._places[0], "peer"), (self._places[1], "peer"), link.delay_us)
        self.processor_s = self._delay.processor_s
        for place, address in zip(self._places, PEERS):
            place.run("ip", "addr", "add", f"{address}/{PREFIX}", "dev", "peer")
            place.run("ip", "link", "set", "peer", "up")
            _shape(place, link, "peer", "root")

    def connected(self) -> tuple[socket.socket, socket.socket]:
        """The two ends of a TCP connection over it."""
        with self._places[1].socket() as listening:
            listening.bind((PEERS[1], 0))
            listening.listen(1)
            near = self._places[0].socket()
            near.settimeout(10)
            near.connect(listening.getsockname())
            far, _ = listening.accept()
        for one in (near, far):
            one.setblocking(True)
        return near, far

    def sent_bytes(self) -> int:
        """From the first to the second place so far, headers included."""
        return _sent_bytes(self._places[0], "peer")

    def close(self) -> None:
        self._delay.close()
        for place in self._places:
            place.close()


def _sent_bytes(namespace: Namespace, device: str) -> int:
    return json.loads(namespace.run("ip", "-s", "-j", "link", "show", device))[0]["stats64"]["tx"]["bytes"]


def _shape(namespace: Namespace, link: Link | None, device: str, *parent: str) -> None:
    if not link:
        return
    burst = max(int(link.rate / 8 * SPAN_S), WHOLE_BYTES)
    bucket = f"tbf rate {link.rate} burst {burst} limit {2 * burst}"
    namespace.run("tc", "qdisc", "add", "dev", device, *parent, *bucket.split())


class Network:
    """What joins the machines of one setup.  `link` (Link.parse) may be None: not shaped."""

    def __init__(self, nics: int, link: str | None):
        self.namespace = Namespace()
        self.nics = nics
        self.link = Link.parse(link) if link else None
        self._delays: list[Delay | PeerLink] = []
        self._bridge_of: dict[str, str] = {}  # a tap's
        self._ip("link", "set", "lo", "up")
        for bridge in range(nics):
            self._add_bridge(f"br{bridge}")
        self._ip("addr", "add", f"{CLIENT}/{PREFIX}", "dev", "br0")

    def _ip(self, *arguments: str) -> str:
        return self.namespace.run("ip", *arguments)

    def _add_bridge(self, name: str) -> None:
        self._ip("link", "add", name, "type", "bridge", "stp_state", "0", "forward_delay", "0")
        self._ip("link", "set", name, "up")

    def stay_address(self, number: int) -> str:
        """Where machine `number` (1: source, 2, 3…: targets) is itself, whatever guest it runs."""
        return f"10.{8 if self.nics == 1 else 9}.0.{10 + number}"

    @property
    def migration_nic(self) -> int:
        return self.nics - 1

    def add_tap(self, machine: str, nic: int) -> str:
        """A tap on bridge `nic`, or its delay away from it; returns its name."""
        tap = f"{machine}{nic}"
        self._bridge_of[tap] = self._away(tap, f"br{nic}")
        self._ip("tuntap", "add", tap, "mode", "tap", "vnet_hdr")
        self._ip("link", "set", tap, "master", self._bridge_of[tap], "up")
        _shape(self.namespace, self.link, tap, "root")
        return tap

    def _away(self, tap: str, bridge: str) -> str:
        """The bridge that is half the delay away from `bridge`, for `tap` alone; without one `bridge` itself."""
        if not self.link or not self.link.delay_us:
            return bridge
        own, near, far = f"{tap}b", f"{tap}n", f"{tap}f"
        self._add_bridge(own)
        self._delays.append(Delay((self.namespace, near), (self.namespace, far), self.link.delay_us // 2))
        self._ip("link", "set", near, "master", own, "up")
        self._ip("link", "set", far, "master", bridge, "up")
        return own

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
        _shape(self.namespace, self.link, "lo", "parent", "1:1")

    def loopback_bytes(self) -> int:
        """Sent over it so far, headers included."""
        return _sent_bytes(self.namespace, "lo")

    def peer_link(self) -> PeerLink:
        """A link of the same rate and delay beside this network."""
        assert self.link
        link = PeerLink(self.link)
        self._delays.append(link)
        return link

    def cut(self, tap: str) -> None:
        """Pulls a tap's cable: frames are lost both ways, the guest sees no link change."""
        self._ip("link", "set", tap, "nomaster")

    def mend(self, tap: str) -> None:
        self._ip("link", "set", tap, "master", self._bridge_of[tap])

    def close(self) -> None:
        for delay in self._delays:
            delay.close()
        self.namespace.close()
