// SPDX-License-Identifier: Apache-2.0
// Time as every program of the lab tells it: nanoseconds of a clock.
#pragma once

#include <time.h>

#include <cstdint>

namespace lab {

inline constexpr std::int64_t kSecond = 1'000'000'000;
inline constexpr std::int64_t kMillisecond = 1'000'000;

inline std::int64_t clock_ns(clockid_t clock) {
    timespec now{};
    clock_gettime(clock, &now);
    return now.tv_sec * kSecond + now.tv_nsec;
}

inline std::int64_t now_ns() {
    return clock_ns(CLOCK_MONOTONIC);
}

inline timespec to_timespec(std::int64_t ns) {
    return {ns / kSecond, ns % kSecond};
}

inline void sleep_until(std::int64_t ns) {
    const timespec at = to_timespec(ns);
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, nullptr) != 0) {
    }
}

}  // namespace lab
