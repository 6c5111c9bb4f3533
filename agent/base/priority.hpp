// SPDX-License-Identifier: Apache-2.0
// How this process shares the processors with the rest of the guest.
#pragma once

namespace smig {

// Leaves the control group of whoever called, for the root's: with its service or session the kernel would
// end it too, and give it no more than that group's share.  Without cgroup v2, or the right to it: nothing.
void leave_control_group();

// Nice value, -20 … 19, of this process and of its session: where the kernel shares the processors among
// sessions first (sched_autogroup), only the session's matters against others.  What is not allowed stays.
void set_nice(int nice);

}  // namespace smig
