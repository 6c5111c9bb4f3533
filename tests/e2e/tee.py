# SPDX-License-Identifier: Apache-2.0
"""One source, two targets that get the very same bytes: makes two clones of one image.

Each target lives in a network of its own, where this proxy has the source's stay address; in the source's
network it has the target's.  Only the first target is heard; the second one's answers are dropped, and its
clone's call is taken down and never answered.
"""

import socket
import struct
import threading
from dataclasses import dataclass

from lab.netns import Namespace

PORT = 7077
HEADER = struct.Struct("<IHHIIQ")  # struct smig_wire_header
MAGIC = 0x47494D53
LAND, ALIVE = 8, 18
CONTROL_PORT_AT = 16  # in LAND
DRAWN_AT = 32  # in ALIVE


class Frames:
    """Cuts a stream of bytes into frames; keeps only those of a type that is asked for."""

    def __init__(self, wanted: int):
        self._wanted, self._buffer, self._skip = wanted, b"", 0

    def feed(self, content: bytes) -> bytes | None:
        """Payload of a wanted frame, once it is whole."""
        if self._skip:
            skipped = min(self._skip, len(content))
            self._skip -= skipped
            content = content[skipped:]
        self._buffer += content
        while len(self._buffer) >= HEADER.size:
            magic, _, kind, length, _, _ = HEADER.unpack_from(self._buffer)
            if magic != MAGIC:
                raise ValueError("this is no frame")
            end = HEADER.size + length
            if kind == self._wanted:
                if len(self._buffer) < end:
                    return None
                payload, self._buffer = self._buffer[HEADER.size : end], self._buffer[end:]
                return payload
            self._skip = max(end - len(self._buffer), 0)
            self._buffer = self._buffer[end:]
        return None


@dataclass
class Side:
    """A network the proxy stands in, and the address it has there."""

    namespace: Namespace
    address: str

    def take_address(self) -> None:
        self.namespace.run("ip", "addr", "add", f"{self.address}/24", "dev", "br0")

    def listen(self, port: int) -> socket.socket:
        listener = self.namespace.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((self.address, port))
        listener.listen(8)
        return listener

    def connect(self, address: str, port: int) -> socket.socket:
        connection = self.namespace.socket(socket.AF_INET, socket.SOCK_STREAM)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.bind((self.address, 0))
        connection.connect((address, port))
        return connection


class Tee:
    """Runs until closed.  `drawn[i]`: the random bytes that the clone on target i showed."""

    def __init__(self, source: Namespace, targets: list[Namespace], source_stay: str, target_stay: str):
        self._source = Side(source, target_stay)
        self._targets = [Side(namespace, source_stay) for namespace in targets]
        self._source_stay, self._target_stay = source_stay, target_stay
        self.drawn: list[bytes | None] = [None] * len(targets)
        self.news = threading.Condition()
        self._open: list[socket.socket] = []
        for side in [self._source, *self._targets]:
            side.take_address()
        self._listener = self._keep(self._source.listen(PORT))
        self._start(self._serve)

    def _keep(self, one: socket.socket) -> socket.socket:
        self._open.append(one)
        return one

    def _start(self, function, *arguments) -> None:
        def quietly() -> None:
            try:
                function(*arguments)
            except (OSError, ValueError):
                pass  # a side hung up, or the test is over

        threading.Thread(target=quietly, daemon=True).start()

    def _serve(self) -> None:
        upstream = self._keep(self._listener.accept()[0])
        upstream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        downstream = [self._keep(side.connect(self._target_stay, PORT)) for side in self._targets]
        self._start(self._pump, downstream[0], upstream)
        for other in downstream[1:]:
            self._start(self._pump, other, None)
        frames, listening = Frames(LAND), False
        while content := upstream.recv(1 << 18):
            if not listening:
                payload = frames.feed(content)
                if payload:
                    (port,) = struct.unpack_from("<I", payload, CONTROL_PORT_AT)
                    for index in range(len(self._targets)):
                        self._start(self._control, index, port)
                    listening = True
            for one in downstream:
                one.sendall(content)

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket | None) -> None:
        while content := source.recv(1 << 16):
            if sink:
                sink.sendall(content)

    def _control(self, index: int, port: int) -> None:
        """Takes the calls of one target's clone; only the first target's reach the source."""
        listener = self._keep(self._targets[index].listen(port))
        while True:
            clone = self._keep(listener.accept()[0])
            self._start(self._clone, index, port, clone)

    def _clone(self, index: int, port: int, clone: socket.socket) -> None:
        upstream = self._keep(self._source.connect(self._source_stay, port)) if index == 0 else None
        if upstream:
            self._start(self._pump, upstream, clone)
        frames = Frames(ALIVE)
        while content := clone.recv(1 << 16):
            payload = frames.feed(content)
            if payload and self.drawn[index] is None:
                with self.news:
                    self.drawn[index] = payload[DRAWN_AT : DRAWN_AT + 16]
                    self.news.notify_all()
            if upstream:
                upstream.sendall(content)

    def wait(self, timeout_s: float) -> bool:
        """True when every clone has called."""
        with self.news:
            return self.news.wait_for(lambda: all(self.drawn), timeout_s)

    def close(self) -> None:
        for one in self._open:
            one.close()
