# SPDX-License-Identifier: Apache-2.0
"""A guest with one more program in it, built for the occasion."""

import dataclasses
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

from lab import image, kernels, setup
from lab.errors import LabError
from lab.machine import Machine
from lab.paths import OUT, REPO


def _build(source: Path, folder: Path) -> Path:
    program = folder / source.stem
    command = ["g++", "-std=c++20", "-O2", "-static", f"-I{REPO}", str(source), "-o", str(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LabError(f"building {source.stem} failed\n{done.stderr}")
    return program


def _module_files(kernel: kernels.Kernel, names: tuple[str, ...], folder: Path) -> list[Path]:
    """These modules of the kernel and what they need, unpacked, in the order in which they can be loaded."""
    files = []
    for inside in image.dependencies(kernel, names):
        file = folder / Path(inside).name.removesuffix(".xz")
        file.write_bytes(image.module_bytes(kernel, inside))
        files.append(file)
    return files


@contextmanager
def booted(
    plan: setup.Plan,
    source: Path,
    append: tuple[str, ...] = (),
    extra: tuple[str, ...] = (),
    accel: str = "",
    also: tuple[Path, ...] = (),
    modules: tuple[str, ...] = (),
) -> Iterator[tuple[setup.Setup, Machine]]:
    """The guest of `plan`, up, with the program of `source` in its path, and those of `also`; `modules` are loaded.

    `append`: to its kernel's command line; `extra`, `accel`: of the emulator.
    """
    logs = setup.logs_folder(OUT / "runs", f"bench-{source.stem}")
    with tempfile.TemporaryDirectory() as name, setup.Setup(plan, logs) as lab:
        folder = Path(name)
        files = _module_files(lab.built.kernel, modules, folder)
        guest = image.with_program(lab.built.guest, _build(source, folder), folder, *also, *files)
        lab.built = dataclasses.replace(lab.built, guest=guest)
        shape = dataclasses.replace(lab.shape, accel=accel or lab.shape.accel, extra=extra)
        machine = lab.boot_source(append=append, shape=shape)
        for file in files:
            loaded = f"grep -q '^{file.stem.replace('-', '_')} ' /proc/modules"
            machine.commands.run(f"insmod /usr/bin/{file.name} 2>/dev/null || {loaded}")
        yield lab, machine
    shutil.rmtree(logs)  # kept when something went wrong
