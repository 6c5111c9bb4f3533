// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace smig {

// What `git describe` said of the tree this was built from.
const char* version_text();

}  // namespace smig
