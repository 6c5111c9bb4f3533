# SPDX-License-Identifier: Apache-2.0
"""The guest image `small`: an initramfs for one kernel with busybox, Redis, an SSH server and our programs.

Small on purpose: the frames a guest uses decide how long a run takes.
"""

import hashlib
import io
import lzma
import os
import shutil
import subprocess
from pathlib import Path

from . import cpio
from .errors import LabError
from .kernels import Kernel
from .paths import LAB, OUT, PROGRAMS

# Modules a guest may need; their dependencies come along.
MODULES = (
    "virtio_pci",
    "virtio_net",
    "virtio_blk",
    "virtio_scsi",
    "sd_mod",
    "ata_piix",
    "virtio_console",
    "e1000",
    "nvme",
    "ext4",
    "crc32c_generic",
    "crct10dif_generic",
    "crc64_rocksoft_generic",
    # for the load of the module's tests
    "dummy",
    "zram",
    "lzo_rle",
)
GUEST_PROGRAMS = ("udp_echo", "commands", "ticker", "pages", "twins", "walker", "clocks", "assassin")
KEY = OUT / "ssh_key"


def _run(*command: str) -> str:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LabError(f"{' '.join(command)} failed: {done.stderr.strip()}")
    return done.stdout


def ssh_key() -> Path:
    """The lab's own SSH key, made once."""
    if not KEY.exists():
        OUT.mkdir(parents=True, exist_ok=True)
        _run("dropbearkey", "-t", "ed25519", "-f", str(KEY))
    return KEY


def public_key() -> str:
    """The line of authorized_keys that lets the lab in."""
    for line in _run("dropbearkey", "-y", "-f", str(ssh_key())).splitlines():
        if line.startswith("ssh-"):
            return line + "\n"
    raise LabError(f"dropbearkey cannot read {KEY}")


class Root:
    """A folder, new and empty, that becomes a guest's root."""

    def __init__(self, folder: Path):
        self.folder = folder
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)

    def path(self, inside: str) -> Path:
        path = self.folder / inside.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def text(self, inside: str, content: str, mode: int = 0o644) -> None:
        self.path(inside).write_text(content)
        self.path(inside).chmod(mode)

    def program(self, source: Path, inside: str) -> None:
        """A stripped copy of a program and the libraries it is linked with."""
        target = self.path(inside)
        shutil.copy(source.resolve(), target)
        target.chmod(0o755)
        subprocess.run(["strip", "-s", str(target)], stderr=subprocess.DEVNULL, check=False)
        linked = subprocess.run(["ldd", str(source)], capture_output=True, text=True, check=False)
        if linked.returncode != 0 and "not a dynamic executable" not in linked.stderr:
            raise LabError(f"ldd {source} failed: {linked.stderr.strip()}")
        for word in linked.stdout.split():
            if not word.startswith("/") or self.path(word).exists():
                continue
            shutil.copy(Path(word).resolve(), self.path(word))
            subprocess.run(["strip", "-s", str(self.path(word))], stderr=subprocess.DEVNULL, check=False)


def dependencies(kernel: Kernel, names: tuple[str, ...]) -> list[str]:
    """These modules and what they need, which comes first, as paths below /lib/modules/RELEASE."""
    needs = {}
    for line in (kernel.modules / "modules.dep").read_text().splitlines():
        path, _, needed = line.partition(":")
        needs[path] = needed.split()
    by_name = {Path(path).name.split(".ko")[0].replace("-", "_"): path for path in needs}
    wanted: list[str] = []
    for name in names:
        path = by_name.get(name)  # absent: built in
        for one in [*reversed(needs[path]), path] if path else []:
            if one not in wanted:
                wanted.append(one)
    return wanted


def module_bytes(kernel: Kernel, inside: str) -> bytes:
    """The module at a path below /lib/modules/RELEASE, unpacked."""
    content = (kernel.modules / inside).read_bytes()
    return lzma.decompress(content) if inside.endswith(".xz") else content


