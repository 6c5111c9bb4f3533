# SPDX-License-Identifier: Apache-2.0
"""A source, its client outside and its targets, joined by a network: everything a move needs, and no move.

    with Setup(plan, logs) as setup:
        setup.boot_source()
        setup.boot_target()
"""

import re
import shutil
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Callable

from . import accel, build, debian, image, kernels
from .errors import LabError, Timeout
from .machine import Boot, Disk, Machine, Nic, Shape
from .network import CLIENT, FOLLOW, PREFIX, Network
from .shell import Session, fetch

BOOT_TIMEOUT_S = 60
SYSTEMD_TIMEOUT_S = 240
GUESTS = ("small", "debian")
BOOT_ATTEMPTS = 3
LANDING_IMAGE = "/tmp/landing.img"
TARGET_SAYS = re.compile(r"selfmigrate receive: (listening|a source calls|state)")


@dataclass(frozen=True)
class Plan:
    """What to build a setup from."""

    kernel: str = "6.1"
    vcpus: int = 1
    memory_mib: int = 512
    link: str | None = "1gbit"
    nics: int = 1
    nic_model: str = "virtio-net-pci"
    disk: str | None = "virtio-blk"  # model of the shared disk
    disk_mib: int = 256  # `debian` brings its own
    guest: str = "small"  # one of GUESTS
    append: tuple[str, ...] = ()  # more of the guest's kernel command line
    extra: tuple[str, ...] = ()  # more of the emulator's command line, of every machine


@dataclass
class Built:
    """Images for one kernel, made once."""

    kernel: kernels.Kernel
    guest: Path  # initramfs
    accel: str
    disk: Path | None = None  # what the shared disk is a copy of


_built: dict[tuple[str, str], Built] = {}
_landing_images: dict[tuple, bytes] = {}


def prepare(series: str, tell: Callable[[str], None] = lambda text: None, guest: str = "small") -> Built:
    """Builds everything for a kernel series and a guest, once a process."""
    key = series, guest
    if key not in _built:
        kernel = kernels.find(series)
        tell(f"building agent, module and guest image for {kernel.release}")
        build.programs()
        parts = kernel, build.agent(), build.module(kernel)
        if guest == "debian":
            made = debian.build(*parts, tell)
            _built[key] = Built(kernel, made.initrd, accel.choose(kernel), made.disk)
        else:
            _built[key] = Built(kernel, image.small(*parts), accel.choose(kernel))
    return _built[key]


