// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include "agent/base/fd.hpp"

namespace smig {

// This process leaves the control group of whoever called, for the root's: the kernel would end it together
// with that service or session.  Without cgroup v2, or the right to it: it stays where it is.
inline void leave_control_group() {
    if (const Fd members(::open("/sys/fs/cgroup/cgroup.procs", O_WRONLY | O_CLOEXEC)); members)
        [[maybe_unused]]
        const ssize_t written = ::write(members.get(), "0", 1);
}

}  // namespace smig
