// SPDX-License-Identifier: Apache-2.0
// The source's half of a move, as a pure machine: events and the time in, actions out.  PROTOCOL.md has it as
// a table.
//
// Invariant: the state becomes GIVEN by the event `committed` alone, that event is taken in AWAITING_ALIVE
// alone, and GO is never among the actions before.  From GIVEN no event leads back.  While pages are owed
// nothing but DRAINED retires the source.
//
// The agent process drives it in CHECKING, the stop process from LANDING on (a fork copies it as it is), and
// the supervisor drives one made by adopt() when the stop process has died.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "agent/base/clock.hpp"
#include "agent/policy/ownership.hpp"
#include "agent/wire/codec.hpp"
#include "common/wire.h"

namespace smig {

namespace source_event {
struct Start {};  // connected
struct Welcomed {
    WireId boot_nonce{};
};
struct Accepted {};
struct Refused {
    std::string text;
};
struct ClocksSampled {};
struct CancelAsked {};  // a person
struct Landed {};
struct Prepared {
    bool passes = false;  // memory is followed: a pass may begin
};  // the stop has its memory, the target knows which frames stay empty
struct PassDone {
    bool again = false;
};  // every page of it is on its way
struct Stopped {
    bool owes = false;  // pages of the guest stay here when it is given
};  // CAPTURE returned on the source
struct StopFailed {
    std::string text;
};  // and undid everything
struct ImageSent {
    smig_wire_image_end end{};
};
struct Ready {
    smig_wire_ready ready{};
};
struct PeerFailed {
    std::string text;
};  // FAILED
struct Lost {
    bool in_order = false;
    std::string text;
};  // the connection to the target
struct Broken {
    smig_wire_reason reason{};
    std::string text;
};  // anything else that ends the attempt
struct DeadlinePassed {};
struct Alive {
    int caller = 0;
    WireId epoch{};
    WireId boot_nonce{};
};  // on the control port
struct Released {
    int caller = 0;
    WireId epoch{};
    WireId boot_nonce{};
};
struct OwedCalled {
    int caller = 0;
    WireId epoch{};
    WireId boot_nonce{};
    smig_wire_owed_role role{};
    bool afresh = false;
};  // OWED_HELLO: the clone runs the guest and wants its pages
struct Drained {
    int caller = 0;
    WireId epoch{};
    WireId boot_nonce{};
};
struct Committed {};
struct CommitFailed {
    std::string text;
};
}  // namespace source_event

using SourceEvent = std::variant<
    source_event::Start, source_event::Welcomed, source_event::Accepted, source_event::Refused,
    source_event::ClocksSampled, source_event::CancelAsked, source_event::Landed, source_event::Prepared,
    source_event::PassDone, source_event::Stopped, source_event::StopFailed, source_event::ImageSent,
    source_event::Ready, source_event::PeerFailed, source_event::Lost, source_event::Broken,
    source_event::DeadlinePassed, source_event::Alive, source_event::Released, source_event::OwedCalled,
    source_event::Drained, source_event::Committed, source_event::CommitFailed>;

enum class SourceDo {
    send_hello,     // -> Welcomed
    send_describe,  // -> Accepted | Refused
    sample_clocks,  // CLOCK_ASK, CLOCK, a few times -> ClocksSampled
    send_land,      // -> Landed
    prepare,        // BEGIN, FLOWS, PREPARE, VACANT, TRACK -> Prepared
    pass,           // PASS, its pages -> PassDone
    stop,           // PREPARE, CAPTURE -> Stopped | StopFailed
    send_image,     // what a pass has not brought, VERIFY, IMAGE_END -> ImageSent
    send_jump,
    commit,     // -> Committed | CommitFailed
    answer_go,  // to `caller`
    answer_void,
    answer_wait,
    serve_owed,   // OWED_READY; from here on its connection is for owed pages
    end_caller,   // RELEASED or DRAINED was heard: close its connection in order
    undo_stop,    // the guest runs here again
    tell_peer,    // ABORT with reason() and text(), best effort; close the connection
    report_back,  // to the agent: rolled back or refused
    retire,       // the guest runs elsewhere: power off, or stay frozen
};

struct SourceAction {
    SourceDo what{};
    int caller = 0;
    smig_wire_owed_role role{};  // of serve_owed
    bool afresh = false;
};
using SourceActions = std::vector<SourceAction>;

// How long the source waits for what, in milliseconds.
struct SourceLimits {
    std::int64_t answer = 30'000;
    std::int64_t land = 60'000;
    std::int64_t pass = 86'400'000;  // one of them, however slow the link; a link that is down ends it sooner
    std::int64_t ready = 60'000;
    std::int64_t alive = 20'000;
};

class SourceMachine {
public:
    SourceMachine(const WireId& epoch, const SourceLimits& limits) : limits_(limits), epoch_(epoch) {}

    // What a supervisor goes on with: `state` is GIVEN or ROLLED_BACK, as the module says.  `owes`: pages
    // were owed at the capture.
    static SourceMachine adopt(smig_session_state state, const WireId& epoch, const WireId& boot_nonce,
                               bool owes = false);

    [[nodiscard]] SourceActions on(const SourceEvent& event, std::int64_t now_ms);

    [[nodiscard]] smig_session_state state() const { return state_; }
    // When DeadlinePassed is due; kNever: never.
    [[nodiscard]] std::int64_t deadline_ms() const { return deadline_ms_; }
    // Why it was rolled back; empty otherwise.
    [[nodiscard]] const std::string& text() const { return text_; }
    [[nodiscard]] smig_wire_reason reason() const { return reason_; }
    // The target or this machine refused before anything had begun.
    [[nodiscard]] bool refused() const { return refused_; }
    [[nodiscard]] const WireId& epoch() const { return epoch_; }
    [[nodiscard]] const WireId& boot_nonce() const { return boot_nonce_; }

private:
    enum class Awaited { nothing, welcome, answer, clocks };

    SourceActions enter(smig_session_state state, std::int64_t deadline_ms, SourceDo what);
    SourceActions roll_back(smig_wire_reason reason, std::string_view text);
    SourceActions on_caller(int caller, const WireId& epoch, const WireId& boot_nonce);
    SourceActions on_released(const source_event::Released& event);
    SourceActions on_owed_called(const source_event::OwedCalled& event);
    SourceActions on_drained(const source_event::Drained& event);
    SourceActions finish(int caller);
    SourceActions on_checking(const SourceEvent& event, std::int64_t now_ms);
    SourceActions on_progress(const SourceEvent& event, std::int64_t now_ms);
    [[nodiscard]] bool before_commit() const {
        return owner_of(state_) == Owner::source && state_ != SMIG_SOURCE_ROLLED_BACK;
    }
    [[nodiscard]] bool ours(const WireId& epoch, const WireId& boot_nonce) const {
        return epoch == epoch_ && boot_nonce == boot_nonce_;
    }

    SourceLimits limits_;
    WireId epoch_;
    WireId boot_nonce_{};
    smig_session_state state_ = SMIG_SOURCE_CHECKING;
    Awaited awaited_ = Awaited::nothing;
    std::int64_t deadline_ms_ = kNever;
    smig_wire_image_end sent_{};
    bool owes_ = false;
    bool committing_ = false;
    int committed_for_ = 0;  // the caller that is told GO first
    bool refused_ = false;
    smig_wire_reason reason_ = SMIG_REASON_PROTOCOL;
    std::string text_;
};

}  // namespace smig
