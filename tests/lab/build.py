# SPDX-License-Identifier: Apache-2.0
"""Builds what a guest needs: the agent, the module, and the lab's own programs."""

import subprocess
from pathlib import Path

from .errors import LabError
from .kernels import Kernel
from .paths import AGENT, BUILD, LAB, PROGRAMS, REPO

JOBS = "-j2"


def _run(what: str, *command: str) -> None:
    done = subprocess.run(
        command,
        cwd=REPO,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise LabError(f"building {what} failed: {' '.join(command)}\n{done.stdout[-6000:]}")


def programs() -> Path:
    """The programs of tests/lab/guest and tests/lab/observe; returns their folder."""
    _run(
        "the lab's programs",
        "cmake",
        "-S",
        str(LAB),
        "-B",
        str(PROGRAMS),
        "-G",
        "Ninja",
        "-Wno-dev",
        "-DCMAKE_BUILD_TYPE=Release",
    )
    _run("the lab's programs", "cmake", "--build", str(PROGRAMS), JOBS)
    return PROGRAMS


def agent() -> Path:
    """The release build of the agent."""
    _run("the agent", "cmake", "--preset", "release")
    _run("the agent", "cmake", "--build", str(AGENT.parent), JOBS, "--target", "selfmigrate")
    if not AGENT.exists():
        raise LabError(f"the build made no {AGENT}")
    return AGENT


def module(kernel: Kernel) -> Path:
    """selfmigrate.ko for `kernel`."""
    _run("the module", "make", "-C", "kmod", f"KERNEL={kernel.release}")
    built = BUILD / "kmod" / kernel.release / "selfmigrate.ko"
    if not built.exists():
        raise LabError(f"the build made no {built}")
    return built
