// SPDX-License-Identifier: Apache-2.0
// The clone's part, carried out: takes on this VM's identity, asks the source for GO, releases the guest,
// fetches what is owed to it.
//
// Runs in the stop process (or in the supervisor that took over from it) after the second return of CAPTURE,
// until the release while every other task is frozen.  One thread, no log, no file.
#pragma once

#include <functional>

#include "agent/base/clone_at.hpp"
#include "agent/base/power.hpp"
#include "agent/device/device.hpp"
#include "agent/network/identity.hpp"
#include "agent/policy/hold.hpp"
#include "agent/report/outcome.hpp"
#include "agent/wire/channel.hpp"

namespace smig {

struct CloneContext {
    Device& device;  // the move's owner, in state CLONE or OWING; released: nobody's
    const Handover& handover;
    unsigned stay_index = 0;                        // interface of the stay address
    std::function<Result<void>()> take_on_network;  // MACs and addresses of this VM
    // Tells the networks where the guest is now, and again after `gap_ms`; what failed.
    std::function<std::vector<std::string>(unsigned gap_ms)> announce;
    Power& power;
    const Holds& holds;
    Pulse pulse;
    MoveOutcome& outcome;          // filled on
    std::function<void()> report;  // called once, when all of the guest is here; `device` may be gone then
    std::function<void(std::uint64_t left)> tell_owing;  // now and then in OWING; may be empty
    CloneAt at = CloneAt::fenced;
};

// True: the guest runs here, and the source knows or cannot be told.  False: the source refused, and the
// kernel did not reset this VM as it was told to.
bool run_clone(CloneContext& context);

}  // namespace smig
