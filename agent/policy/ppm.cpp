// SPDX-License-Identifier: Apache-2.0
#include "agent/policy/ppm.hpp"

#include <algorithm>

namespace smig {

namespace {

constexpr std::uint32_t kSurest = 15;  // so that what has changed is believed again soon

// The finaliser of SplitMix64.
std::uint64_t mixed(std::uint64_t value) {
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9ull;
    value = (value ^ (value >> 27)) * 0x94d049bb133111ebull;
    return value ^ (value >> 31);
}

}  // namespace

void StepPredictor::History::add(std::int64_t step) {
    std::shift_right(steps.begin(), steps.end(), 1);
    steps[0] = step;
    known = static_cast<std::uint8_t>(std::min<std::size_t>(known + 1u, kMostSteps));
}

StepPredictor::StepPredictor() : slots_(kSlots) {}

std::uint64_t StepPredictor::context_of(const History& before, std::size_t steps) {
    std::uint64_t context = steps;
    for (std::size_t i = 0; i < steps; ++i)
        context = mixed(context + static_cast<std::uint64_t>(before.steps[i]) * 0x9e3779b97f4a7c15ull);
    return context | 1;
}

void StepPredictor::learn(const History& before, std::int64_t step) {
    for (std::size_t steps = 1; steps <= before.known; ++steps) {
        const std::uint64_t context = context_of(before, steps);
        Slot& slot = slots_[(context >> 1) % kSlots];
        if (slot.context == context && slot.step == step) {
            slot.sure = std::min(slot.sure + 1, kSurest);
        } else if (slot.context != 0 && slot.sure > 1) {
            --slot.sure;
        } else {
            slot = {context, step, 1};
        }
    }
}

std::optional<std::int64_t> StepPredictor::predict(const History& before, unsigned least) const {
    for (std::size_t steps = before.known; steps >= 1; --steps) {
        const std::uint64_t context = context_of(before, steps);
        const Slot& slot = slots_[(context >> 1) % kSlots];
        if (slot.context == context && slot.sure >= least) return slot.step;
    }
    return std::nullopt;
}

}  // namespace smig
