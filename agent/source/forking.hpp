// SPDX-License-Identifier: Apache-2.0
// Forks the two processes that outlive the freeze.
#pragma once

#include "agent/base/fd.hpp"
#include "agent/base/result.hpp"
#include "agent/source/stop_process.hpp"

namespace smig {

// The caller keeps nothing of the connection and the listener.  Returns the reading end of the pipe that will
// bring one MoveOutcome; its end without one means that both processes died.
Result<Fd> fork_stop_and_supervisor(StopPlan& plan, StopConnection connection, Fd listener);

}  // namespace smig
