# SPDX-License-Identifier: Apache-2.0
"""Every test of the project, from the quickest to the slowest; as root on Debian 12, installs what it needs.

tests/run          all of it
tests/run NAME…    only these parts: unit style asan module kmod e2e harsh (unit and style only on request)
"""

import re
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from lab import install  # noqa: E402
from lab.errors import LabError  # noqa: E402
from lab.paths import REPO  # noqa: E402

BUILD = [["cmake", "--preset", "dev"], ["cmake", "--build", "--preset", "dev"]]

# The commands of every part, in order; a part ends with the first that fails.
PARTS: dict[str, list[list[str]]] = {
    "unit": [*BUILD, ["ctest", "--preset", "dev"]],
    # clang-tidy reads how each file was built
    "style": [*BUILD, ["tests/lab/python", "tests/check_style.py"]],
    "asan": [
        ["cmake", "--preset", "asan"],
        ["cmake", "--build", "--preset", "asan"],
        ["ctest", "--preset", "asan"],
    ],
    "module": [["tests/lab/python", "tests/kmod/static_checks.py"]],
    "kmod": [["tests/kmod/run"]],
    "e2e": [["tests/e2e/run", "vCPU", "A to B", "clones"]],
    # much of it is waiting for somebody's patience to end
    "harsh": [["tests/e2e/run", "--jobs", "2", "in each phase", "while pages are owed", "clocks", "aged", "wrong targets", "two minutes"]],
}
# asan runs the tests of unit, and sees more
BY_DEFAULT = [name for name in PARTS if name not in ("unit", "style")]
OURS = re.compile(r"^(\d+) passed, (\d+) failed")
CTEST = re.compile(r"tests passed, (\d+) tests failed out of (\d+)")


class Count:
    """Tests, added up from the closing lines of every runner."""

    def __init__(self) -> None:
        self.passed = self.failed = 0

    def read(self, line: str) -> None:
        if match := OURS.search(line):
            self.passed += int(match.group(1))
            self.failed += int(match.group(2))
        elif match := CTEST.search(line):
            self.passed += int(match.group(2)) - int(match.group(1))
            self.failed += int(match.group(1))


def run(command: list[str], count: Count) -> bool:
    """Shows what the command prints as it comes; a command that fails without saying so is one failed test."""
    failed = count.failed
    with subprocess.Popen(
        command, cwd=REPO, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout
        for line in process.stdout:
            print(line, end="", flush=True)
            count.read(line)
    if process.returncode != 0 and count.failed == failed:
        print(f"{' '.join(command)} ended with {process.returncode}")
        count.failed += 1
    return process.returncode == 0


def main() -> int:
    wanted = sys.argv[1:] or BY_DEFAULT
    unknown = [name for name in wanted if name not in PARTS]
    if unknown:
        print(f"no part {unknown[0]!r}; there are {', '.join(PARTS)}", file=sys.stderr)
        return 2
    try:
        install.install(print)
    except LabError as error:
        print(error)
        print("0 passed, 1 failed")
        return 1
    count = Count()
    start = time.monotonic()
    for name in wanted:
        part_start = time.monotonic()
        print(f"── {name}", flush=True)
        passed = all(run(command, count) for command in PARTS[name])
        print(f"── {name}: {'passed' if passed else 'FAILED'} in {time.monotonic() - part_start:.0f} s", flush=True)
    print(f"all in {time.monotonic() - start:.0f} s")
    print(f"{count.passed} passed, {count.failed} failed")
    return 1 if count.failed or not count.passed else 0


if __name__ == "__main__":
    sys.exit(main())
