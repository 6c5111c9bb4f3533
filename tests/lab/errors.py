# SPDX-License-Identifier: Apache-2.0
"""What can go wrong in the lab, as one type: its text is for a person."""


class LabError(Exception):
    """The lab or what it watches failed; the text says what, and where to look."""


class Timeout(LabError):
    """Something did not happen in its time."""
