#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Arrows point one way: which folder may include which, checked from the #include lines.

    common <- kmod
    common <- agent/base <- {wire, page, device, machine, network, landing} <- policy <- report <- {source, peer} <- cli <- main

Nothing that ships includes a test.  Exit status 1 and a line per wrong arrow.
"""

import re
import sys
from pathlib import Path

# Folder: what it may include besides itself and common/.
BESIDE = {
    "agent/base": set(),
    "agent/wire": {"agent/base"},
    "agent/page": {"agent/base"},
    "agent/device": {"agent/base"},
    "agent/machine": {"agent/base"},
    "agent/network": {"agent/base", "agent/machine"},
    "agent/landing": {"agent/base", "agent/machine", "agent/network"},
}
LOWER = set(BESIDE)
POLICY = LOWER | {"agent/policy"}
REPORT = POLICY | {"agent/report"}
ALLOWED = BESIDE | {
    "agent/policy": LOWER,
    "agent/report": POLICY,
    "agent/source": REPORT,
    "agent/peer": REPORT,
    "agent/cli": REPORT | {"agent/source", "agent/peer"},
    "agent": REPORT | {"agent/source", "agent/peer", "agent/cli"},
    "common": set(),
    "kmod": set(),
}
# The one file that may know a library, and the library's header.
ONLY = {
    r"<roaring/.*>": "agent/page/page_set.cpp",
    r"<lz4.*>": "agent/wire/page_block.cpp",
    r"<sys/ioctl.h>": ("agent/device/char_device.cpp", "agent/machine/", "agent/network/", "agent/landing/"),
}
INCLUDE = re.compile(r'^\s*#\s*include\s+(?:"([^"]+)"|(<[^>]+>))', re.MULTILINE)
SOURCES = {".c", ".cpp", ".h", ".hpp", ".S"}


def folder_of(path: str) -> str:
    """agent/wire/codec.hpp -> agent/wire; agent/main.cpp -> agent; kmod/arch/x86/jump.S -> kmod."""
    parts = path.split("/")
    if parts[0] == "agent" and len(parts) > 2:
        return "/".join(parts[:2])
    return parts[0]


def wrong_arrows(root: Path) -> list[str]:
    errors = []
    for top in ("agent", "common", "kmod"):
        for file in sorted((root / top).rglob("*")):
            if file.suffix not in SOURCES or file.name.endswith(".mod.c"):
                continue
            path = file.relative_to(root).as_posix()
            folder = folder_of(path)
            if folder not in ALLOWED:
                errors.append(f"{path}: folder {folder} has no place in the order")
                continue
            for quoted, angled in INCLUDE.findall(file.read_text(encoding="utf-8")):
                errors.extend(check(root, path, folder, quoted, angled))
    return errors


def check(root: Path, path: str, folder: str, quoted: str, angled: str) -> list[str]:
    if angled:
        wrong = []
        for pattern, owners in ONLY.items():
            if folder != "kmod" and re.fullmatch(pattern, angled) and not path.startswith(owners):
                wrong.append(f"{path}: only {owners} may include {angled}")
        return wrong
    if folder == "kmod" and "/" not in quoted:
        return []  # its own headers, and the UAPI by the include path of Kbuild
    if not (root / quoted).is_file():
        return [f"{path}: {quoted} is not a path from the root"]
    target = folder_of(quoted)
    if target == "tests" or target == "bench":
        return [f"{path}: includes {quoted}: nothing depends on tests"]
    if target in (folder, "common") or target in ALLOWED[folder]:
        return []
    return [f"{path}: includes {quoted}: {folder} must not know {target}"]


def main() -> int:
    root = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).resolve().parent.parent)
    errors = wrong_arrows(root)
    for error in errors:
        print(error)
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
