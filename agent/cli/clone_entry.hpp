// SPDX-License-Identifier: Apache-2.0
// Joins the source's stop process to the clone's part (see agent/source/clone_entry.hpp).
#pragma once

#include "agent/source/clone_entry.hpp"

namespace smig {

bool clone_main(CloneStart& start);

}  // namespace smig
