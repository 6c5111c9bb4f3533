// SPDX-License-Identifier: Apache-2.0
#include "agent/source/supervision.hpp"

#include "common/uapi/selfmigrate.h"

namespace smig {

namespace {

// A clone's clock has jumped over the whole blackout, so that everything looks overdue at first.
constexpr std::int64_t kCloneGraceMs = 30'000;

}  // namespace

Supervision supervise(const Observation& seen) {
    if (seen.reported) {
        const bool clone_may_ask = seen.jump_sent && !seen.woke_as_clone;
        if (!clone_may_ask) return Supervision::leave;
        return seen.stop_process_alive ? Supervision::watch : Supervision::refuse;
    }
    const bool is_clone = seen.device_state == SMIG_STATE_CLONE || seen.device_state == SMIG_STATE_OWING;
    if (seen.stop_process_alive) {
        if (!seen.overdue) return Supervision::watch;
        if (seen.device_state == 0 || (is_clone && seen.clone_seen_ms <= kCloneGraceMs))
            return Supervision::watch;
        return Supervision::kill;
    }
    if (is_clone) return Supervision::be_clone;
    if (seen.device_state == SMIG_STATE_GIVEN) return Supervision::give;
    // The module is still undoing, or does not answer.
    if (seen.device_state != SMIG_STATE_IDLE) return Supervision::watch;
    // Nothing but a release ends CLONE.
    if (seen.woke_as_clone) return Supervision::tell_moved;
    return seen.jump_sent ? Supervision::report_refuse : Supervision::report_leave;
}

}  // namespace smig
