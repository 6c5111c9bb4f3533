// SPDX-License-Identifier: Apache-2.0
// The door from the source's code to the clone's: the process that wakes up on the target is the source's
// stop process, but what it has to do there is the peer's business (agent/peer/clone.hpp).  The command line
// joins the two.
#pragma once

#include <functional>
#include <string_view>

#include "agent/base/clone_at.hpp"
#include "agent/device/device.hpp"
#include "agent/network/identity.hpp"
#include "agent/policy/hold.hpp"
#include "agent/report/outcome.hpp"
#include "agent/wire/channel.hpp"

namespace smig {

struct CloneStart {
    Device& device;             // the move's owner, in state CLONE or OWING; released: nobody's
    std::string_view handover;  // as the target wrote it
    const NetworkPlan& plan;
    const Holds& holds;
    Pulse pulse;
    MoveOutcome& outcome;
    std::function<void()> report;  // closes the device and hands the outcome to the agent, once
    std::function<void(std::uint64_t left)> tell_owing;  // the guest runs, and so many pages are owed to it
    CloneAt at = CloneAt::fenced;
};

// True: the guest runs here.  False: it must not, and this VM should have been reset.
using CloneMain = std::function<bool(CloneStart&)>;

}  // namespace smig
