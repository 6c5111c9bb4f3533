// SPDX-License-Identifier: Apache-2.0
// The processes of a World.
#pragma once

#include <map>

#include "tests/sim/world.hpp"

namespace smig::sim {

// One `to`: the stop process (with the agent before it), its supervisor, its control port.
struct World::Attempt : std::enable_shared_from_this<World::Attempt> {
    explicit Attempt(const WireId& epoch) : machine(epoch, SourceLimits{}) {}

    SourceMachine machine;
    ConnectionPtr main;
    std::map<int, ConnectionPtr> callers;
    int next_caller = 1;
    smig_wire_image_end sent{};
    int passes_left = 0;
    std::int64_t watched = kNever;
    std::unique_ptr<OwedIndex> owed_index;  // of whoever serves
    std::unique_ptr<OwedDispatch> owed;
    std::map<smig_wire_owed_role, ConnectionPtr> owed_links;
    bool stop_alive = true;
    bool supervisor_alive = true;
    bool adopted = false;  // the supervisor drives the machine
    bool captured = false;
    bool committed = false;
    bool jump_sent = false;

    [[nodiscard]] bool answers() const { return stop_alive || adopted; }
};

// One session of `receive`.
struct World::Target : std::enable_shared_from_this<World::Target> {
    explicit Target(std::int64_t now) : machine(TargetLimits{}, now) {}

    TargetMachine machine;
    ConnectionPtr connection;
    smig_wire_ready counts{};
    std::array<std::uint64_t, 3> contents{};  // of the three pages
    WireId epoch{};
    std::int64_t watched = kNever;
    bool alive = true;  // its process
};

struct World::Clone : std::enable_shared_from_this<World::Clone> {
    Clone(const WireId& its_epoch, const WireId& nonce)
        : machine(its_epoch, nonce, CloneLimits{}), epoch(its_epoch), boot_nonce(nonce) {}

    CloneMachine machine;
    WireId epoch;
    WireId boot_nonce;
    ConnectionPtr control;
    std::unique_ptr<OwedMachine> owed;
    std::map<smig_wire_owed_role, ConnectionPtr> owed_links;
    int process = 1;  // the how manieth that drives it
    std::int64_t watched = kNever;
    bool alive = true;  // its machine
};

}  // namespace smig::sim
