// SPDX-License-Identifier: Apache-2.0
// The two clocks an edge may read.  Decisions never do: they are handed the time.
#pragma once

#include <time.h>

#include <cstdint>

namespace smig {

[[nodiscard]] inline std::uint64_t mono_ns() {
    timespec now{};
    ::clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000u + static_cast<std::uint64_t>(now.tv_nsec);
}

[[nodiscard]] inline std::int64_t mono_ms() {
    return static_cast<std::int64_t>(mono_ns() / 1'000'000u);
}

// "No deadline", and far enough from overflow to be added to.
inline constexpr std::int64_t kNever = INT64_MAX / 4;

}  // namespace smig
