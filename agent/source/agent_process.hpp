// SPDX-License-Identifier: Apache-2.0
// The detached agent of a move: checks, connects, forks the stop process and its supervisor, and waits for
// what they report.  Frozen with everything else during the stop; on the target it wakes up and tells its
// client.
//
// To its client it speaks JSON lines over a socket pair: {"progress": text}, {"progress_line": numbers}, and
// at last {"verdict": ..., "text": report, "json": report}.  From it it takes orders as from the order
// socket.  A client that is gone ends nothing.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "agent/base/fd.hpp"
#include "agent/base/power.hpp"
#include "agent/device/device.hpp"
#include "agent/network/identity.hpp"
#include "agent/policy/hold.hpp"
#include "agent/policy/transfer.hpp"
#include "agent/source/clone_entry.hpp"
#include "agent/source/machine.hpp"

namespace smig {

// What DESCRIBE says of this machine.
struct SourceDescription {
    std::string text;
    std::shared_ptr<void> kept;  // what must not go away before the target has answered
};

struct AgentOptions {
    std::string target;  // as written, for the report
    std::uint16_t port = 0;
    SourceLimits limits;
    std::vector<Hold> holds;
    TransferOptions transfer;
    std::string order_socket;  // its path; empty: none
    std::string last_move;     // file for the report; empty: none
    bool keep_source = false;
    bool insecure = false;
    std::uint64_t started_ns = 0;
    std::function<Result<NetworkPlan>()> plan;  // and where the target is: NetworkPlan::peer
    std::function<Result<SourceDescription>(const smig_info&)> describe;
    OpenDevice open_device;
    Power* power = nullptr;
    CloneMain clone_main;
};

// Runs until the move is over, one way or the other; the process's exit code.
int run_agent(const AgentOptions& options, Fd client);

}  // namespace smig
