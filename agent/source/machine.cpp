// SPDX-License-Identifier: Apache-2.0
#include "agent/source/machine.hpp"

#include "agent/base/check.hpp"

namespace smig {

namespace {

template <class Event>
const Event* as(const SourceEvent& event) {
    return std::get_if<Event>(&event);
}

}  // namespace

using namespace source_event;

SourceMachine SourceMachine::adopt(smig_session_state state, const WireId& epoch, const WireId& boot_nonce,
                                   bool owes) {
    SMIG_CHECK(state == SMIG_SOURCE_GIVEN || state == SMIG_SOURCE_ROLLED_BACK);
    SourceMachine machine(epoch, SourceLimits{});
    machine.state_ = state;
    machine.boot_nonce_ = boot_nonce;
    machine.owes_ = owes;
    return machine;
}

SourceActions SourceMachine::enter(smig_session_state state, std::int64_t deadline_ms, SourceDo what) {
    state_ = state;
    deadline_ms_ = deadline_ms;
    return {{what}};
}

SourceActions SourceMachine::roll_back(smig_wire_reason reason, std::string_view text) {
    SMIG_CHECK(before_commit());
    // In PASSING the guest runs; in STOPPING the stop has either not begun or has undone itself.
    const bool stopped = state_ == SMIG_SOURCE_SENDING || state_ == SMIG_SOURCE_AWAITING_READY ||
                         state_ == SMIG_SOURCE_AWAITING_ALIVE;
    state_ = SMIG_SOURCE_ROLLED_BACK;
    deadline_ms_ = kNever;
    reason_ = reason;
    text_ = text;
    SourceActions actions;
    if (stopped) actions.push_back({SourceDo::undo_stop});
    actions.push_back({SourceDo::tell_peer});
    actions.push_back({SourceDo::report_back});
    return actions;
}

SourceActions SourceMachine::on(const SourceEvent& event, std::int64_t now_ms) {
    if (const auto* alive = as<Alive>(event))
        return on_caller(alive->caller, alive->epoch, alive->boot_nonce);
    if (const auto* released = as<Released>(event)) return on_released(*released);
    if (const auto* called = as<OwedCalled>(event)) return on_owed_called(*called);
    if (const auto* drained = as<Drained>(event)) return on_drained(*drained);
    if (!before_commit()) {
        // Given up while CAPTURE was under way: its success comes too late.
        if (state_ == SMIG_SOURCE_ROLLED_BACK && as<Stopped>(event) != nullptr)
            return {{SourceDo::undo_stop}};
        // Only callers are still answered.
        return {};
    }

    if (const auto* broken = as<Broken>(event)) return roll_back(broken->reason, broken->text);
    if (const auto* failed = as<PeerFailed>(event))
        return roll_back(SMIG_REASON_CANCELLED, "the target gave up: " + failed->text);
    if (const auto* lost = as<Lost>(event)) {
        // After JUMP the landing environment is gone, and a reset says nothing: it may come from the clone,
        // which knows no such connection.  Only the landing environment can close in order, and then it did
        // not jump.
        if (state_ == SMIG_SOURCE_AWAITING_ALIVE && !lost->in_order) return {};
        return roll_back(SMIG_REASON_CANCELLED, "the connection to the target was lost: " + lost->text);
    }
    if (as<CancelAsked>(event) != nullptr) {
        if (state_ != SMIG_SOURCE_CHECKING && state_ != SMIG_SOURCE_LANDING && state_ != SMIG_SOURCE_PASSING)
            return {};
        return roll_back(SMIG_REASON_CANCELLED, "cancelled");
    }
    if (as<DeadlinePassed>(event) != nullptr) {
        if (now_ms < deadline_ms_ || committing_) return {};
        return roll_back(SMIG_REASON_TIMEOUT, std::string("no answer in time (") + state_name(state_) + ")");
    }
    return state_ == SMIG_SOURCE_CHECKING ? on_checking(event, now_ms) : on_progress(event, now_ms);
}

SourceActions SourceMachine::on_checking(const SourceEvent& event, std::int64_t now_ms) {
    const auto ask = [&](Awaited awaited, SourceDo what) {
        awaited_ = awaited;
        return enter(SMIG_SOURCE_CHECKING, now_ms + limits_.answer, what);
    };
    if (as<Start>(event) != nullptr && awaited_ == Awaited::nothing)
        return ask(Awaited::welcome, SourceDo::send_hello);
    if (const auto* welcomed = as<Welcomed>(event); welcomed != nullptr && awaited_ == Awaited::welcome) {
        boot_nonce_ = welcomed->boot_nonce;
        return ask(Awaited::answer, SourceDo::send_describe);
    }
    if (const auto* refused = as<Refused>(event); refused != nullptr && awaited_ == Awaited::answer) {
        refused_ = true;
        return roll_back(SMIG_REASON_REFUSED, refused->text);
    }
    if (as<Accepted>(event) != nullptr && awaited_ == Awaited::answer)
        return ask(Awaited::clocks, SourceDo::sample_clocks);
    if (as<ClocksSampled>(event) != nullptr && awaited_ == Awaited::clocks)
        return enter(SMIG_SOURCE_LANDING, now_ms + limits_.land, SourceDo::send_land);
    return roll_back(SMIG_REASON_PROTOCOL, "the target sent what was not asked");
}

SourceActions SourceMachine::on_progress(const SourceEvent& event, std::int64_t now_ms) {
    if (as<Landed>(event) != nullptr && state_ == SMIG_SOURCE_LANDING)
        return enter(SMIG_SOURCE_PASSING, now_ms + limits_.pass, SourceDo::prepare);
    if (state_ == SMIG_SOURCE_PASSING) {
        const auto* prepared = as<Prepared>(event);
        const auto* done = as<PassDone>(event);
        if ((prepared != nullptr && prepared->passes) || (done != nullptr && done->again))
            return enter(SMIG_SOURCE_PASSING, now_ms + limits_.pass, SourceDo::pass);
        if (prepared != nullptr || done != nullptr)
            return enter(SMIG_SOURCE_STOPPING, kNever, SourceDo::stop);
    }
    if (const auto* stopped = as<Stopped>(event); stopped != nullptr && state_ == SMIG_SOURCE_STOPPING) {
        owes_ = stopped->owes;
        return enter(SMIG_SOURCE_SENDING, kNever, SourceDo::send_image);
    }
    if (const auto* failed = as<StopFailed>(event); failed != nullptr && state_ == SMIG_SOURCE_STOPPING)
        return roll_back(SMIG_REASON_DEVICE, failed->text);
    if (const auto* sent = as<ImageSent>(event); sent != nullptr && state_ == SMIG_SOURCE_SENDING) {
        sent_ = sent->end;
        state_ = SMIG_SOURCE_AWAITING_READY;
        deadline_ms_ = now_ms + limits_.ready;
        return {};
    }
    if (const auto* ready = as<Ready>(event); ready != nullptr && state_ == SMIG_SOURCE_AWAITING_READY) {
        if (ready->ready.data_pages != sent_.data_pages || ready->ready.zero_pages != sent_.zero_pages ||
            ready->ready.digest != sent_.digest)
            return roll_back(SMIG_REASON_INTEGRITY, "the target has another image than was sent");
        return enter(SMIG_SOURCE_AWAITING_ALIVE, now_ms + limits_.alive, SourceDo::send_jump);
    }
    if (as<Committed>(event) != nullptr) {
        SMIG_CHECK(state_ == SMIG_SOURCE_AWAITING_ALIVE && committing_);
        state_ = SMIG_SOURCE_GIVEN;
        deadline_ms_ = kNever;
        committing_ = false;
        return {{SourceDo::answer_go, committed_for_}};
    }
    if (const auto* failed = as<CommitFailed>(event)) {
        SMIG_CHECK(committing_);
        committing_ = false;
        SourceActions actions = roll_back(SMIG_REASON_DEVICE, failed->text);
        actions.insert(actions.begin(), {SourceDo::answer_void, committed_for_});
        return actions;
    }
    return roll_back(SMIG_REASON_PROTOCOL,
                     std::string("an event that has no place in ") + state_name(state_));
}

SourceActions SourceMachine::on_caller(int caller, const WireId& epoch, const WireId& boot_nonce) {
    if (!ours(epoch, boot_nonce)) return {{SourceDo::answer_void, caller}};
    switch (state_) {
        case SMIG_SOURCE_AWAITING_ALIVE:
            if (committing_) return {{SourceDo::answer_wait, caller}};
            committing_ = true;
            committed_for_ = caller;
            return {{SourceDo::commit}};
        case SMIG_SOURCE_GIVEN:
        case SMIG_SOURCE_OWING:
        case SMIG_SOURCE_FINISHED:
            return {{SourceDo::answer_go, caller}};
        case SMIG_SOURCE_ROLLED_BACK:
            return {{SourceDo::answer_void, caller}};
        default:
            return {{SourceDo::answer_wait, caller}};
    }
}

SourceActions SourceMachine::finish(int caller) {
    state_ = SMIG_SOURCE_FINISHED;
    return {{SourceDo::end_caller, caller}, {SourceDo::retire}};
}

SourceActions SourceMachine::on_released(const Released& event) {
    if (!ours(event.epoch, event.boot_nonce)) return {};
    if (state_ == SMIG_SOURCE_FINISHED || state_ == SMIG_SOURCE_OWING)
        return {{SourceDo::end_caller, event.caller}};
    if (state_ != SMIG_SOURCE_GIVEN) return {};
    if (!owes_) return finish(event.caller);
    state_ = SMIG_SOURCE_OWING;
    return {{SourceDo::end_caller, event.caller}};
}

// Only a clone that was told GO asks for owed pages; nothing stops it from releasing any more, so that its
// call is as good as RELEASED.
SourceActions SourceMachine::on_owed_called(const OwedCalled& event) {
    if (!ours(event.epoch, event.boot_nonce)) return {{SourceDo::answer_void, event.caller}};
    if (state_ == SMIG_SOURCE_ROLLED_BACK) return {{SourceDo::answer_void, event.caller}};
    if (before_commit()) return {{SourceDo::answer_wait, event.caller}};
    if (!owes_ || state_ == SMIG_SOURCE_FINISHED) return {{SourceDo::end_caller, event.caller}};
    state_ = SMIG_SOURCE_OWING;
    return {{SourceDo::serve_owed, event.caller, event.role, event.afresh}};
}

SourceActions SourceMachine::on_drained(const Drained& event) {
    if (!ours(event.epoch, event.boot_nonce)) return {};
    if (state_ == SMIG_SOURCE_FINISHED) return {{SourceDo::end_caller, event.caller}};
    // Where nothing was owed it is as good as RELEASED.
    if (state_ != SMIG_SOURCE_GIVEN && state_ != SMIG_SOURCE_OWING) return {};
    return finish(event.caller);
}

}  // namespace smig
