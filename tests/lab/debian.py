# SPDX-License-Identifier: Apache-2.0
"""The guest image `debian`: a whole Debian 12 on a disk, as an installer leaves it: systemd, udev, journal, SSH, Redis,
a database (MariaDB) and a web server (Apache), its own kernel and initramfs; and our agent and module.
"""

import fcntl
import hashlib
import random
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import image
from .errors import LabError
from .install import ATTEMPTS, PAUSE_S, bookworm_sources
from .kernels import Kernel
from .paths import LAB, OUT, PROGRAMS

PACKAGES = (
    "systemd-sysv",
    "udev",
    "dbus",
    "kmod",
    "iproute2",
    "procps",
    "initramfs-tools",
    "openssh-server",
    "redis-server",
    "apache2",
    "mariadb-server",
    "sysbench",
)
FILES = LAB / "guest" / "debian"
UNITS = ("lab-network.service", "lab-programs.service")
# they run from boot to shutdown
SERVICES = (
    "systemd-journald",
    "systemd-udevd",
    "systemd-networkd",
    "dbus",
    "ssh",
    "apache2",
    "mariadb",
    "lab-programs",
)
LABEL = "debian"
DISK_MIB = 2048
WEB_PAGE = "page.bin"
WEB_PAGE_BYTES = 16 << 10


@dataclass(frozen=True)
class DebianImage:
    initrd: Path
    disk: Path  # never written: guests get a copy


def web_page() -> bytes:
    """What the guest's web server answers with."""
    return random.Random(1).randbytes(WEB_PAGE_BYTES)


def _run(*command: str) -> str:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LabError(f"{' '.join(command[:2])} failed: {done.stderr.strip()[-2000:]}")
    return done.stdout


def _digest(*parts: str | bytes | Path) -> str:
    digest = hashlib.sha256()
    for part in parts:
        content = part.read_bytes() if isinstance(part, Path) else part
        digest.update(content.encode() if isinstance(content, str) else content)
    return digest.hexdigest()


def _system(kernel: Kernel, folder: Path, tell: Callable[[str], None]) -> Path:
    """The installed system as an archive, without anything of ours; made when packages or kernel are others."""
    archive, stamp = folder / "system.tar", folder / "system.inputs"
    own_kernel = f"linux-image-{kernel.release}"
    command = ["mmdebstrap", "--mode=root", "--variant=minbase", f"--include={','.join((*PACKAGES, own_kernel))}"]
    # it reads nothing else of this machine's apt
    command += [f"--aptopt={line}" for line in _run("apt-config", "dump").splitlines() if re.match(r"Acquire::\S*proxy ", line, re.I)]
    sources = [str(path) for path in bookworm_sources()]
    # the image of this machine boots it, so its modules must be of the same build
    inputs = _digest(*command, *map(Path, sources), _run("dpkg-query", "-W", "-f", "${Version}", own_kernel))
    if archive.exists() and stamp.exists() and stamp.read_text() == inputs:
        return archive
    tell(f"installing a Debian system with {kernel.release} into an image")
    stamp.unlink(missing_ok=True)
    for attempt in range(ATTEMPTS):
        try:
            _run(*command, "bookworm", str(archive), *sources)
            break
        except LabError:
            if attempt == ATTEMPTS - 1:
                raise
            time.sleep(PAUSE_S)
    stamp.write_text(inputs)
    return archive


def _settle(root: image.Root, kernel: Kernel, agent: Path, module: Path) -> None:
    """Makes the installed system a guest of the lab."""
    inside = str(root.folder)
    for name in image.GUEST_PROGRAMS:
        root.program(PROGRAMS / name, f"usr/bin/{name}")
    root.program(agent, "usr/bin/selfmigrate")
    shutil.copy(module, root.path(f"usr/lib/modules/{kernel.release}/extra/selfmigrate.ko"))
    _run("depmod", "-b", inside, kernel.release)
    root.text("etc/modules-load.d/selfmigrate.conf", "selfmigrate\n")
    for name in ("network", "programs"):
        root.text(f"usr/lib/lab/{name}", (FILES / name).read_text(), 0o755)
    for name in UNITS:
        root.text(f"etc/systemd/system/{name}", (FILES / name).read_text())
    # Redis listens where the lab says; mounts and addresses are none of the image's
    _run("chroot", inside, "systemctl", "disable", "redis-server.service", "systemd-networkd-wait-online.service")
    _run("chroot", inside, "systemctl", "enable", "systemd-networkd.service", *UNITS)
    root.text("etc/fstab", f"LABEL={LABEL} / ext4 errors=remount-ro 0 1\n")
    root.text("root/.ssh/authorized_keys", image.public_key(), 0o600)
    root.path("root/.ssh/x").parent.chmod(0o700)
    root.text(
        "etc/apache2/conf-enabled/lab.conf", "ServerName guest\nKeepAliveTimeout 60\nMaxKeepAliveRequests 0\n"
    )
    root.path(f"var/www/html/{WEB_PAGE}").write_bytes(web_page())
    root.path("disk/x")


def build(kernel: Kernel, agent: Path, module: Path, tell: Callable[[str], None]) -> DebianImage:
    """Builds the image when something changed."""
    folder = OUT / "image" / kernel.release / "debian"
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # it takes minutes: somebody else may have begun
        return _build(kernel, agent, module, folder, tell)


def _build(kernel: Kernel, agent: Path, module: Path, folder: Path, tell: Callable[[str], None]) -> DebianImage:
    archive = _system(kernel, folder, tell)
    made, stamp = DebianImage(folder / "initrd", folder / "disk"), folder / "disk.inputs"
    programs = (PROGRAMS / name for name in image.GUEST_PROGRAMS)
    inputs = _digest(
        str(archive.stat().st_mtime_ns), image.public_key(), agent, module, Path(__file__), Path(image.__file__), *programs,
        *sorted(FILES.iterdir()),
    )  # fmt: skip
    if made.initrd.exists() and made.disk.exists() and stamp.exists() and stamp.read_text() == inputs:
        return made
    tell("putting agent and module into it")
    stamp.unlink(missing_ok=True)
    root = image.Root(folder / "root")
    try:
        _run("tar", "-C", str(root.folder), "--numeric-owner", "-xpf", str(archive))
        _settle(root, kernel, agent, module)
        shutil.copy(root.folder / "boot" / f"initrd.img-{kernel.release}", made.initrd)
        made.disk.unlink(missing_ok=True)
        _run("mke2fs", "-q", "-t", "ext4", "-L", LABEL, "-d", str(root.folder), str(made.disk), f"{DISK_MIB}M")
    finally:
        shutil.rmtree(root.folder, ignore_errors=True)
    stamp.write_text(inputs)
    return made
