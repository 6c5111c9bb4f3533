// SPDX-License-Identifier: Apache-2.0
// Prediction by partial match over the history of faults: after the steps of this mapping's last faults (the
// differences of their page numbers), which step came next the other times?  Pure.
//
// The longest known context (up to three steps) speaks first.  What is learned in one mapping serves all: a
// stride is the program's, not the mapping's.  The tables have a fixed size; a new context takes the place of
// an old one that was less sure.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace smig {

class StepPredictor {
public:
    static constexpr std::size_t kMostSteps = 3;  // of a context

    // The last steps of a mapping, the latest first.
    struct History {
        std::array<std::int64_t, kMostSteps> steps{};
        std::uint8_t known = 0;

        void add(std::int64_t step);
    };

    StepPredictor();

    // `step` came after `before`.
    void learn(const History& before, std::int64_t step);
    // The step that followed so often at least (`least` times more than it did not); none: nobody knows.
    [[nodiscard]] std::optional<std::int64_t> predict(const History& before, unsigned least) const;

private:
    struct Slot {
        std::uint64_t context = 0;  // 0: free
        std::int64_t step = 0;
        std::uint32_t sure = 0;
    };
    static constexpr std::size_t kSlots = 4096;

    [[nodiscard]] static std::uint64_t context_of(const History& before, std::size_t steps);

    std::vector<Slot> slots_;
};

}  // namespace smig
