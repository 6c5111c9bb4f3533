# SPDX-License-Identifier: Apache-2.0
"""The module against the kernel's own checkers: gcc with W=1 and sparse on both kernels, checkpatch on every file."""

import re
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lab import install, kernels  # noqa: E402
from lab.errors import LabError  # noqa: E402
from lab.paths import BUILD, REPO  # noqa: E402

SERIES = ("6.1", "6.12")
SOURCE = Path("/usr/src/linux-source-6.1.tar.xz")
CHECKPATCH = ("checkpatch.pl", "spelling.txt", "const_structs.checkpatch")
# The first four speak against lists of names that several macros expand; CONST_STRUCT against net_device_ops that we
# copy in order to change one of them.
IGNORED = (
    "COMPLEX_MACRO",
    "MACRO_ARG_REUSE",
    "TRAILING_SEMICOLON",
    "MULTISTATEMENT_MACRO_USE_DO_WHILE",
    "CONST_STRUCT",
)
HARMLESS = re.compile(r"Skipping BTF generation|the compiler differs|kernel was built by|You are using")


def compile_clean(series: str) -> list[str]:
    """Every complaint of gcc W=1, objtool and sparse."""
    release = kernels.find(series).release
    out = BUILD / "kmod-checked" / release
    command = ["make", "-C", str(REPO / "kmod"), f"KERNEL={release}", f"OUT={out}"]
    subprocess.run([*command, "clean"], check=True, capture_output=True)
    done = subprocess.run([*command, "W=1", "C=1"], check=False, capture_output=True, text=True)
    lines = (done.stdout + done.stderr).splitlines()
    # our files only: the kernel's own headers are not ours to mend
    wrong = [
        line
        for line in lines
        if re.search(r"warning|error", line, re.I) and not HARMLESS.search(line) and "/usr/src/linux-headers" not in line
    ]
    return wrong if done.returncode == 0 else wrong or lines[-20:]


def checkpatch() -> list[str]:
    """Every complaint of checkpatch --strict."""
    folder = BUILD / "checkpatch"
    if not all((folder / name).exists() for name in CHECKPATCH):
        folder.mkdir(parents=True, exist_ok=True)
        members = [f"linux-source-6.1/scripts/{name}" for name in CHECKPATCH]
        subprocess.run(["tar", "-xJf", str(SOURCE), "-C", str(folder), "--strip-components=2", *members], check=True)
    files = [*sorted((REPO / "kmod").rglob("*.[chS]")), REPO / "common/uapi/selfmigrate.h"]
    done = subprocess.run(
        [
            "perl",
            str(folder / "checkpatch.pl"),
            "--no-tree",
            "--strict",
            "--terse",
            "--no-summary",
            "--show-types",
            "--max-line-length=100",
            f"--ignore={','.join(IGNORED)}",
            "-f",
            *map(str, files),
        ],
        check=False,
        capture_output=True,
        text=True,
    )
    return [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]


def main() -> int:
    try:
        install.install(print)
        results = {f"gcc W=1 and sparse on {series}": compile_clean(series) for series in SERIES}
    except LabError as error:
        print(error)
        return 1
    results["checkpatch --strict"] = checkpatch()
    for what, wrong in results.items():
        print(f"{'FAIL' if wrong else 'ok  '} {what}", *wrong, sep="\n     ")
    failed = sum(bool(wrong) for wrong in results.values())
    print(f"{len(results) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
