// SPDX-License-Identifier: Apache-2.0
#include "agent/source/owed_dispatch.hpp"

#include <algorithm>

#include "agent/base/check.hpp"
#include "agent/page/pfn.hpp"
#include "agent/policy/auto_mode.hpp"

namespace smig {

namespace {

constexpr std::size_t kAnswerPages = 16;  // a frame: the first fault does not wait for the last one's page
static_assert(kAnswerPages <= OwedDispatch::kMostPages &&
              OwedDispatch::kMostPushed <= OwedDispatch::kMostPages);
constexpr std::size_t kLeastSpeculated = 4;  // pages with one fault
constexpr std::size_t kMostSpeculated = 32;
constexpr std::size_t kSpeculatedAhead = 64;  // waiting to be sent: what is older was for a fault long past
constexpr std::size_t kMostAsked = 65536;     // tasks that wait at once, and then some

}  // namespace

OwedDispatch::OwedDispatch(const OwedIndex& index, const OwedRules& rules, const PushWindow& window)
    : index_(index),
      rules_(rules),
      speculator_(index, rules.speculation),
      order_(rules.order),
      window_(window) {}

void OwedDispatch::reserve(std::uint64_t pages) {
    left_.reserve(pages);
}

void OwedDispatch::begin(double bytes_per_s) {
    SMIG_CHECK(!begun_);
    window_.expect(bytes_per_s);
    if (rules_.adapts &&
        !speculation_pays(index_.mean_run_x100(), window_.shortest_ns(), window_.bytes_per_s())) {
        rules_.speculation = only_ppm(rules_.speculation);
        speculator_.use(rules_.speculation);
    }
    left_.fill(index_.size());
    begun_ = true;
}

void OwedDispatch::owe_again(OwedPlace place) {
    if (left_.insert(place)) order_.restart();
}

void OwedDispatch::forget(Link& link) {
    for (const InFlight& frame : link.in_flight)
        for (const OwedPlace place : frame.places) owe_again(place);
    link = {};
}

void OwedDispatch::connected(smig_wire_owed_role role, bool afresh) {
    forget(link(role));
    link(role).open = true;
    if (role == SMIG_OWED_DEMAND) {
        // The clone asks anew for all that is waited for.
        asked_.clear();
        guesses_.clear();
    }
    if (!afresh || !begun_) return;
    left_.fill(index_.size());
    order_.restart();
    for (const Link* other : {&demand_, &push_})
        for (const InFlight& frame : other->in_flight)
            for (const OwedPlace place : frame.places) left_.erase(place);
}

void OwedDispatch::lost(smig_wire_owed_role role) {
    forget(link(role));
}

void OwedDispatch::fetch(std::span<const std::uint64_t> pfns, bool again) {
    for (const std::uint64_t pfn : pfns) {
        const auto place = index_.find(pfn);
        if (place && begun_) {
            order_.faulted(*place);
            std::erase(guesses_, *place);
            // On its way already, or there.
            if (!again && !left_.test(*place)) continue;
        }
        if (asked_.size() < kMostAsked && std::ranges::find(asked_, pfn) == asked_.end())
            asked_.push_back(pfn);
    }
}

bool OwedDispatch::taken(smig_wire_owed_role role, std::uint64_t frames, std::uint64_t now_ns) {
    Link& from = link(role);
    if (frames < from.frames_taken || frames - from.frames_taken > from.in_flight.size()) return false;
    for (; from.frames_taken < frames; ++from.frames_taken) {
        const InFlight& frame = from.in_flight.front();
        from.bytes -= frame.bytes;
        if (role == SMIG_OWED_PUSH)
            window_.taken(frame.bytes, now_ns > frame.sent_ns ? now_ns - frame.sent_ns : 0, now_ns);
        from.in_flight.pop_front();
    }
    return true;
}

std::optional<OwedBatch> OwedDispatch::next_answer() {
    if (asked_.empty()) return std::nullopt;
    OwedBatch batch{SMIG_OWED_ASKED, {}};
    // The next fault's page waits behind them as it would behind pushed ones.
    const std::size_t most =
        std::clamp<std::size_t>(window_.bytes() / kPageBytes / 2, kLeastSpeculated, kMostSpeculated);
    for (; !asked_.empty() && batch.pfns.size() < kAnswerPages; asked_.pop_front()) {
        const std::uint64_t pfn = asked_.front();
        const auto place = index_.find(pfn);
        if (!place) {
            // Alone: what the module refuses to read must not hold up what others wait for.
            if (!batch.pfns.empty()) break;
            batch.pfns.push_back(pfn);
            asked_.pop_front();
            break;
        }
        batch.pfns.push_back(pfn);
        left_.erase(*place);
        speculated_.clear();
        speculator_.demand(*place, left_, most, speculated_);
        // The latest fault's are sent first.
        std::erase_if(guesses_, [&](OwedPlace one) {
            return std::ranges::find(speculated_, one) != speculated_.end();
        });
        guesses_.insert(guesses_.begin(), speculated_.begin(), speculated_.end());
        if (guesses_.size() > kSpeculatedAhead) guesses_.resize(kSpeculatedAhead);
    }
    return batch;
}

std::optional<OwedBatch> OwedDispatch::next_speculated() {
    OwedBatch batch{SMIG_OWED_SPECULATED, {}};
    std::size_t used = 0;
    for (; used < guesses_.size() && batch.pfns.size() < kAnswerPages; ++used)
        if (left_.erase(guesses_[used])) batch.pfns.push_back(index_[guesses_[used]].pfn);
    guesses_.erase(guesses_.begin(), guesses_.begin() + static_cast<std::ptrdiff_t>(used));
    if (batch.pfns.empty()) return std::nullopt;
    return batch;
}

std::optional<OwedBatch> OwedDispatch::next_pushed() {
    // What is asked for has the link to itself.
    if (!asked_.empty() || !guesses_.empty() || push_.bytes >= window_.bytes()) return std::nullopt;
    OwedBatch batch{SMIG_OWED_PUSHED, {}};
    const std::size_t most =
        std::clamp<std::size_t>(window_.bytes() / kPageBytes / 4, kLeastPushed, kMostPushed);
    while (batch.pfns.size() < most) {
        const auto place = order_.next(left_);
        if (!place) break;
        left_.erase(*place);
        batch.pfns.push_back(index_[*place].pfn);
    }
    if (batch.pfns.empty()) return std::nullopt;
    return batch;
}

std::optional<OwedBatch> OwedDispatch::next(smig_wire_owed_role role) {
    if (!begun_ || !link(role).open) return std::nullopt;
    if (role == SMIG_OWED_PUSH) return next_pushed();
    if (auto answer = next_answer()) return answer;
    return next_speculated();
}

void OwedDispatch::sent(smig_wire_owed_role role, const OwedBatch& batch, std::uint64_t bytes,
                        std::uint64_t now_ns) {
    InFlight frame{{}, bytes, now_ns};
    frame.places.reserve(batch.pfns.size());
    for (const std::uint64_t pfn : batch.pfns)
        if (const auto place = index_.find(pfn)) frame.places.push_back(*place);
    link(role).bytes += bytes;
    link(role).in_flight.push_back(std::move(frame));
}

void OwedDispatch::undo(const OwedBatch& batch) {
    for (const std::uint64_t pfn : batch.pfns) {
        const auto place = index_.find(pfn);
        // Nobody listed it, and it could not be read: no page that is owed.
        if (!place) continue;
        owe_again(*place);
        if (batch.origin == SMIG_OWED_ASKED) asked_.push_back(pfn);
    }
}

bool OwedDispatch::all_taken() const {
    return begun_ && left_.count() == 0 && asked_.empty() && demand_.in_flight.empty() &&
           push_.in_flight.empty();
}

}  // namespace smig
