// SPDX-License-Identifier: Apache-2.0
// Answers the clone on the control port as the machine says, for the stop process and for a supervisor that
// took over.
#pragma once

#include <vector>

#include "agent/base/power.hpp"
#include "agent/source/control_port.hpp"
#include "agent/source/machine.hpp"
#include "agent/source/owed_server.hpp"
#include "agent/source/shared_state.hpp"

namespace smig {

class CallerService {
public:
    CallerService(ControlPort& port, SharedState& shared, Power& power, bool keep_source, OwedServer& owed)
        : port_(port), shared_(shared), power_(power), keep_source_(keep_source), owed_(owed) {}

    // True: it was an answer to a caller, or the retirement, and is done.
    bool perform(const SourceAction& action, const SourceMachine& machine);

private:
    ControlPort& port_;
    SharedState& shared_;
    Power& power_;
    bool keep_source_;
    OwedServer& owed_;
};

}  // namespace smig
