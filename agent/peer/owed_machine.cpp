// SPDX-License-Identifier: Apache-2.0
#include "agent/peer/owed_machine.hpp"

#include <algorithm>
#include <utility>

namespace smig {

namespace {

constexpr smig_wire_owed_role kRoles[] = {SMIG_OWED_DEMAND, SMIG_OWED_PUSH};

OwedAction action(OwedDo what, smig_wire_owed_role role = {}) {
    OwedAction one;
    one.what = what;
    one.role = role;
    return one;
}

}  // namespace

OwedActions OwedMachine::begin(std::int64_t now_ms) {
    heard_ms_ = now_ms;
    look_ms_ = now_ms + limits_.look_every;
    OwedActions actions;
    for (const smig_wire_owed_role role : kRoles) {
        link(role) = {Link::State::connecting, limits_.first_pause, kNever, 0, false};
        actions.push_back(action(OwedDo::connect, role));
    }
    return actions;
}

OwedActions OwedMachine::connected(smig_wire_owed_role role, std::int64_t now_ms) {
    Link& one = link(role);
    if (one.state != Link::State::connecting) return {};
    one.state = Link::State::open;
    one.due_ms = kNever;
    one.frames = 0;
    heard_ms_ = now_ms;
    OwedActions actions{action(OwedDo::send_hello, role)};
    actions.back().afresh = std::exchange(one.afresh, false);
    // Whatever was asked for on the connection before may never have arrived.
    if (role == SMIG_OWED_DEMAND) {
        waited_for_.clear();
        actions.push_back(action(OwedDo::repeat));
    }
    return actions;
}

OwedActions OwedMachine::lost(smig_wire_owed_role role, std::int64_t now_ms) {
    Link& one = link(role);
    if (one.state == Link::State::pausing) return {};
    if (one.state == Link::State::open) one.pause_ms = limits_.first_pause;
    one.state = Link::State::pausing;
    one.due_ms = now_ms + one.pause_ms;
    one.pause_ms = std::min(one.pause_ms * 2, limits_.most_pause);
    return {action(OwedDo::disconnect, role)};
}

void OwedMachine::fetch(std::vector<std::uint64_t> pfns, bool again, std::int64_t now_ms,
                        OwedActions& actions) {
    for (const std::uint64_t pfn : pfns) {
        Asked& asked = waited_for_[pfn];
        // On a slow link the answer may still be on its way.
        asked.patience_ms =
            asked.patience_ms == 0 ? limits_.answer : std::min(asked.patience_ms * 2, limits_.most_answer);
        asked.due_ms = now_ms + asked.patience_ms;
    }
    // Without a connection the next one asks: the module repeats all that is waited for.
    if (pfns.empty() || link(SMIG_OWED_DEMAND).state != Link::State::open) return;
    for (std::size_t at = 0; at < pfns.size(); at += SMIG_WIRE_MAX_FETCH) {
        OwedAction one = action(OwedDo::send_fetch, SMIG_OWED_DEMAND);
        one.again = again;
        const std::size_t end = std::min<std::size_t>(pfns.size(), at + SMIG_WIRE_MAX_FETCH);
        one.pfns.assign(pfns.begin() + static_cast<std::ptrdiff_t>(at),
                        pfns.begin() + static_cast<std::ptrdiff_t>(end));
        actions.push_back(std::move(one));
    }
}

OwedActions OwedMachine::faults(std::span<const std::uint64_t> pfns, std::int64_t now_ms) {
    std::vector<std::uint64_t> fresh;
    for (const std::uint64_t pfn : pfns)
        if (!waited_for_.contains(pfn) && std::ranges::find(fresh, pfn) == fresh.end()) fresh.push_back(pfn);
    OwedActions actions;
    fetch(std::move(fresh), false, now_ms, actions);
    return actions;
}

OwedActions OwedMachine::installed(smig_wire_owed_role role, std::span<const std::uint64_t> pfns,
                                   std::uint64_t left_pages, std::int64_t now_ms) {
    heard_ms_ = now_ms;
    for (const std::uint64_t pfn : pfns) waited_for_.erase(pfn);
    left(left_pages);
    Link& one = link(role);
    if (one.state != Link::State::open) return {};
    OwedActions actions{action(OwedDo::send_taken, role)};
    actions.back().frames = ++one.frames;
    return actions;
}

OwedActions OwedMachine::tick(std::int64_t now_ms) {
    OwedActions actions;
    if (over_) return actions;
    for (const smig_wire_owed_role role : kRoles) {
        Link& one = link(role);
        if (one.state != Link::State::pausing || now_ms < one.due_ms) continue;
        one.state = Link::State::connecting;
        one.due_ms = kNever;
        actions.push_back(action(OwedDo::connect, role));
    }
    std::vector<std::uint64_t> late;
    for (const auto& [pfn, asked] : waited_for_)
        if (now_ms >= asked.due_ms) late.push_back(pfn);
    fetch(std::move(late), true, now_ms, actions);
    if (now_ms >= look_ms_) {
        look_ms_ = now_ms + limits_.look_every;
        actions.push_back(action(OwedDo::look));
    }
    // Everything was sent and taken, as the source sees it, or it is gone without a word.
    if (now_ms >= heard_ms_ + limits_.quiet) {
        heard_ms_ = now_ms;
        if (link(SMIG_OWED_PUSH).state != Link::State::open) return actions;
        const OwedActions dropped = lost(SMIG_OWED_PUSH, now_ms);
        actions.insert(actions.end(), dropped.begin(), dropped.end());
        link(SMIG_OWED_PUSH).afresh = true;
    }
    return actions;
}

std::int64_t OwedMachine::deadline_ms() const {
    std::int64_t due = std::min(look_ms_, heard_ms_ + limits_.quiet);
    for (const Link& one : links_)
        if (one.state == Link::State::pausing) due = std::min(due, one.due_ms);
    for (const auto& [pfn, asked] : waited_for_) due = std::min(due, asked.due_ms);
    return due;
}

}  // namespace smig
