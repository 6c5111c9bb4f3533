// SPDX-License-Identifier: Apache-2.0
#include "agent/policy/push_order.hpp"

#include <algorithm>

namespace smig {

void PushOrder::faulted(OwedPlace place) {
    if (order_ != SMIG_PUSH_OUTWARD) return;
    for (std::size_t i = 0; i < pivots_.size(); ++i) {
        Pivot& pivot = pivots_[i];
        // Within the bubble, or just beyond it: the process walks where the bubble grows.
        if (place + kBeside < pivot.lower || place > pivot.upper + kBeside) continue;
        pivot.up = place + 1 >= pivot.upper || place >= pivot.lower;
        if (place >= pivot.upper) pivot.upper = place + 1;
        if (place < pivot.lower) pivot.lower = place;
        std::rotate(pivots_.begin() + static_cast<std::ptrdiff_t>(i),
                    pivots_.begin() + static_cast<std::ptrdiff_t>(i) + 1, pivots_.end());
        turn_ = pivots_.size() - 1;
        return;
    }
    if (pivots_.size() == kMostPivots) pivots_.erase(pivots_.begin());
    pivots_.push_back({place, place + 1, true});
    turn_ = pivots_.size() - 1;
}

std::optional<OwedPlace> PushOrder::step(Pivot& pivot, const PlaceSet& left) {
    for (int side = 0; side < 2; ++side) {
        const bool up = pivot.up;
        pivot.up = !pivot.up;
        if (up) {
            const auto found = left.next(pivot.upper);
            pivot.upper = found ? *found + 1 : left.size();
            if (found) return found;
        } else {
            const auto found = left.previous(pivot.lower);
            pivot.lower = found ? *found : 0;
            if (found) return found;
        }
    }
    return std::nullopt;
}

std::optional<OwedPlace> PushOrder::next(const PlaceSet& left) {
    while (!pivots_.empty()) {
        // The newest first, then the older ones.
        turn_ = std::min(turn_, pivots_.size() - 1);
        if (const auto found = step(pivots_[turn_], left)) {
            turn_ = turn_ == 0 ? pivots_.size() - 1 : turn_ - 1;
            return found;
        }
        pivots_.erase(pivots_.begin() + static_cast<std::ptrdiff_t>(turn_));
    }
    auto found = left.next(cursor_);
    // What became owed again behind the cursor.
    if (!found) found = left.next(0);
    if (found) cursor_ = *found + 1;
    return found;
}

}  // namespace smig
