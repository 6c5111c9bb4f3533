// SPDX-License-Identifier: Apache-2.0
// The target's half of a move, as a pure machine: events and the time in, actions out.  PROTOCOL.md has it as
// a table.
//
// Invariant: JUMP is carried out only in READY, and READY is entered only when the whole image was placed and
// its counts and digest are the source's.  In no state is the guest the target's.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "agent/base/clock.hpp"
#include "agent/wire/codec.hpp"
#include "common/wire.h"

namespace smig {

namespace target_event {
struct Hello {
    bool insecure = false;
};
struct Described {};  // DESCRIBE arrived
struct Checked {
    bool fits = false;
    std::string text;
};  // the answer to `check`
struct ClockAsked {};
struct LandAsked {};
struct LandDone {};
struct ImagePart {};  // VACANT, PAGES, ZEROS, IMAGE or BITMAP; its first is VACANT
struct ImageEnd {};
struct ImageWhole {};  // the answer to `finish_image`
struct JumpAsked {};
struct PeerFailed {
    std::string text;
};  // FAILED or ABORT
struct Lost {
    std::string text;
};
struct Broken {
    smig_wire_reason reason{};
    std::string text;
};  // what an action or a frame ended in
struct DeadlinePassed {};
}  // namespace target_event

using TargetEvent = std::variant<target_event::Hello, target_event::Described, target_event::Checked,
                                 target_event::ClockAsked, target_event::LandAsked, target_event::LandDone,
                                 target_event::ImagePart, target_event::ImageEnd, target_event::ImageWhole,
                                 target_event::JumpAsked, target_event::PeerFailed, target_event::Lost,
                                 target_event::Broken, target_event::DeadlinePassed>;

enum class TargetDo {
    send_welcome,
    check,  // -> Checked
    send_accept,
    send_refuse,  // text()
    send_clock,
    land,  // -> LandDone | Broken
    send_landed,
    load,          // this frame -> nothing | Broken
    finish_image,  // -> ImageWhole | Broken
    send_ready,
    jump,          // -> Broken, if it comes back
    send_failed,   // reason(), text(); best effort
    close_device,  // all memory is given back
    disconnect,
};
using TargetActions = std::vector<TargetDo>;

// How long the target waits for the next frame, in milliseconds.
struct TargetLimits {
    std::int64_t checking = 60'000;
    std::int64_t landed = 180'000;  // the source makes room
    std::int64_t loading =
        60'000;  // between two frames of passes and image: the source harvests, stops, captures
    std::int64_t ready = 60'000;
};

class TargetMachine {
public:
    TargetMachine(const TargetLimits& limits, std::int64_t now_ms)
        : limits_(limits), deadline_ms_(now_ms + limits.checking) {}

    [[nodiscard]] TargetActions on(const TargetEvent& event, std::int64_t now_ms);

    [[nodiscard]] smig_session_state state() const { return state_; }
    [[nodiscard]] std::int64_t deadline_ms() const { return deadline_ms_; }
    [[nodiscard]] bool over() const { return state_ == SMIG_TARGET_GONE_BACK; }
    [[nodiscard]] smig_wire_reason reason() const { return reason_; }
    [[nodiscard]] const std::string& text() const { return text_; }

private:
    enum class Awaited { hello, describe, check, land, land_done };

    TargetActions go_back(smig_wire_reason reason, const std::string& text, TargetActions first);
    TargetActions on_checking(const TargetEvent& event);
    TargetActions on_image(const TargetEvent& event, std::int64_t now_ms);
    TargetActions unexpected();

    TargetLimits limits_;
    smig_session_state state_ = SMIG_TARGET_CHECKING;
    Awaited awaited_ = Awaited::hello;
    std::int64_t deadline_ms_;
    bool finishing_ = false;
    smig_wire_reason reason_ = SMIG_REASON_PROTOCOL;
    std::string text_;
};

}  // namespace smig
