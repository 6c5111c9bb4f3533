// SPDX-License-Identifier: Apache-2.0
#include "agent/cli/clone_entry.hpp"

#include "agent/base/power.hpp"
#include "agent/peer/clone.hpp"

namespace smig {

bool clone_main(CloneStart& start) {
    MachinePower power;
    auto handover = parse_handover(start.handover);
    if (!handover) {
        // Nobody to ask; the source has not given, for it was never asked.
        power.reset();
        return false;
    }
    const NetworkPlan& plan = start.plan;
    CloneContext context{start.device,
                         handover.value(),
                         plan.stay_index,
                         [&] { return apply_handover(handover.value(), plan); },
                         [&](unsigned gap_ms) { return announce(plan, gap_ms); },
                         power,
                         start.holds,
                         start.pulse,
                         start.outcome,
                         start.report,
                         start.tell_owing,
                         start.at};
    return run_clone(context);
}

}  // namespace smig
