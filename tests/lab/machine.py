# SPDX-License-Identifier: Apache-2.0
"""One virtual machine: QEMU's command line, its life, its console, its state for a post-mortem.

All machines of a setup have the same devices at the same PCI addresses; only MACs differ.
"""

import re
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from . import tsc
from .channel import Commands, Verdicts
from .errors import LabError, Timeout
from .netns import Namespace, end
from .qmp import Qmp

# rep movsb and rep stosb are very slow under emulation; kernels that see these flags use them for everything
TCG_CPU = "max,erms=off,fsrm=off"
FIRST_NIC_ADDRESS = 4
DISK_ADDRESS = 6
SERIAL_ADDRESS = 7
DISK_MODELS = {  # name: (its host adapter, the disk, its place)
    "virtio-blk": ("", "virtio-blk-pci", f"addr={DISK_ADDRESS}"),
    "nvme": ("", "nvme", f"addr={DISK_ADDRESS}"),
    "virtio-scsi": (f"virtio-scsi-pci,id=scsi,addr={DISK_ADDRESS}", "scsi-hd", "bus=scsi.0"),
    "ata": ("", "ide-hd", "bus=ide.0"),  # the machine's own
}


@dataclass(frozen=True)
class Nic:
    tap: str
    mac: str
    model: str = "virtio-net-pci"


@dataclass(frozen=True)
class Disk:
    """A raw file that several machines may write, one after the other."""

    file: Path
    serial: str
    model: str = "virtio-blk"  # one of DISK_MODELS
    cache: str = "writethrough"


@dataclass(frozen=True)
class Shape:
    """What a machine is, but for its name and its place in the network."""

    vcpus: int
    memory_mib: int
    accel: str = "tcg,thread=multi"
    cpu: str = TCG_CPU
    extra: tuple[str, ...] = ()


@dataclass
class Boot:
    kernel: Path
    initrd: Path
    append: list[str] = field(default_factory=list)
    reboots: bool = False  # a target may reset into its landing environment; a source must not


CONSOLE = ["console=ttyS0", "no_console_suspend", "loglevel=6", "random.trust_cpu=on", "sysrq_always_enabled"]


