# SPDX-License-Identifier: Apache-2.0
"""Writes a folder as a "newc" cpio archive, the form of an initramfs; everything is owned by root."""

import os
import stat
from pathlib import Path
from typing import BinaryIO


def _entry(out: BinaryIO, inode: int, name: str, mode: int, content: bytes) -> None:
    fields = (inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
    header = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
    out.write(header + b"\0" * (-len(header) % 4))
    out.write(content + b"\0" * (-len(content) % 4))


def write(folder: Path, out: BinaryIO) -> None:
    """Writes all of `folder`, uncompressed: under emulation unpacking costs more than loading."""
    inode = 1
    for parent, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(folders + files):
            path = Path(parent, name)
            mode = path.lstat().st_mode
            content = b""
            if stat.S_ISLNK(mode):
                content = os.readlink(path).encode()
            elif stat.S_ISREG(mode):
                content = path.read_bytes()
            _entry(out, inode, str(path.relative_to(folder)), mode, content)
            inode += 1
    _entry(out, 0, "TRAILER!!!", 0, b"")
