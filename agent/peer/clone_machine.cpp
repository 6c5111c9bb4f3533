// SPDX-License-Identifier: Apache-2.0
#include "agent/peer/clone_machine.hpp"

#include <algorithm>

namespace smig {

using namespace clone_event;

namespace {

template <class Event>
const Event* as(const CloneEvent& event) {
    return std::get_if<Event>(&event);
}

}  // namespace

CloneMachine CloneMachine::take_up(CloneAt at, const WireId& epoch, const WireId& boot_nonce,
                                   const CloneLimits& limits) {
    CloneMachine machine(epoch, boot_nonce, limits);
    if (at == CloneAt::fenced) return machine;
    machine.state_ = at == CloneAt::owing ? SMIG_CLONE_OWING : SMIG_CLONE_RELEASED;
    machine.owed_ = true;
    return machine;
}

CloneActions CloneMachine::connect_now() {
    awaited_ = Awaited::connection;
    deadline_ms_ = kNever;
    return {CloneDo::connect};
}

CloneActions CloneMachine::pause(std::int64_t now_ms) {
    awaited_ = Awaited::pause;
    deadline_ms_ = now_ms + pause_ms_;
    pause_ms_ = std::min(pause_ms_ * 2, limits_.most_pause);
    return {CloneDo::disconnect};
}

CloneActions CloneMachine::on(const CloneEvent& event, std::int64_t now_ms) {
    if (over_) return {};
    if (as<DeadlinePassed>(event) != nullptr && now_ms < deadline_ms_) return {};
    if (state_ == SMIG_CLONE_FENCED) return on_fenced(event, now_ms);
    return state_ == SMIG_CLONE_OWING ? on_owing(event) : on_released(event, now_ms);
}

CloneActions CloneMachine::on_fenced(const CloneEvent& event, std::int64_t now_ms) {
    if (awaited_ == Awaited::release || awaited_ == Awaited::release_again) {
        // GO has been heard; whatever else is said now does not matter.
        if (const auto* released = as<clone_event::Released>(event)) {
            if (released->owing) {
                state_ = SMIG_CLONE_OWING;
                awaited_ = Awaited::owed;
                deadline_ms_ = kNever;
                owed_ = true;
                // Faults come at once: whatever can wait is done by whoever fetches.
                return {CloneDo::send_released, CloneDo::fetch_owed};
            }
            state_ = SMIG_CLONE_RELEASED;
            awaited_ = Awaited::acknowledgement;
            deadline_ms_ = now_ms + limits_.acknowledge;
            pause_ms_ = limits_.first_pause;
            return {CloneDo::announce, CloneDo::report, CloneDo::send_released};
        }
        if (as<ReleaseFailed>(event) != nullptr) {
            awaited_ = Awaited::release_again;
            deadline_ms_ = now_ms + limits_.first_pause;
        } else if (as<DeadlinePassed>(event) != nullptr && awaited_ == Awaited::release_again) {
            awaited_ = Awaited::release;
            deadline_ms_ = kNever;
            return {CloneDo::release};
        } else if (as<Lost>(event) != nullptr && awaited_ == Awaited::release_again) {
            return {CloneDo::disconnect};  // nothing can be heard on it any more
        }
        return {};
    }
    if (as<Woke>(event) != nullptr && awaited_ == Awaited::nothing) return connect_now();
    if (as<Connected>(event) != nullptr && awaited_ == Awaited::connection) {
        awaited_ = Awaited::verdict;
        deadline_ms_ = now_ms + limits_.answer;
        return {CloneDo::send_alive};
    }
    if (as<DeadlinePassed>(event) != nullptr && awaited_ == Awaited::pause) return connect_now();
    if (awaited_ == Awaited::verdict) {
        if (const auto* go = as<Go>(event); go != nullptr && ours(go->epoch, go->boot_nonce)) {
            awaited_ = Awaited::release;
            deadline_ms_ = kNever;
            return {CloneDo::release};
        }
        if (const auto* refusal = as<Void>(event);
            refusal != nullptr && ours(refusal->epoch, refusal->boot_nonce)) {
            state_ = SMIG_CLONE_REFUSED;
            over_ = true;
            return {CloneDo::reset_machine};
        }
    }
    // A connection that failed, was lost, said WAIT, said nothing in time or meant somebody else: ask anew.
    if (awaited_ == Awaited::pause || awaited_ == Awaited::nothing) return {};
    return pause(now_ms);
}

CloneActions CloneMachine::on_owing(const CloneEvent& event) {
    if (as<Woke>(event) != nullptr && awaited_ == Awaited::nothing) {
        awaited_ = Awaited::owed;
        return {CloneDo::fetch_owed};
    }
    if (as<Drained>(event) == nullptr) return {};
    state_ = SMIG_CLONE_RELEASED;
    pause_ms_ = limits_.first_pause;
    awaited_ = Awaited::connection;
    return {CloneDo::report, CloneDo::disconnect, CloneDo::connect};
}

CloneActions CloneMachine::give_up_telling(std::int64_t now_ms) {
    if (++attempts_told_ < limits_.tell_attempts) return pause(now_ms);
    over_ = true;
    return {CloneDo::disconnect, CloneDo::finish};
}

CloneActions CloneMachine::on_released(const CloneEvent& event, std::int64_t now_ms) {
    switch (awaited_) {
        case Awaited::nothing:
            if (as<Woke>(event) == nullptr) return {};
            awaited_ = Awaited::connection;
            return {CloneDo::report, CloneDo::connect};
        case Awaited::acknowledgement:
            if (const auto* lost = as<Lost>(event)) {
                if (!lost->in_order) return give_up_telling(now_ms);
                over_ = true;
                return {CloneDo::disconnect, CloneDo::finish};
            }
            if (as<DeadlinePassed>(event) != nullptr) return give_up_telling(now_ms);
            return {};
        case Awaited::pause:
            if (as<DeadlinePassed>(event) != nullptr) return connect_now();
            return {};
        case Awaited::connection:
            if (as<ConnectFailed>(event) != nullptr) return give_up_telling(now_ms);
            if (as<Connected>(event) != nullptr) {
                awaited_ = Awaited::verdict;
                deadline_ms_ = now_ms + limits_.answer;
                return {CloneDo::send_alive};
            }
            return {};
        case Awaited::verdict:
            if (const auto* go = as<Go>(event); go != nullptr && ours(go->epoch, go->boot_nonce)) {
                awaited_ = Awaited::acknowledgement;
                deadline_ms_ = now_ms + limits_.acknowledge;
                return {owed_ ? CloneDo::send_drained : CloneDo::send_released};
            }
            return give_up_telling(now_ms);
        default:
            return {};
    }
}

}  // namespace smig
