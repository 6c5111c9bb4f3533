# SPDX-License-Identifier: Apache-2.0
"""Installs the Debian packages of `requirements` that are missing (root, Debian 12).

`NAME/bookworm-backports` asks for the newer build there.  The source for it is where this machine gets bookworm
itself from; it is used for this one installation and leaves nothing behind in the machine's configuration.
"""

import os
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Callable

from .errors import LabError
from .paths import LAB

ATTEMPTS = 5
PAUSE_S = 10
LOCK_WAIT_S = 600


BACKPORTS = "bookworm-backports"
BACKPORTED = re.compile("~bpo12|deb1[3-9]")  # in the version of a package from there
APT = Path("/etc/apt")


def required() -> list[str]:
    """The lines of `requirements`, in order."""
    lines = (LAB / "requirements").read_text().splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def missing(wanted: list[str]) -> list[str]:
    """Which of `wanted` are not installed, or not in the version that is asked for."""
    query = subprocess.run(
        ["dpkg-query", "-W", "-f", "${db:Status-Status} ${Package} ${Version}\n"]
        + [line.split("/")[0] for line in wanted],
        capture_output=True,
        text=True,
        check=False,
    )
    versions = {
        line.split()[1]: line.split()[2]
        for line in query.stdout.splitlines()
        if line.startswith("installed ")
    }

    def is_there(line: str) -> bool:
        name, _, suite = line.partition("/")
        return name in versions and (not suite or bool(BACKPORTED.search(versions[name])))

    return [line for line in wanted if not is_there(line)]


def backports_source(texts: list[str]) -> str | None:
    """A source of backports from where the first of these apt source files has bookworm from; None if none has."""
    for text in texts:
        for stanza in re.split(r"\n\s*\n", text):
            fields = dict(re.findall(r"^([A-Za-z-]+):[ \t]*(.+)$", stanza, re.MULTILINE))
            if "deb" in fields.get("Types", "").split() and "bookworm" in fields.get("Suites", "").split():
                signed = f"[signed-by={fields['Signed-By']}] " if "Signed-By" in fields else ""
                return f"deb {signed}{fields['URIs'].split()[0]} {BACKPORTS} main\n"
        line = re.search(r"^deb[ \t]+(\[[^\]\n]*\][ \t]+)?(\S+)[ \t]+bookworm[ \t]", text, re.MULTILINE)
        if line:
            return f"deb {line.group(1) or ''}{line.group(2)} {BACKPORTS} main\n"
    return None


def _source_files() -> list[Path]:
    files = [APT / "sources.list", *sorted((APT / "sources.list.d").glob("*"))]
    return [path for path in files if path.is_file()]


def bookworm_sources() -> list[Path]:
    """The apt source files of this machine that have bookworm, its updates or its security."""
    found = [
        path
        for path in _source_files()
        if path.suffix in (".list", ".sources") and re.search(r"\bbookworm\b", path.read_text(errors="replace"))
    ]
    if not found:
        raise LabError("no apt source of this machine has bookworm")
    return found


def _install_backported(packages: list[str]) -> None:
    main = APT / "sources.list"
    source = backports_source([path.read_text(errors="replace") for path in _source_files()])
    if source is None:
        raise LabError(f"no apt source of this machine has bookworm, so none for {BACKPORTS} is known")
    with tempfile.NamedTemporaryFile("w", suffix=".list") as added:
        added.write((main.read_text() if main.is_file() else "") + "\n" + source)
        added.flush()
        os.chmod(added.name, 0o644)
        with_it = ("-o", f"Dir::Etc::SourceList={added.name}")
        # where there are none, every run comes here
        _apt("update", *with_it, attempts=2)
        _apt("install", "--no-install-recommends", "-t", BACKPORTS, *with_it, *packages, attempts=2)


def _apt(*arguments: str, attempts: int = ATTEMPTS) -> None:
    """One apt-get call, repeated while another apt or the network is in the way."""
    command = [
        "apt-get",
        "-y",
        "-q",
        "-o",
        f"DPkg::Lock::Timeout={LOCK_WAIT_S}",
        "-o",
        "Acquire::Retries=3",
        "-o",
        "Dpkg::Options::=--force-confold",
        *arguments,
    ]
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive", LC_ALL="C")
    output = ""
    for attempt in range(attempts):
        if attempt:
            time.sleep(PAUSE_S)
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode == 0:
            return
        output = done.stdout
    raise LabError(
        f"{' '.join(command[:1] + list(arguments)[:1])} failed {attempts} times:\n{output[-2000:]}"
    )


def install(tell: Callable[[str], None], *more: str) -> None:
    """Makes every package of `requirements` present, and `more`, or raises LabError."""
    absent = missing(required() + list(more))
    if not absent:
        return
    if shutil.which("apt-get") is None:
        raise LabError("this needs Debian 12 with the packages " + " ".join(absent))
    if os.geteuid() != 0:
        raise LabError("must run as root, to install " + " ".join(absent))
    tell(f"installing {len(absent)} Debian packages: {' '.join(absent)}")
    plain = [line for line in absent if "/" not in line]
    backported = [line.split("/")[0] for line in absent if "/" in line]
    if plain:
        _apt("update")
        _apt("install", "--no-install-recommends", *plain)
    if backported:
        try:
            _install_backported(backported)
        except LabError as error:
            tell(f"{error}\nwithout {BACKPORTS}: Debian's own {', '.join(backported)} must do")
            _apt("update")
            _apt("install", "--no-install-recommends", *backported)
            absent = [line.split("/")[0] for line in absent]
    absent = missing(absent)
    if absent:
        raise LabError("apt-get did not install " + " ".join(absent))
