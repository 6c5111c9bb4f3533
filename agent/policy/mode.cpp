// SPDX-License-Identifier: Apache-2.0
#include "agent/policy/mode.hpp"

#include <algorithm>

#include "agent/base/check.hpp"

namespace smig {

namespace {

// In the order of enum Mode.  Automatic owes only when it decides so.
constexpr ModeTraits kModes[] = {
    {"precopy", true, false, true, false, false, SMIG_PUSH_SEQUENTIAL},
    {"stop-copy", false, false, true, false, false, SMIG_PUSH_SEQUENTIAL},
    {"hybrid", true, true, true, true, true, SMIG_PUSH_SEQUENTIAL},
    {"hybrid-ns", true, true, true, true, false, SMIG_PUSH_SEQUENTIAL},
    {"postcopy", true, true, false, true, false, SMIG_PUSH_SEQUENTIAL},
    {"postcopy-i", true, true, false, true, false, SMIG_PUSH_OUTWARD},
    {"auto", true, false, true, true, true, SMIG_PUSH_OUTWARD},
};

}  // namespace

const ModeTraits& traits_of(Mode mode) {
    const auto number = static_cast<std::size_t>(mode);
    SMIG_CHECK(number < std::size(kModes));
    return kModes[number];
}

std::optional<Mode> mode_named(std::string_view name) {
    const auto* const found = std::ranges::find(kModes, name, &ModeTraits::name);
    if (found == std::end(kModes)) return std::nullopt;
    return static_cast<Mode>(found - std::begin(kModes));
}

std::string mode_names() {
    std::string names;
    for (const ModeTraits& mode : kModes) names += std::string(names.empty() ? "" : ", ") + mode.name;
    return names;
}

}  // namespace smig
