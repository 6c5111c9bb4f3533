// SPDX-License-Identifier: Apache-2.0
// What agent, stop process and supervisor share while they move a guest: memory mapped before the forks.
//
// On the clone it holds what stood there at some moment after the capture, for the source goes on writing
// while the image travels.  So the clone's side takes nothing from it but `epoch`, `boot_nonce` (never
// change), `handover` and `owed_left` (written there).
#pragma once

#include <sys/mman.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <string_view>

#include "agent/base/clock.hpp"
#include "agent/wire/codec.hpp"
#include "common/wire.h"

namespace smig {

// What the stop process tells of the passes; the agent looks now and then.
struct PassProgress {
    std::atomic<std::uint64_t> number{0};      // of the pass; 0: none yet
    std::atomic<std::uint64_t> pages{0};       // to be read in it ...
    std::atomic<std::uint64_t> done_pages{0};  // ... and read
    std::atomic<std::uint64_t> sent_bytes{0};  // since LANDED
    std::atomic<std::uint64_t> bytes_per_s{0};
    std::atomic<std::uint64_t> dirty_pages_per_s{0};
    std::atomic<std::uint64_t> expected_stop_ms{0};  // after the pass before; 0: not known
};

struct SharedState {
    WireId epoch{};
    WireId boot_nonce{};

    std::atomic<std::uint32_t> state{SMIG_SOURCE_CHECKING};  // of the source's machine
    std::atomic<std::int64_t> heard_by_ms{kNever};           // the stop process will have spoken by then
    std::atomic<bool> supervisor_ready{false};
    std::atomic<bool> cancel_asked{false};
    std::atomic<bool> switch_asked{false};  // no further pass
    PassProgress progress;
    std::atomic<bool> jump_sent{false};        // a clone may ask for GO
    std::atomic<bool> reported{false};         // the agent knows how it ended
    std::atomic<std::uint64_t> owed_pages{0};  // at the capture
    std::atomic<std::uint64_t> owed_left{0};   // of them, on the clone

    smig_wire_go go{};  // valid when go_valid
    std::atomic<bool> go_valid{false};

    char handover[SMIG_WIRE_HANDOVER_LEN] = {};
    std::atomic<std::uint32_t> handover_length{0};  // 0: not known yet
};
static_assert(std::atomic<std::int64_t>::is_always_lock_free && std::atomic<bool>::is_always_lock_free);

struct UnmapSharedState {
    void operator()(SharedState* state) const { ::munmap(state, sizeof(SharedState)); }
};
using SharedStatePtr = std::unique_ptr<SharedState, UnmapSharedState>;

// nullptr: no memory.
inline SharedStatePtr make_shared_state() {
    void* memory =
        ::mmap(nullptr, sizeof(SharedState), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return SharedStatePtr(memory == MAP_FAILED ? nullptr : new (memory) SharedState{});
}

}  // namespace smig
