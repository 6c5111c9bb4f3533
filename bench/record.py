# SPDX-License-Identifier: Apache-2.0
"""Raw results with where they come from: a folder with raw.json, raw.csv and the traces they were made of."""

import csv
import json
import os
import platform
import re
import subprocess
import time
from pathlib import Path
from typing import Any

from lab.paths import OUT, REPO


def _said(*command: str) -> str:
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def provenance() -> dict[str, Any]:
    """Commit, machine, kernel, emulator."""
    model = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    memory = re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text(encoding="utf-8"))
    return {
        "commit": _said("git", "describe", "--always", "--dirty"),
        "began": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cpu": model.group(1) if model else "unknown",
        "cores": os.cpu_count(),
        "memory_mib": int(memory.group(1)) // 1024 if memory else None,
        "host_kernel": platform.release(),
        "qemu": _said("qemu-system-x86_64", "--version").splitlines()[0],
    }


class Record:
    """Written anew as rows come: what was measured survives whatever comes next."""

    def __init__(self, what: str, folder: Path | None = None):
        self.folder = folder or OUT / "bench" / f"{time.strftime('%Y%m%d-%H%M%S')}-{what}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.origin = provenance()

    def keep(self, rows: list[dict[str, Any]]) -> None:
        """All rows there are so far."""
        whole = {"from": self.origin, "rows": rows}
        (self.folder / "raw.json").write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
        columns = list(dict.fromkeys(key for row in rows for key in row))
        with open(self.folder / "raw.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)
