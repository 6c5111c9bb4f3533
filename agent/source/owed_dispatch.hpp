// SPDX-License-Identifier: Apache-2.0
// What of the owed pages is sent next on which connection, as a pure machine.
//
// A page is owed, on its way in a frame that nobody has taken yet, or taken.  Invariant: a page is on its way
// at most once; one that was taken is sent again only when the clone says that it is missing (FETCH again,
// OWED_HELLO afresh), or when nobody can know whether it arrived (its connection was lost).  So in a phase
// without mishap every page travels once, whoever asks for it and however often.
//
// Demand comes before all else, then what is speculated, both on the demand connection; push has its own.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <vector>

#include "agent/policy/owed_index.hpp"
#include "agent/policy/push_order.hpp"
#include "agent/policy/push_window.hpp"
#include "agent/policy/speculation.hpp"
#include "common/wire.h"

namespace smig {

struct OwedRules {
    SpeculationRules speculation;
    smig_wire_push_order order = SMIG_PUSH_SEQUENTIAL;
    bool adapts = false;  // speculation is dropped when the list shows no locality
};

// One frame's pages, by number.
struct OwedBatch {
    smig_wire_owed_origin origin{};
    std::vector<std::uint64_t> pfns;
};

class OwedDispatch {
public:
    // The index must outlive it.  Nothing is sent before begin().
    OwedDispatch(const OwedIndex& index, const OwedRules& rules, const PushWindow& window);

    void reserve(std::uint64_t pages);
    // The index is sealed.  `bytes_per_s`: of the link, as far as it was seen; 0: not.
    void begin(double bytes_per_s);

    // OWED_HELLO.  What an older connection of that role had on its way is owed again.
    void connected(smig_wire_owed_role role, bool afresh);
    void lost(smig_wire_owed_role role);
    // FETCH.  A page that nobody listed is sent as well: whoever waits for it knows best.
    void fetch(std::span<const std::uint64_t> pfns, bool again);
    // OWED_TAKEN.  False: so many were never sent.
    [[nodiscard]] bool taken(smig_wire_owed_role role, std::uint64_t frames, std::uint64_t now_ns);

    // The next frame for this connection; none: nothing to send there now.  sent() must follow, or undo().
    [[nodiscard]] std::optional<OwedBatch> next(smig_wire_owed_role role);
    void sent(smig_wire_owed_role role, const OwedBatch& batch, std::uint64_t bytes, std::uint64_t now_ns);
    // It could not be read.
    void undo(const OwedBatch& batch);

    // Nothing is owed and nothing on its way.
    [[nodiscard]] bool all_taken() const;
    [[nodiscard]] bool answers_faults() const { return !asked_.empty(); }
    [[nodiscard]] std::uint64_t left() const { return left_.count(); }
    [[nodiscard]] std::uint32_t speculation_mask() const { return rules_.speculation.mask(); }
    [[nodiscard]] smig_wire_push_order order() const { return order_.order(); }

    static constexpr std::size_t kMostPages = 32;  // a frame
    // A pushed frame: what may stand before an answer to a fault.
    static constexpr std::size_t kLeastPushed = 8;
    static constexpr std::size_t kMostPushed = 32;

private:
    struct InFlight {
        std::vector<OwedPlace> places;
        std::uint64_t bytes = 0;
        std::uint64_t sent_ns = 0;
    };
    struct Link {
        bool open = false;
        std::uint64_t frames_taken = 0;
        std::uint64_t bytes = 0;  // on their way
        std::deque<InFlight> in_flight;
    };

    Link& link(smig_wire_owed_role role) { return role == SMIG_OWED_DEMAND ? demand_ : push_; }
    void owe_again(OwedPlace place);
    void forget(Link& link);
    [[nodiscard]] std::optional<OwedBatch> next_answer();
    [[nodiscard]] std::optional<OwedBatch> next_speculated();
    [[nodiscard]] std::optional<OwedBatch> next_pushed();

    const OwedIndex& index_;
    OwedRules rules_;
    Speculator speculator_;
    PushOrder order_;
    PushWindow window_;
    PlaceSet left_;  // owed, and on no way
    std::deque<std::uint64_t> asked_;
    std::vector<OwedPlace> guesses_;
    std::vector<OwedPlace> speculated_;
    Link demand_;
    Link push_;
    bool begun_ = false;
};

}  // namespace smig
