# SPDX-License-Identifier: Apache-2.0
"""Where things are."""

from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
LAB = REPO / "tests" / "lab"
BUILD = REPO / "build"
OUT = BUILD / "lab"  # everything the lab makes
AGENT = BUILD / "release" / "selfmigrate"
PROGRAMS = OUT / "programs"
