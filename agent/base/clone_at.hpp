// SPDX-License-Identifier: Apache-2.0
// Where the clone's part is taken up: by the stop process as it wakes up, or later by a supervisor in its
// stead.
#pragma once

namespace smig {

enum class CloneAt {
    fenced,    // the guest stands still, and the source has to be asked
    owing,     // it runs, and pages of it are still on the source
    released,  // it runs, and nothing is owed: the agent and the source have to be told
};

}  // namespace smig
