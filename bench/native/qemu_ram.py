# SPDX-License-Identifier: Apache-2.0
"""How fast one emulator's pages reach another's on loopback: two of them with a paused guest of random memory.

No guest runs, so nothing is written meanwhile and one pass is all.  The same content for both sides of the comparison:
random pages, of which none is zero and none packs.
"""

import os
import subprocess
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Iterator

from lab.errors import LabError
from lab.netns import Namespace, end
from lab.qmp import Qmp

PORT = 4445
BLOCK_MIB = 64
TIMEOUT_S = 120


@contextmanager
def random_file(mib: int) -> Iterator[Path]:
    """In memory; its blocks repeat, its pages within a block do not."""
    with tempfile.NamedTemporaryFile(prefix="selfmigrate-bench-", dir="/dev/shm") as file:
        block = os.urandom(BLOCK_MIB << 20)
        for at in range(0, mib, BLOCK_MIB):
            file.write(block[: min(BLOCK_MIB, mib - at) << 20])
        file.flush()
        yield Path(file.name)


class _Emulator:
    def __init__(self, inside: Namespace, folder: Path, name: str, backend: str, *more: str):
        socket = folder / name
        command = ["qemu-system-x86_64", "-machine", "q35,memory-backend=ram", "-accel", "tcg", "-nodefaults",
                   "-display", "none", "-S", "-object", backend, "-qmp", f"unix:{socket},server=on,wait=off", *more]  # fmt: skip
        self.process = inside.popen(command, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while True:
            try:
                self.qmp = Qmp(socket)
                return
            except OSError as error:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    end(self.process)
                    raise LabError(f"QEMU did not start: {error}") from error
                time.sleep(0.02)

    def close(self) -> None:
        end(self.process)


def gbit_per_s(inside: Namespace, content: Path, mib: int, channels: int) -> float:
    """Payload of one migration of `mib` of memory, over the time QEMU says it took; 0 channels: without multifd."""
    with ExitStack() as ending:
        folder = Path(ending.enter_context(tempfile.TemporaryDirectory(prefix="selfmigrate-bench-")))
        size = ["-m", str(mib)]
        filled = f"memory-backend-file,id=ram,size={mib}M,mem-path={content},share=off"
        source = _Emulator(inside, folder, "source", filled, *size)
        ending.callback(source.close)
        twin = _Emulator(inside, folder, "twin", f"memory-backend-ram,id=ram,size={mib}M", *size, "-incoming", "defer")
        ending.callback(twin.close)
        for one in (source, twin):
            if channels:
                one.qmp.call("migrate-set-capabilities", capabilities=[{"capability": "multifd", "state": True}])
                one.qmp.call("migrate-set-parameters", **{"multifd-channels": channels})
            one.qmp.call("migrate-set-parameters", **{"max-bandwidth": 10**12})
        twin.qmp.call("migrate-incoming", uri=f"tcp:127.0.0.1:{PORT}")
        source.qmp.call("migrate", uri=f"tcp:127.0.0.1:{PORT}")
        state = _completed(source)
        if state["ram"]["normal"] < mib * 256 * 0.95:
            raise LabError(f"QEMU sent only {state['ram']['normal']} whole pages of {mib} MiB")
        return state["ram"]["normal"] * 4096 * 8 / (state["total-time"] / 1e3) / 1e9


def _completed(source: _Emulator) -> dict[str, Any]:
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        state = source.qmp.call("query-migrate")
        if state.get("status") == "completed":
            return state
        if state.get("status") in ("failed", "cancelled"):
            raise LabError(f"QEMU's migration {state['status']}: {state.get('error-desc', 'no reason given')}")
        time.sleep(0.02)
    raise LabError(f"QEMU's migration takes more than {TIMEOUT_S} s")
