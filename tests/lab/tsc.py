# SPDX-License-Identifier: Apache-2.0
"""How fast this host's time stamp counter runs.

Under emulation a guest sees the host's counter, but measures its rate against emulated timers: on a busy host
it has come out at a fifth.  All guests are told the rate instead, as the kernel allows where its own
measurement is known to be unreliable.
"""

import re
import subprocess
from functools import cache

from .paths import PROGRAMS


@cache
def khz() -> int:
    measured = subprocess.run([str(PROGRAMS / "tsc_rate")], capture_output=True, text=True, check=True).stdout
    match = re.fullmatch(r"(\d+)\n", measured)
    assert match, measured
    return int(match.group(1))
