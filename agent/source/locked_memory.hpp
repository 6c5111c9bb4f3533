// SPDX-License-Identifier: Apache-2.0
// Makes a process fit to run while everything else is frozen: no page of it must be read from a disk, and
// malloc() must not ask the kernel, but for the list of owed pages, for which the module has memory then.
#pragma once

#include "agent/base/result.hpp"

namespace smig {

// Call in the forked, single-threaded process, before it allocates its buffers.  Error (refused).
Result<void> lock_memory();
// The heap that a stop may use, once everything large is allocated.
Result<void> reserve_heap();

}  // namespace smig
