// SPDX-License-Identifier: Apache-2.0
#include "agent/peer/machine.hpp"

#include "agent/policy/ownership.hpp"

namespace smig {

using namespace target_event;

namespace {

template <class Event>
const Event* as(const TargetEvent& event) {
    return std::get_if<Event>(&event);
}

}  // namespace

TargetActions TargetMachine::go_back(smig_wire_reason reason, const std::string& text, TargetActions first) {
    state_ = SMIG_TARGET_GONE_BACK;
    deadline_ms_ = kNever;
    reason_ = reason;
    text_ = text;
    first.push_back(TargetDo::close_device);
    first.push_back(TargetDo::disconnect);
    return first;
}

TargetActions TargetMachine::unexpected() {
    return go_back(SMIG_REASON_PROTOCOL,
                   std::string("the source sent what has no place in ") + state_name(state_),
                   {TargetDo::send_failed});
}

TargetActions TargetMachine::on(const TargetEvent& event, std::int64_t now_ms) {
    if (over()) return {};
    if (const auto* broken = as<Broken>(event))
        return go_back(broken->reason, broken->text, {TargetDo::send_failed});
    if (const auto* failed = as<PeerFailed>(event))
        return go_back(SMIG_REASON_CANCELLED, "the source gave up: " + failed->text, {});
    if (const auto* lost = as<Lost>(event))
        return go_back(SMIG_REASON_CANCELLED, "the connection to the source was lost: " + lost->text, {});
    if (as<DeadlinePassed>(event) != nullptr) {
        if (now_ms < deadline_ms_) return {};
        return go_back(SMIG_REASON_TIMEOUT, std::string("nothing came in time (") + state_name(state_) + ")",
                       {TargetDo::send_failed});
    }
    if (state_ == SMIG_TARGET_CHECKING) {
        deadline_ms_ = now_ms + limits_.checking;
        return on_checking(event);
    }
    return on_image(event, now_ms);
}

TargetActions TargetMachine::on_checking(const TargetEvent& event) {
    if (const auto* hello = as<Hello>(event); hello != nullptr && awaited_ == Awaited::hello) {
        if (!hello->insecure)
            return go_back(SMIG_REASON_REFUSED,
                           "the source did not say --insecure, and there is no authentication",
                           {TargetDo::send_failed});
        awaited_ = Awaited::describe;
        return {TargetDo::send_welcome};
    }
    if (as<Described>(event) != nullptr && awaited_ == Awaited::describe) {
        awaited_ = Awaited::check;
        return {TargetDo::check};
    }
    if (const auto* checked = as<Checked>(event); checked != nullptr && awaited_ == Awaited::check) {
        if (!checked->fits) return go_back(SMIG_REASON_REFUSED, checked->text, {TargetDo::send_refuse});
        awaited_ = Awaited::land;
        return {TargetDo::send_accept};
    }
    if (as<ClockAsked>(event) != nullptr && awaited_ == Awaited::land) return {TargetDo::send_clock};
    if (as<LandAsked>(event) != nullptr && awaited_ == Awaited::land) {
        awaited_ = Awaited::land_done;
        return {TargetDo::land};
    }
    if (as<LandDone>(event) != nullptr && awaited_ == Awaited::land_done) {
        state_ = SMIG_TARGET_LANDED;
        deadline_ms_ += limits_.landed - limits_.checking;
        return {TargetDo::send_landed};
    }
    return unexpected();
}

TargetActions TargetMachine::on_image(const TargetEvent& event, std::int64_t now_ms) {
    if (as<ImagePart>(event) != nullptr && !finishing_ &&
        (state_ == SMIG_TARGET_LANDED || state_ == SMIG_TARGET_LOADING)) {
        state_ = SMIG_TARGET_LOADING;
        deadline_ms_ = now_ms + limits_.loading;
        return {TargetDo::load};
    }
    if (as<ImageEnd>(event) != nullptr && !finishing_ && state_ == SMIG_TARGET_LOADING) {
        finishing_ = true;
        return {TargetDo::finish_image};
    }
    if (as<ImageWhole>(event) != nullptr && finishing_ && state_ == SMIG_TARGET_LOADING) {
        state_ = SMIG_TARGET_READY;
        deadline_ms_ = now_ms + limits_.ready;
        return {TargetDo::send_ready};
    }
    if (as<JumpAsked>(event) != nullptr && state_ == SMIG_TARGET_READY) {
        state_ = SMIG_TARGET_JUMPING;
        deadline_ms_ = kNever;
        return {TargetDo::jump};
    }
    return unexpected();
}

}  // namespace smig
