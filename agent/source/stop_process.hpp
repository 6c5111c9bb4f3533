// SPDX-License-Identifier: Apache-2.0
// The one process that runs while the guest is stopped: makes room on the target, sends memory in passes
// while the guest runs, stops and captures it, sends what is left, and gives the guest away or takes it back.
// On the target it wakes up again, as the clone's first process.
//
// Single-threaded, memory locked, heap and buffers there before the stop; from the stop on it writes no file
// and no log and resolves no name.  Its death before commit closes the device, and the module undoes
// everything.
#pragma once

#include <cstdint>
#include <string>

#include "agent/base/fd.hpp"
#include "agent/base/power.hpp"
#include "agent/device/device.hpp"
#include "agent/network/identity.hpp"
#include "agent/policy/hold.hpp"
#include "agent/policy/transfer.hpp"
#include "agent/source/clone_entry.hpp"
#include "agent/source/machine.hpp"
#include "agent/source/shared_state.hpp"
#include "agent/wire/frame.hpp"

namespace smig {

// What the stop process and the supervisor are forked with.
struct StopPlan {
    SourceMachine machine;  // in CHECKING, its clocks sampled
    SharedState* shared = nullptr;
    smig_wire_land land{};
    std::uint16_t target_port = 0;
    NetworkPlan network;
    Holds holds;
    TransferOptions transfer;
    bool keep_source = false;
    OpenDevice open_device;
    Power* power = nullptr;
    CloneMain clone_main;
};

// The connection to the target, as the agent leaves it.
struct StopConnection {
    Fd socket;
    FrameWriter writer;
    std::uint32_t next_received_sequence = 0;
};

// Runs in the forked process until its part is over; its exit code.  `listener` is the control port, `report`
// the pipe that takes one MoveOutcome.
int run_stop_process(StopPlan& plan, StopConnection connection, Fd listener, Fd report);

// How the move ended, in one piece.  From then on nothing is lost with this process, which may be asked to
// end.
void tell_agent(int fd, const MoveOutcome& outcome, SharedState& shared);

}  // namespace smig