def _modules(root: Root, kernel: Kernel, ours: Path | None) -> None:
    base = f"lib/modules/{kernel.release}"
    for inside in dependencies(kernel, MODULES):
        root.path(f"{base}/{inside.removesuffix('.xz')}").write_bytes(module_bytes(kernel, inside))
    if ours:
        target = root.path(f"{base}/extra/selfmigrate.ko")
        shutil.copy(ours, target)
        _run("strip", "--strip-debug", str(target))
    for name in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
        shutil.copy(kernel.modules / name, root.path(f"{base}/{name}"))
    _run("depmod", "-b", str(root.folder), kernel.release)
    for name in (
        "modules.order",
        "modules.builtin.modinfo",
        "modules.alias.bin",
        "modules.dep.bin",
        "modules.symbols.bin",
        "modules.builtin.bin",
        "modules.builtin.alias.bin",
        "modules.symbols",
    ):
        root.path(f"{base}/{name}").unlink(missing_ok=True)


def _inputs(kernel: Kernel, agent: Path | None, module: Path | None) -> str:
    """Changes whenever anything that goes into the image changes."""
    digest = hashlib.sha256(public_key().encode())
    paths = [
        LAB / "image.py",
        LAB / "cpio.py",
        *sorted(path for path in (LAB / "guest").iterdir() if path.is_file()),
        kernel.modules / "modules.dep",
        *(PROGRAMS / name for name in GUEST_PROGRAMS),
        *filter(None, (agent, module)),
        *(Path(shutil.which(name) or name) for name in ("busybox", "redis-check-rdb", "dropbear")),
    ]
    for path in paths:
        digest.update(str(path).encode() + (path.read_bytes() if path.exists() else b""))
    return digest.hexdigest()


def small(kernel: Kernel, agent: Path | None, module: Path | None) -> Path:
    """Builds the image when something changed; returns the initramfs."""
    folder = OUT / "image" / kernel.release
    image, stamp = folder / "small.cpio", folder / "small.inputs"
    inputs = _inputs(kernel, agent, module)
    if image.exists() and stamp.exists() and stamp.read_text() == inputs:
        return image
    root = Root(folder / "root")
    root.program(Path("/usr/bin/busybox"), "bin/busybox")
    for applet in _run("busybox", "--list").split():
        if not root.path(f"bin/{applet}").exists():
            root.path(f"bin/{applet}").symlink_to("busybox")
    root.path("init").symlink_to("bin/busybox")
    root.program(Path("/usr/sbin/dropbear"), "bin/dropbear")
    # Debian's redis-server is a link to this one, which redis-tools brings without starting a service
    root.program(Path("/usr/bin/redis-check-rdb"), "usr/bin/redis-server")
    for name in GUEST_PROGRAMS:
        root.program(PROGRAMS / name, f"usr/bin/{name}")
    if agent:
        root.program(agent, "usr/bin/selfmigrate")
    root.text("etc/inittab", (LAB / "guest" / "inittab").read_text())
    root.text("etc/rc", (LAB / "guest" / "rc").read_text(), 0o755)
    root.text("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")
    root.text("etc/group", "root:x:0:\n")
    root.text("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n")
    root.text("etc/hosts", "127.0.0.1 localhost\n")
    root.text("root/.ssh/authorized_keys", public_key(), 0o600)
    for inside, mode in (("root", 0o700), ("root/.ssh", 0o700), ("tmp", 0o1777)):
        root.path(f"{inside}/x").parent.chmod(mode)
    for inside in ("proc", "sys", "dev", "run", "disk"):
        root.path(f"{inside}/x")
    _modules(root, kernel, module)
    with open(image, "wb") as out:
        cpio.write(root.folder, out)
    stamp.write_text(inputs)
    return image


def with_program(guest: Path, program: Path, folder: Path, *more: Path) -> Path:
    """A guest image with one more program, or several, made in `folder`: an initramfs may be several archives.

    Modules (.ko) among them are put beside the programs, as they are.
    """
    root = Root(folder / "extra")
    for one in (program, *more):
        if one.suffix == ".ko":
            shutil.copy(one, root.path(f"usr/bin/{one.name}"))
        else:
            root.program(one, f"usr/bin/{one.name}")
    added = io.BytesIO()
    cpio.write(root.folder, added)
    image = folder / "guest.cpio"
    image.write_bytes(guest.read_bytes() + added.getvalue())
    return image
