// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/result.hpp"

namespace smig {

// Gives back page cache that need not be written first; files are read from their disks again.  Error
// (refused).
[[nodiscard]] Result<void> drop_clean_cache();

}  // namespace smig
