// SPDX-License-Identifier: Apache-2.0
// The clone's part of the owed phase, as a pure machine: two connections that are made anew for ever, what is
// waited for, and when all is here.  PROTOCOL.md has it as a table.
//
// Invariant: it ends only when the module says that nothing is missing.  What a fault waits for is asked for
// once on every demand connection, and again when no answer comes.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "agent/base/clock.hpp"
#include "common/wire.h"

namespace smig {

enum class OwedDo {
    connect,     // `role` -> connected() | lost()
    send_hello,  // `role`, `afresh`
    send_fetch,  // `pfns`, `again`
    send_taken,  // `role`, `frames`
    disconnect,  // `role`; no lost() follows
    repeat,      // have the module announce anew what is waited for -> faults()
    look,        // how many are missing -> left()
};

struct OwedAction {
    OwedDo what{};
    smig_wire_owed_role role{};
    bool afresh = false;
    bool again = false;
    std::uint64_t frames = 0;
    std::vector<std::uint64_t> pfns;
};
using OwedActions = std::vector<OwedAction>;

struct OwedLimits {
    std::int64_t first_pause = 10;  // between two attempts; doubled up to
    std::int64_t most_pause = 1'000;
    std::int64_t answer = 1'000;  // to FETCH, then it is sent again; doubled with each time up to
    std::int64_t most_answer = 16'000;
    std::int64_t look_every = 100;  // pages can also go because their last user lets go of them
    std::int64_t quiet = 5'000;     // so long nothing came though something is missing: ask afresh
};

class OwedMachine {
public:
    explicit OwedMachine(const OwedLimits& limits) : limits_(limits) {}

    [[nodiscard]] OwedActions begin(std::int64_t now_ms);
    [[nodiscard]] OwedActions connected(smig_wire_owed_role role, std::int64_t now_ms);
    // Also: could not be made; brought wrong bytes (the edge has closed it).
    [[nodiscard]] OwedActions lost(smig_wire_owed_role role, std::int64_t now_ms);
    // Somebody waits for these.
    [[nodiscard]] OwedActions faults(std::span<const std::uint64_t> pfns, std::int64_t now_ms);
    // An OWED_PAGES frame is installed; `left` are still missing.
    [[nodiscard]] OwedActions installed(smig_wire_owed_role role, std::span<const std::uint64_t> pfns,
                                        std::uint64_t left, std::int64_t now_ms);
    void left(std::uint64_t pages) { over_ = over_ || pages == 0; }
    [[nodiscard]] OwedActions tick(std::int64_t now_ms);

    // When tick() is due.
    [[nodiscard]] std::int64_t deadline_ms() const;
    [[nodiscard]] bool over() const { return over_; }
    // Somebody waits for a page.
    [[nodiscard]] bool waits() const { return !waited_for_.empty(); }

private:
    struct Link {
        enum class State { pausing, connecting, open } state = State::pausing;
        std::int64_t pause_ms = 0;
        std::int64_t due_ms = 0;
        std::uint64_t frames = 0;
        bool afresh = false;  // with the next hello
    };
    Link& link(smig_wire_owed_role role) { return links_.at(role == SMIG_OWED_DEMAND ? 0 : 1); }
    void fetch(std::vector<std::uint64_t> pfns, bool again, std::int64_t now_ms, OwedActions& actions);

    OwedLimits limits_;
    std::array<Link, 2> links_;
    struct Asked {
        std::int64_t due_ms = 0;  // then it is asked for again
        std::int64_t patience_ms = 0;
    };
    std::map<std::uint64_t, Asked> waited_for_;  // by page
    std::int64_t look_ms_ = kNever;
    std::int64_t heard_ms_ = 0;
    bool over_ = false;
};

}  // namespace smig
