#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How the C++ looks and what clang-tidy says of it.

tests/check_style.py [format] [tidy]     both when none is named; tidy needs build/dev configured
"""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build/dev"
FORMAT = "clang-format-19"
TIDY = "clang-tidy-19"


def sources() -> list[Path]:
    found = [path for top in ("agent", "tests") for path in (ROOT / top).rglob("*") if path.suffix in {".cpp", ".hpp"}]
    return sorted(path for path in found if "build" not in path.parts)


def check_format() -> bool:
    return subprocess.run([FORMAT, "--dry-run", "--Werror", *map(str, sources())], check=False).returncode == 0


def tidy(path: str) -> tuple[str, str]:
    """What clang-tidy finds in one file; empty when nothing."""
    # g++'s own warnings are not clang's business.
    command = [TIDY, "-p", str(BUILD), "--quiet", "--extra-arg=-Wno-unknown-warning-option", path]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
    return path, done.stdout.strip() if done.returncode != 0 else ""


def check_tidy() -> bool:
    units = {entry["file"] for entry in json.loads((BUILD / "compile_commands.json").read_text(encoding="utf-8"))}
    ours = sorted(unit for unit in units if Path(unit).is_relative_to(ROOT / "agent") or Path(unit).is_relative_to(ROOT / "tests"))
    clean = True
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for path, found in pool.map(tidy, ours):
            if found:
                print(f"{Path(path).relative_to(ROOT)}:\n{found}", flush=True)
                clean = False
    return clean


def main() -> int:
    checks = {"format": check_format, "tidy": check_tidy}
    wanted = sys.argv[1:] or list(checks)
    if unknown := [name for name in wanted if name not in checks]:
        print(f"no check {unknown[0]!r}; there are {', '.join(checks)}", file=sys.stderr)
        return 2
    return 0 if all([checks[name]() for name in wanted]) else 1


if __name__ == "__main__":
    sys.exit(main())
