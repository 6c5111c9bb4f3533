// SPDX-License-Identifier: Apache-2.0
// How a move ended, as plain memory: the stop process (on either machine) writes it into a pipe in one piece.
#pragma once

#include <algorithm>
#include <climits>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <type_traits>

#include "agent/policy/forecast.hpp"
#include "common/uapi/selfmigrate.h"
#include "common/wire.h"

namespace smig {

// The owed phase, as the clone saw it.
struct OwedTally {
    smig_owed_status status = {};
    smig_wire_owed_ready source = {};  // how the source went about it
    std::uint64_t arrived[4] = {};     // pages by enum smig_wire_owed_origin
    std::uint64_t arrived_again = 0;   // that were not missing any more
    std::uint64_t bytes = 0;           // of OWED_PAGES frames, headers included
    std::uint64_t reconnections = 0;
    std::uint64_t rests = 0;  // waits in which what was pushed was left unread (push_rest.hpp)
};

enum class Verdict : std::uint32_t { moved = 1, rolled_back, refused, forecast };

struct MoveOutcome {
    Verdict verdict = Verdict::rolled_back;
    std::uint32_t reserved = 0;
    char reason[1024] = {};      // why it was not moved, for a person
    char remarks[512] = {};      // what failed without ending the move; empty: nothing
    char explanation[448] = {};  // why automatic did what it did

    std::uint64_t placed_direct = 0;
    std::uint64_t placed_copied = 0;
    std::uint64_t landing_us[SMIG_STEP_SLOTS] = {};
    std::uint64_t clone_us[SMIG_STEP_SLOTS] = {};

    smig_wire_go sent = {};  // what the source measured
    Forecast forecast = {};  // of a dry run

    // The guest's CLOCK_MONOTONIC, which goes on over the jump; 0: never came to it.
    std::uint64_t stop_begun_ns = 0;
    std::uint64_t woke_ns = 0;
    std::uint64_t network_ns = 0;  // the hand-over is applied
    std::uint64_t asked_ns = 0;    // ALIVE sent
    std::uint64_t go_ns = 0;       // GO arrived
    std::uint64_t fence_open_ns = 0;
    std::uint64_t announced_ns = 0;
    std::uint64_t released_ns = 0;  // all tasks run
    std::uint64_t drained_ns = 0;   // nothing is owed any more; 0: nothing was
    OwedTally owed = {};
    std::uint8_t drawn[SMIG_WIRE_ID_LEN] = {};
};
static_assert(std::is_trivially_copyable_v<MoveOutcome>);
static_assert(sizeof(MoveOutcome) <= PIPE_BUF, "one write, one piece");

template <std::size_t kSize>
void put_text(char (&out)[kSize], std::string_view text) {
    const std::size_t length = text.size() < kSize - 1 ? text.size() : kSize - 1;
    std::copy_n(text.begin(), length, out);
    out[length] = 0;
}

// What CAPTURE said on the source; travels to the clone with GO.
inline void note_source(smig_wire_go& sent, const smig_capture& capture) {
    static_assert(sizeof(sent.class_pages) == sizeof(capture.pages) &&
                  sizeof(sent.source_us) == sizeof(capture.source_us));
    std::memcpy(sent.class_pages, capture.pages, sizeof(sent.class_pages));
    std::memcpy(sent.source_us, capture.source_us, sizeof(sent.source_us));
    sent.image_pages = capture.header.image_pages;
    sent.shadow_pages = capture.shadow_pages;
    sent.shadow_used = capture.shadow_used;
    static_assert(sizeof(sent.send_by_class) == sizeof(capture.send_by_class));
    std::memcpy(sent.send_by_class, capture.send_by_class, sizeof(sent.send_by_class));
    sent.send_pages = capture.send_pages;
    sent.same_pages = capture.same_pages;
    sent.missed_pages = capture.missed_pages;
    sent.verified_pages = capture.verified_pages;
    sent.find_kernel_us = capture.find_kernel_us;
    sent.find_user_us = capture.find_user_us;
    sent.owed_pages = capture.owed_pages;
    sent.owe_us = capture.owe_us;
    sent.hot_pages = capture.hot_pages;
}

// What CAPTURE said when it returned in the clone.
inline void note_clone(MoveOutcome& outcome, const smig_capture& capture) {
    std::memcpy(outcome.landing_us, capture.landing_us, sizeof(outcome.landing_us));
    std::memcpy(outcome.clone_us, capture.clone_us, sizeof(outcome.clone_us));
    outcome.placed_direct = capture.placed_direct;
    outcome.placed_copied = capture.placed_copied;
}

}  // namespace smig
