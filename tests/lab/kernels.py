# SPDX-License-Identifier: Apache-2.0
"""Finds installed kernels by their series."""

import re
from dataclasses import dataclass
from pathlib import Path

from .errors import LabError

BOOT = Path("/boot")
HEADERS = Path("/usr/src")
MODULES = Path("/lib/modules")


@dataclass(frozen=True)
class Kernel:
    """One installed Debian cloud kernel that has its headers."""

    release: str

    @property
    def image(self) -> Path:
        return BOOT / f"vmlinuz-{self.release}"

    @property
    def modules(self) -> Path:
        return MODULES / self.release


def _order(release: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", release)]


def find(series: str) -> Kernel:
    """The newest kernel of `series` ("6.1", "6.12") with headers and modules."""
    pattern = re.compile(rf"vmlinuz-({re.escape(series)}\.\d.*-cloud-amd64)$")
    found = [match.group(1) for match in map(pattern.match, (path.name for path in BOOT.iterdir())) if match]
    found = [
        release
        for release in found
        if (HEADERS / f"linux-headers-{release}").is_dir() and (MODULES / release).is_dir()
    ]
    if not found:
        raise LabError(f"no cloud kernel {series} with its headers is installed (see tests/lab/requirements)")
    return Kernel(max(found, key=_order))
