// SPDX-License-Identifier: Apache-2.0
// The clone's part, as a pure machine.  PROTOCOL.md has it as a table.
//
// Invariant: `release` is among the actions only after GO with this epoch and nonce; `reset_machine` only
// after VOID with them, and never after GO.  Nothing else ends FENCED: no deadline, no lost connection.
// Nothing but Drained ends OWING.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "agent/base/clock.hpp"
#include "agent/base/clone_at.hpp"
#include "agent/wire/codec.hpp"
#include "common/wire.h"

namespace smig {

namespace clone_event {
struct Woke {};       // the second return of CAPTURE
struct Connected {};  // to the source's control port
struct ConnectFailed {};
struct Go {
    WireId epoch{};
    WireId boot_nonce{};
};
struct Void {
    WireId epoch{};
    WireId boot_nonce{};
};
struct Wait {};
struct Lost {
    bool in_order = false;
};  // the control connection
struct DeadlinePassed {};
struct Released {
    bool owing = false;  // the guest runs, and pages of it are still on the source
};  // the answer to `release`
struct ReleaseFailed {
    std::string text;
};
struct Drained {};  // the answer to `fetch_owed`
}  // namespace clone_event

using CloneEvent =
    std::variant<clone_event::Woke, clone_event::Connected, clone_event::ConnectFailed, clone_event::Go,
                 clone_event::Void, clone_event::Wait, clone_event::Lost, clone_event::DeadlinePassed,
                 clone_event::Released, clone_event::ReleaseFailed, clone_event::Drained>;

enum class CloneDo {
    connect,     // -> Connected | ConnectFailed
    send_alive,  // -> Go | Void | Wait | Lost
    disconnect,
    release,  // -> Released | ReleaseFailed
    announce,
    report,         // to the agent
    send_released,  // -> Lost in order, which is the source's acknowledgement
    fetch_owed,     // until nothing is owed -> Drained
    send_drained,   // as send_released
    reset_machine,
    finish,
};
using CloneActions = std::vector<CloneDo>;

struct CloneLimits {
    std::int64_t answer = 2'000;    // to ALIVE, then on a new connection
    std::int64_t first_pause = 50;  // between two attempts; doubled up to
    std::int64_t most_pause = 1'000;
    std::int64_t acknowledge = 2'000;  // to RELEASED
    // To bring RELEASED, or DRAINED, to the source, which stands still until then; it may be gone with its
    // VM.  Ten minutes where it refuses, half an hour where it is silent.
    int tell_attempts = 600;
};

class CloneMachine {
public:
    CloneMachine(const WireId& epoch, const WireId& boot_nonce, const CloneLimits& limits)
        : epoch_(epoch), boot_nonce_(boot_nonce), limits_(limits), pause_ms_(limits.first_pause) {}

    // Its first event is Woke, wherever the clone's part is taken up.
    static CloneMachine take_up(CloneAt at, const WireId& epoch, const WireId& boot_nonce,
                                const CloneLimits& limits);

    [[nodiscard]] CloneActions on(const CloneEvent& event, std::int64_t now_ms);

    [[nodiscard]] smig_session_state state() const { return state_; }
    [[nodiscard]] std::int64_t deadline_ms() const { return deadline_ms_; }
    [[nodiscard]] bool over() const { return over_; }

private:
    enum class Awaited { nothing, connection, verdict, pause, release, release_again, owed, acknowledgement };

    CloneActions connect_now();
    CloneActions pause(std::int64_t now_ms);
    CloneActions give_up_telling(std::int64_t now_ms);
    CloneActions on_fenced(const CloneEvent& event, std::int64_t now_ms);
    CloneActions on_owing(const CloneEvent& event);
    CloneActions on_released(const CloneEvent& event, std::int64_t now_ms);
    [[nodiscard]] bool ours(const WireId& epoch, const WireId& boot_nonce) const {
        return epoch == epoch_ && boot_nonce == boot_nonce_;
    }

    WireId epoch_;
    WireId boot_nonce_;
    CloneLimits limits_;
    smig_session_state state_ = SMIG_CLONE_FENCED;
    Awaited awaited_ = Awaited::nothing;
    std::int64_t deadline_ms_ = kNever;
    std::int64_t pause_ms_;
    int attempts_told_ = 0;
    bool owed_ = false;  // there was an owed phase: DRAINED is told, not RELEASED
    bool over_ = false;
};

}  // namespace smig
