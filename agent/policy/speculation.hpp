// SPDX-License-Identifier: Apache-2.0
// Which pages go along with one that somebody waits for.  Pure.
//
// Every kind has a threshold: so many faults of its scope (the mapping, the file, the process; for PPM, so
// many times that the step followed) must have been seen before it speaks.  Neighbours are taken in the
// direction in which the faults of the mapping go, in a window that doubles while they stay near and is
// halved when they jump.  Only private pages are owed, so a "file" page is a private copy of one.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "agent/base/result.hpp"
#include "agent/policy/owed_index.hpp"
#include "agent/policy/ppm.hpp"
#include "common/wire.h"

namespace smig {

struct SpeculationRules {
    std::array<unsigned, SMIG_SPECULATE_NR> thresholds{};  // 0: this kind is off

    [[nodiscard]] bool on(smig_wire_speculation kind) const { return thresholds.at(kind) != 0; }
    // A bit a kind, as OWED_READY has it.
    [[nodiscard]] std::uint32_t mask() const;
};

// Every kind, with the threshold it has when none is given.
[[nodiscard]] SpeculationRules all_speculation();
// "none", "all", "anon-single,ppm", "file-multi:3".  Error (refused): not such a list.
Result<SpeculationRules> parse_speculation(std::string_view text);
// "anon-single,ppm"; "none".
[[nodiscard]] std::string speculation_names(std::uint32_t mask);

class Speculator {
public:
    // The index must outlive it, and is sealed when demand() is called first.
    Speculator(const OwedIndex& index, const SpeculationRules& rules) : index_(index), rules_(rules) {}

    // From the next fault on.
    void use(const SpeculationRules& rules) { rules_ = rules; }
    // Somebody waits for `place`.  Adds to `out`, the likeliest first, places of `left`, each once, `most` of
    // them at most.
    void demand(OwedPlace place, const PlaceSet& left, std::size_t most, std::vector<OwedPlace>& out);

private:
    struct Area {
        std::uint32_t number = 0;
        bool file = false;
        OwedPlace last = 0;
        unsigned faults = 0;
        unsigned window = 0;
        bool down = false;
        StepPredictor::History history;
        std::uint64_t walked_to = 0;  // how far predicted steps have led since the last fault; 0: nowhere
        StepPredictor::History walked;
    };

    Area& note(OwedPlace place);
    void neighbours(const Area& area, std::size_t most);
    void other_copies(OwedPlace place, std::size_t most);
    void other_areas(OwedPlace place, std::size_t most);
    void predicted(OwedPlace place, Area& area, std::size_t most);
    std::int64_t learn_step(Area& area, std::uint64_t address);
    void take(OwedPlace place);
    [[nodiscard]] unsigned faults_of_file(std::uint64_t file);

    const OwedIndex& index_;
    SpeculationRules rules_;
    StepPredictor predictor_;
    std::vector<Area> areas_;  // by number
    std::vector<std::pair<std::uint64_t, unsigned>> file_faults_;
    const PlaceSet* left_ = nullptr;  // of the call under way
    std::vector<OwedPlace>* out_ = nullptr;
};

}  // namespace smig