class Setup:
    """Owns processes, namespace, files; leaving it ends all of them."""

    def __init__(self, plan: Plan, logs: Path):
        self.plan, self.logs = plan, logs
        self.built = prepare(plan.kernel, guest=plan.guest)
        logs.mkdir(parents=True, exist_ok=True)
        self.machines: list[Machine] = []
        self._ending = ExitStack()
        self._sockets = Path(tempfile.mkdtemp(prefix="selfmigrate-lab-"))
        self._ending.callback(shutil.rmtree, self._sockets, ignore_errors=True)
        self.network = Network(plan.nics, plan.link)
        self._ending.callback(self.network.close)
        self.namespace = self.network.namespace
        self.shape = Shape(
            plan.vcpus,
            plan.memory_mib,
            self.built.accel,
            "host" if self.built.accel == accel.KVM else Shape.cpu,
            plan.extra,
        )
        self.disk = self._make_disk("shared", plan.disk) if plan.disk else None
        self._source: tuple[Boot, list[Nic]]  # what the source was booted from

    def __enter__(self) -> "Setup":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        self._ending.close()

    def own(self, part: Any) -> Any:
        """Ends `part` (by its close) together with the setup."""
        self._ending.callback(part.close)
        return part

    def _make_disk(self, name: str, model: str) -> Disk:
        file = self.logs / f"{name}.img"
        self._ending.callback(file.unlink, missing_ok=True)
        if self.built.disk:
            self.namespace.run("cp", "--sparse=always", str(self.built.disk), str(file))
            return Disk(file, f"lab-{name}", model)
        with open(file, "wb") as content:
            content.truncate(self.plan.disk_mib << 20)
        self.namespace.run(
            "mke2fs", "-q", "-t", "ext4", "-E", "lazy_itable_init=0,lazy_journal_init=0", str(file)
        )
        return Disk(file, f"lab-{name}", model)

    def other_disk(self) -> Disk:
        """A disk that looks like the shared one and is another."""
        assert self.plan.disk
        return replace(self._make_disk("other", self.plan.disk), serial="lab-shared")

    def tap(self, machine: str, nic: int) -> str:
        return f"{machine}{nic}"

    def _nics(self, machine: str, number: int) -> list[Nic]:
        """Machine `number`'s cards: service first, migration last (the same one when there is one)."""
        return [
            Nic(self.network.add_tap(machine, nic), f"52:54:00:00:0{nic}:{number:02x}", self.plan.nic_model)
            for nic in range(self.plan.nics)
        ]

    def stay(self, number: int) -> str:
        return self.network.stay_address(number)

    @property
    def source(self) -> Machine:
        return self.machines[0]

    def boot_source(
        self, name: str = "source", append: tuple[str, ...] = (), shape: Shape | None = None
    ) -> Machine:
        """The guest's first VM, booted and answering."""
        nics = self._nics(name, 1)
        service = [f"{self.stay(1)}/{PREFIX}"] if self.plan.nics == 1 else []
        arguments = [
            f"lab.name={name}",
            f"lab.follow={FOLLOW}",
            f"lab.nic={','.join([nics[0].mac, *service, f'{FOLLOW}/{PREFIX}'])}",
            *self.plan.append,
            *append,
        ]
        if self.plan.nics == 2:
            arguments.append(f"lab.nic={nics[1].mac},{self.stay(1)}/{PREFIX}")
        if self.built.disk:
            arguments += [f"root=LABEL={debian.LABEL}", "ro"]
        elif self.disk:
            arguments.append("lab.disk=1")
        self._source = Boot(self.built.kernel.image, self.built.guest, arguments), nics
        return self._boot(name, shape or self.shape, *self._source, self.disk, self._wait_up)

    def _wait_up(self, machine: Machine) -> None:
        """Until the guest is there, with all that it starts."""
        if self.plan.guest != "debian":
            return machine.commands.wait_ready(BOOT_TIMEOUT_S)
        machine.commands.wait_ready(SYSTEMD_TIMEOUT_S)
        _, state = machine.commands.attempt("systemctl is-system-running --wait", SYSTEMD_TIMEOUT_S)
        if state.strip() != "running":
            _, failed = machine.commands.attempt("systemctl --failed --no-legend --plain")
            raise LabError(f"the guest's systemd says {state.strip()}: {failed.strip()}")

    def incoming_twin(self) -> Machine:
        """A VM that waits for the source's state to come from the source's emulator."""
        boot, nics = self._source
        taps = [replace(nic, tap=self.network.add_tap("twin", number)) for number, nic in enumerate(nics)]
        shape = replace(self.shape, extra=(*self.shape.extra, "-incoming", "defer"))
        return self._boot("twin", shape, boot, taps, self.disk, lambda _: None)

    def _boot(
        self,
        name: str,
        shape: Shape,
        boot: Boot,
        nics: list[Nic],
        disk: Disk | None,
        wait_until_up: Callable[[Machine], None],
    ) -> Machine:
        """A VM that is up.  With several vCPUs the emulator may die or stall at boot, of itself: it is booted anew."""
        for attempt in range(BOOT_ATTEMPTS):
            machine = Machine(name, shape, boot, nics, disk, self.namespace, self.logs, self._sockets)
            self.machines.append(machine)
            self._ending.callback(machine.close)
            try:
                wait_until_up(machine)
                return machine
            except (LabError, OSError):
                if not (reason := machine.boot_failed()) or attempt == BOOT_ATTEMPTS - 1:
                    raise
                print(f"{name} did not boot: {reason}", file=sys.stderr)
                self.machines.remove(machine)
                machine.close()
                for log in self.logs.glob(f"{name}.*"):
                    if log.is_file():
                        log.rename(log.with_name(f"died-{attempt}-{log.name}"))
        raise AssertionError

    def landing_image(self) -> Path:
        """The target's initramfs, made by the guest itself and brought out over SSH.

        It depends on the kernel, the kinds of devices and the guest's drivers alone, so it is made once a process for each.
        """
        plan = self.plan
        key = (self.built.kernel.release, plan.nic_model, plan.disk, plan.guest)
        if key not in _landing_images:
            self.source.commands.run(f"selfmigrate landing-image -o {LANDING_IMAGE}", timeout_s=120)
            _landing_images[key] = fetch(self.namespace, FOLLOW, LANDING_IMAGE)
            self.source.commands.run(f"rm {LANDING_IMAGE}")
        image = self._sockets / "landing.img"
        if not image.exists():
            image.write_bytes(_landing_images[key])
        return image

    def boot_target(
        self,
        number: int = 2,
        *,
        name: str | None = None,
        shape: Shape | None = None,
        kernel: kernels.Kernel | None = None,
        landing: Path | None = None,
        disk: Disk | None = None,
        without_disk: bool = False,
        append: tuple[str, ...] = (),
    ) -> Machine:
        """A VM in its landing environment, waiting for a guest."""
        name = name or f"target{number if number > 2 else ''}"
        nics = self._nics(name, number)
        arguments = [
            f"selfmigrate.net={nics[-1].mac},{self.stay(number)}/{PREFIX}",
            f"selfmigrate.listen={self.stay(number)}",
            "selfmigrate.insecure",
            *append,
        ]
        boot = Boot(
            (kernel or self.built.kernel).image, landing or self.landing_image(), arguments, reboots=True
        )
        return self._boot(
            name,
            shape or self.shape,
            boot,
            nics,
            None if without_disk else disk or self.disk,
            self.wait_listening,
        )

    def wait_listening(self, machine: Machine, after: int = 0) -> None:
        """Until the target waits for a guest: what it said last, after character `after`, is that it listens."""
        deadline = time.monotonic() + BOOT_TIMEOUT_S
        while True:
            said = TARGET_SAYS.findall(machine.console(), after)
            if said and said[-1] == "listening":
                return
            if not machine.alive:
                raise LabError(f"the VM {machine.name} has ended")
            if time.monotonic() > deadline:
                raise Timeout(f"{machine.name} does not listen for a guest after {BOOT_TIMEOUT_S} s")
            time.sleep(0.02)

    def move(self, number: int, *options: str, told: Callable[[str], None] | None = None) -> Session:
        """Starts `selfmigrate to` in the guest, over SSH as a person would."""
        command = " ".join(["selfmigrate", "to", self.stay(number), "--insecure", *options])
        # a shell stays behind it: the SSH client reports a process that a signal ended as a success
        return self.own(Session(self.namespace, FOLLOW, f"{command}; exit $?", told))

    def arrived(self, origin: Machine, target: Machine) -> None:
        """The guest of `origin` now runs in `target`: its programs answer on that VM's ports."""
        target.commands.continue_from(origin.commands)

    @staticmethod
    def client_address() -> str:
        return CLIENT


def logs_folder(parent: Path, what: str) -> Path:
    """A new folder for one run's consoles and logs."""
    # the emulator's options would take some signs for their own
    first = folder = parent / f"{time.strftime('%Y%m%d-%H%M%S')}-{re.sub('[^A-Za-z0-9.+-]', '-', what)}"
    number = 1
    while folder.exists():
        number += 1
        folder = parent / f"{first.name}-{number}"
    folder.mkdir(parents=True)
    return folder
