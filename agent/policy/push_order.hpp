// SPDX-License-Identifier: Apache-2.0
// Which owed page is pushed next.  Pure.
//
// Sequential: by place in the list.  Outward (adaptive pre-paging): from the latest faults, the pivots, in
// both directions, one page of each in turn; what lies between two pivots is met from both sides (bubbling),
// and a pivot that finds nothing more on either side gives its place up.  A fault beside a pivot's edge moves
// that edge on instead of making another one.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "agent/policy/owed_index.hpp"
#include "common/wire.h"

namespace smig {

class PushOrder {
public:
    explicit PushOrder(smig_wire_push_order order) : order_(order) { pivots_.reserve(kMostPivots + 1); }

    // Somebody waited for this page.
    void faulted(OwedPlace place);
    // The next of `left`, which the caller takes out; none: it is empty.
    [[nodiscard]] std::optional<OwedPlace> next(const PlaceSet& left);
    // What was thought to be sent is not: begin from the front again.
    void restart() { cursor_ = 0; }

    [[nodiscard]] smig_wire_push_order order() const { return order_; }

private:
    struct Pivot {
        OwedPlace lower = 0;  // below it goes on
        OwedPlace upper = 0;  // from it on goes on
        bool up = true;       // the next step's direction
    };
    static constexpr std::size_t kMostPivots = 8;
    static constexpr OwedPlace kBeside = 64;

    [[nodiscard]] static std::optional<OwedPlace> step(Pivot& pivot, const PlaceSet& left);

    smig_wire_push_order order_;
    OwedPlace cursor_ = 0;
    std::vector<Pivot> pivots_;  // oldest first
    std::size_t turn_ = 0;
};

}  // namespace smig
