# SPDX-License-Identifier: Apache-2.0
"""Which accelerator really boots a stock kernel here.

/dev/kvm may be there and hang all the same (nested, without hardware support), so a kernel is booted and has
to say so.  The answer holds until the host boots again, and is kept that long.
"""

import subprocess
import tempfile
import time
from pathlib import Path

from . import cpio
from .kernels import Kernel
from .netns import end
from .paths import OUT

TCG = "tcg,thread=multi"
KVM = "kvm"
PATIENCE_S = 8
GREETING = "lab: this kernel runs"


def _boots_under_kvm(kernel: Kernel) -> bool:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        root = folder / "root"
        (root / "bin").mkdir(parents=True)
        (root / "bin/busybox").write_bytes(Path("/usr/bin/busybox").read_bytes())
        (root / "bin/busybox").chmod(0o755)
        (root / "init").write_text(f"#!/bin/busybox sh\necho {GREETING}\nsleep 60\n")
        (root / "init").chmod(0o755)
        with open(folder / "initrd", "wb") as out:
            cpio.write(root, out)
        console = folder / "console"
        console.touch()
        machine = subprocess.Popen(
            [
                "setpriv",
                "--pdeathsig",
                "KILL",
                "qemu-system-x86_64",
                "-accel",
                "kvm",
                "-cpu",
                "host",
                "-m",
                "256",
                "-nodefaults",
                "-display",
                "none",
                "-no-reboot",
                "-serial",
                f"file:{console}",
                "-kernel",
                str(kernel.image),
                "-initrd",
                str(folder / "initrd"),
                "-append",
                "console=ttyS0 panic=-1",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            deadline = time.monotonic() + PATIENCE_S
            while time.monotonic() < deadline and machine.poll() is None:
                if GREETING in console.read_text(errors="replace"):
                    return True
                time.sleep(0.05)
            return False
        finally:
            end(machine)


def choose(kernel: Kernel) -> str:
    """QEMU's -accel argument."""
    if not Path("/dev/kvm").exists():
        return TCG
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    answer = OUT / "accel" / f"{kernel.release}.{boot_id}"
    if not answer.exists():
        answer.parent.mkdir(parents=True, exist_ok=True)
        answer.write_text(KVM if _boots_under_kvm(kernel) else TCG)
    return answer.read_text()