class Machine:
    """A QEMU process.  `logs` gets its console; `sockets` must be a short path."""

    def __init__(
        self,
        name: str,
        shape: Shape,
        boot: Boot,
        nics: list[Nic],
        disk: Disk | None,
        namespace: Namespace,
        logs: Path,
        sockets: Path,
    ):
        self.name, self.shape, self.nics, self.disk = name, shape, nics, disk
        self.console_path = logs / f"{name}.console"
        self._errors_path = logs / f"{name}.qemu"
        socket_of = {use: sockets / f"{name}.{use}" for use in ("qmp", "console", "command", "verdict")}
        for left in socket_of.values():
            left.unlink(missing_ok=True)
        command = self._command_line(boot, socket_of)
        (logs / f"{name}.command").write_text(" ".join(command) + "\n")
        with open(self._errors_path, "wb") as errors:
            self.process = namespace.popen(command, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors)
        self.started_ns = time.monotonic_ns()
        self._console_socket = socket_of["console"]
        try:
            self._wait_sockets(list(socket_of.values()))
            self.qmp = Qmp(socket_of["qmp"])
            self.commands = Commands(socket_of["command"])
            self.verdicts = Verdicts(socket_of["verdict"])
        except BaseException:
            end(self.process)
            raise

    def _command_line(self, boot: Boot, socket_of: dict[str, Path]) -> list[str]:
        shape = self.shape
        command = [
            "qemu-system-x86_64",
            "-name",
            self.name,
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-accel",
            shape.accel,
            "-cpu",
            shape.cpu,
            "-smp",
            str(shape.vcpus),
            "-m",
            str(shape.memory_mib),
            "-kernel",
            str(boot.kernel),
            "-initrd",
            str(boot.initrd),
            "-append",
            " ".join(self._kernel_arguments(boot)),
            "-action",
            f"reboot={'reset' if boot.reboots else 'shutdown'},shutdown=pause",
            "-serial",
            "chardev:console",
            "-device",
            f"virtio-serial-pci,addr={SERIAL_ADDRESS},max_ports=4",
        ]
        for use, path in socket_of.items():
            log = f",logfile={self.console_path}" if use == "console" else ""
            command += ["-chardev", f"socket,id={use},path={path},server=on,wait=off{log}"]
        command += [
            "-mon",
            "chardev=qmp,mode=control",
            "-device",
            "virtserialport,nr=1,chardev=command,name=lab.command",
            "-device",
            "virtserialport,nr=2,chardev=verdict,name=lab.verdict",
        ]
        for number, nic in enumerate(self.nics):
            command += [
                "-netdev",
                f"tap,id=nic{number},ifname={nic.tap},script=no,downscript=no",
                "-device",
                f"{nic.model},netdev=nic{number},mac={nic.mac},addr={FIRST_NIC_ADDRESS + number}," "romfile=",
            ]
        if self.disk:
            host, drive, place = DISK_MODELS[self.disk.model]
            command += ["-device", host] if host else []
            command += [
                "-drive",
                f"file={self.disk.file},format=raw,if=none,id=disk0,cache={self.disk.cache},"
                "file.locking=off",
                "-device",
                f"{drive},drive=disk0,serial={self.disk.serial},share-rw=on,{place}",
            ]
        return command + list(shape.extra)

    def _kernel_arguments(self, boot: Boot) -> list[str]:
        arguments = list(CONSOLE)
        if self.shape.accel.startswith("tcg"):
            arguments.append(f"tsc_early_khz={tsc.khz()}")
            if self.shape.vcpus > 1:
                # All its processors read one time stamp counter, which the kernel believes only if told so.  It would take
                # the HPET, each look at which leaves the emulated processor and waits for the others'.
                arguments.append("tsc=reliable")
        if boot.reboots:
            arguments.append("panic=1")
        return arguments + boot.append

    def _wait_sockets(self, paths: list[Path]) -> None:
        deadline = time.monotonic() + 10
        while not all(path.exists() for path in paths):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise LabError(f"QEMU for {self.name} did not start: {self._errors_path.read_text().strip()}")
            time.sleep(0.01)

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def boot_failed(self) -> str:
        """Why this VM did not come up, if that is not our doing; empty otherwise."""
        try:
            self.process.wait(2)
        except subprocess.TimeoutExpired:
            console = self.console()
            if "detected stall" in console and "selfmigrate: " not in console:
                return "its kernel stalled before our module was loaded"
            # a processor that has seen less than ten ticks since it was started: none of its timers comes any more
            if re.search(r"Possible timer handling issue on cpu=\d+ timer-softirq=\d\b", console):
                return "the emulator has lost a processor's timer"
            return ""
        said = self._errors_path.read_text(errors="replace").strip()
        return said if "Assertion" in said else ""

    def console(self) -> str:
        return self.console_path.read_text(errors="replace")

    def wait_console(self, pattern: str, timeout_s: float, after: int = 0) -> re.Match:
        """The first match of `pattern` in the console from character `after` on."""
        deadline = time.monotonic() + timeout_s
        compiled = re.compile(pattern)
        while True:
            match = compiled.search(self.console(), after)
            if match:
                return match
            if not self.alive:
                raise LabError(f"the VM {self.name} has ended")
            if time.monotonic() > deadline:
                raise Timeout(f"{pattern!r} did not appear on {self.name}'s console in {timeout_s:.0f} s")
            time.sleep(0.02)

    def wait_status(self, status: str, timeout_s: float) -> None:
        """Until QEMU says that the VM is "shutdown", "running" …"""
        deadline = time.monotonic() + timeout_s
        while self.qmp.status() != status:
            if time.monotonic() > deadline:
                raise Timeout(
                    f"the VM {self.name} is {self.qmp.status()}, not {status}, after {timeout_s:.0f} s"
                )
            time.sleep(0.02)

    def disk_writes(self) -> tuple[int, int]:
        """Write operations and bytes that the disk has seen from this VM."""
        for device in self.qmp.call("query-blockstats"):
            if device.get("device") == "disk0":
                return device["stats"]["wr_operations"], device["stats"]["wr_bytes"]
        return 0, 0

    def dump(self, logs: Path) -> str:
        """Leaves registers and status in `logs`, all tasks' stacks in the console; returns the last console lines."""
        last = self.console().splitlines()[-25:]
        if self.alive:
            try:
                (logs / f"{self.name}.state").write_text(
                    self.qmp.status()
                    + "\n"
                    + self.qmp.monitor("info registers -a")
                    + self.qmp.monitor("info network")
                )
                # the kernel tells on the console who waits for what
                for key in "9wt":
                    self.sysrq(key)
                time.sleep(3)
            except (LabError, OSError) as error:
                (logs / f"{self.name}.state").write_text(f"{error}\n")
        return "\n".join(last)

    def sysrq(self, key: str) -> None:
        """Break and a key on the serial console: the kernel acts at once, whatever its processes do."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as console:
            console.connect(str(self._console_socket))
            self.qmp.call("chardev-send-break", id="console")
            time.sleep(0.1)
            console.sendall(key.encode())
            time.sleep(0.1)

    def kill(self) -> None:
        """As pulling the plug."""
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        for part in (self.qmp, self.commands, self.verdicts):
            part.close()
        end(self.process)
