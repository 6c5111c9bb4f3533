// SPDX-License-Identifier: Apache-2.0
// Watches the stop process, exempt from freezing as it is, and goes on where it dies: the module says where
// that is.
#pragma once

#include "agent/base/fd.hpp"
#include "agent/source/stop_process.hpp"

namespace smig {

// Runs in the forked process until all is over; its exit code.  `stop_process` is its pidfd; `listener` and
// `report` are the stop process's.
int run_supervisor(StopPlan& plan, Fd stop_process, Fd listener, Fd report);

}  // namespace smig
