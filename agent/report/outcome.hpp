// SPDX-License-Identifier: Apache-2.0
// How a move ended, as plain memory: the stop process (on either machine) writes it into a pipe in one piece.
#pragma once

#include <climits>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <type_traits>

#include "common/uapi/selfmigrate.h"
#include "common/wire.h"

namespace smig {

enum class Verdict : std::uint32_t { moved = 1, rolled_back, refused };

struct MoveOutcome {
    Verdict verdict = Verdict::rolled_back;
    std::uint32_t reserved = 0;
    char reason[1024] = {};  // why it was not moved, for a person
    char remarks[512] = {};  // what failed without ending the move; empty: nothing

    std::uint64_t class_pages[SMIG_CLASS_SLOTS] = {};
    std::uint64_t image_pages = 0;
    std::uint64_t shadow_pages = 0;
    std::uint64_t shadow_used = 0;
    std::uint64_t placed_direct = 0;
    std::uint64_t placed_copied = 0;
    std::uint64_t source_us[SMIG_STEP_SLOTS] = {};
    std::uint64_t landing_us[SMIG_STEP_SLOTS] = {};
    std::uint64_t clone_us[SMIG_STEP_SLOTS] = {};

    smig_wire_go sent = {};  // what the source measured after the capture

    // The guest's CLOCK_MONOTONIC, which goes on over the jump; 0: never came to it.
    std::uint64_t stop_begun_ns = 0;
    std::uint64_t captured_ns = 0;
    std::uint64_t woke_ns = 0;
    std::uint64_t network_ns = 0;    // the hand-over is applied
    std::uint64_t asked_ns = 0;      // ALIVE sent
    std::uint64_t go_ns = 0;         // GO arrived
    std::uint64_t fence_open_ns = 0;
    std::uint64_t announced_ns = 0;
    std::uint8_t drawn[SMIG_WIRE_ID_LEN] = {};
};
static_assert(std::is_trivially_copyable_v<MoveOutcome>);
static_assert(sizeof(MoveOutcome) <= PIPE_BUF, "one write, one piece");

template <std::size_t kSize>
void put_text(char (&out)[kSize], std::string_view text) {
    const std::size_t length = text.size() < kSize - 1 ? text.size() : kSize - 1;
    std::memcpy(out, text.data(), length);
    out[length] = 0;
}

// What both returns of CAPTURE say.
inline void note_capture(MoveOutcome& outcome, const smig_capture& capture) {
    std::memcpy(outcome.class_pages, capture.pages, sizeof(outcome.class_pages));
    std::memcpy(outcome.source_us, capture.source_us, sizeof(outcome.source_us));
    std::memcpy(outcome.landing_us, capture.landing_us, sizeof(outcome.landing_us));
    std::memcpy(outcome.clone_us, capture.clone_us, sizeof(outcome.clone_us));
    outcome.image_pages = capture.header.image_pages;
    outcome.shadow_pages = capture.shadow_pages;
    outcome.shadow_used = capture.shadow_used;
    outcome.placed_direct = capture.placed_direct;
    outcome.placed_copied = capture.placed_copied;
    outcome.captured_ns = capture.captured_mono_ns;
}

}  // namespace smig
