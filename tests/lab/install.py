# SPDX-License-Identifier: Apache-2.0
"""Installs the Debian packages of `requirements` that are missing (root, Debian 12)."""

import os
import shutil
import subprocess
import time
from typing import Callable

from .errors import LabError
from .paths import LAB

ATTEMPTS = 5
PAUSE_S = 10
LOCK_WAIT_S = 600


def required() -> list[str]:
    """The packages of `requirements`, in order."""
    lines = (LAB / "requirements").read_text().splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def missing(packages: list[str]) -> list[str]:
    """Which of `packages` are not installed."""
    query = subprocess.run(
        ["dpkg-query", "-W", "-f", "${db:Status-Status} ${Package}\n", *packages],
        capture_output=True,
        text=True,
        check=False,
    )
    installed = {line.split()[1] for line in query.stdout.splitlines() if line.startswith("installed ")}
    return [package for package in packages if package not in installed]


def _apt(*arguments: str) -> None:
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
    for attempt in range(ATTEMPTS):
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
        f"{' '.join(command[:1] + list(arguments)[:1])} failed {ATTEMPTS} times:\n{output[-2000:]}"
    )


def install(tell: Callable[[str], None]) -> None:
    """Makes every package of `requirements` present, or raises LabError."""
    absent = missing(required())
    if not absent:
        return
    if shutil.which("apt-get") is None:
        raise LabError("this needs Debian 12 with the packages " + " ".join(absent))
    if os.geteuid() != 0:
        raise LabError("must run as root, to install " + " ".join(absent))
    tell(f"installing {len(absent)} Debian packages: {' '.join(absent)}")
    _apt("update")
    _apt("install", "--no-install-recommends", *absent)
    absent = missing(absent)
    if absent:
        raise LabError("apt-get did not install " + " ".join(absent))
