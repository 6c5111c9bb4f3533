# SPDX-License-Identifier: Apache-2.0
"""Every test of the project, from the quickest to the slowest; as root on Debian 12, installs what it needs.

tests/run          all of it
tests/run NAME…    only these parts: unit asan module kmod e2e
"""

import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from lab import install  # noqa: E402
from lab.errors import LabError  # noqa: E402
from lab.kernels import find  # noqa: E402
from lab.paths import REPO  # noqa: E402

SERIES = ("6.1", "6.12")


def parts() -> dict[str, list[list[str]]]:
    """The commands of every part, in order; a part passes when all of them do."""
    return {
        "unit": [
            ["cmake", "--preset", "dev"],
            ["cmake", "--build", "--preset", "dev"],
            ["ctest", "--preset", "dev"],
        ],
        "asan": [
            ["cmake", "--preset", "asan"],
            ["cmake", "--build", "--preset", "asan"],
            ["ctest", "--preset", "asan"],
        ],
        "module": [["make", "-C", "kmod", f"KERNEL={find(series).release}", "W=1"] for series in SERIES],
        "kmod": [["tests/kmod/run"]],
        "e2e": [["tests/e2e/run"]],
    }


def main() -> int:
    try:
        install.install(print)
        all_parts = parts()
    except LabError as error:
        print(error)
        return 1
    wanted = sys.argv[1:] or list(all_parts)
    unknown = [name for name in wanted if name not in all_parts]
    if unknown:
        print(f"no part {unknown[0]!r}; there are {', '.join(all_parts)}", file=sys.stderr)
        return 2
    start = time.monotonic()
    failed = []
    for name in wanted:
        part_start = time.monotonic()
        print(f"── {name}", flush=True)
        for command in all_parts[name]:
            if subprocess.run(command, cwd=REPO, check=False).returncode != 0:
                failed.append(name)
                break
        print(
            f"── {name}: {'FAILED' if name in failed else 'passed'} in {time.monotonic() - part_start:.0f} s",
            flush=True,
        )
    print(
        f"all parts in {time.monotonic() - start:.0f} s: "
        + (f"FAILED: {', '.join(failed)}" if failed else f"{', '.join(wanted)} passed")
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
