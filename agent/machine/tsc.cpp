// SPDX-License-Identifier: Apache-2.0
#include "agent/machine/tsc.hpp"

#include <time.h>
#include <x86intrin.h>

namespace smig {

namespace {

constexpr long kMeasureNs = 200'000'000;
constexpr int kReadings = 32;

struct Reading {
    std::uint64_t tsc = 0;
    std::uint64_t ns = 0;
};

std::uint64_t now_ns() {
    timespec now{};
    ::clock_gettime(CLOCK_MONOTONIC_RAW, &now);
    return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<std::uint64_t>(now.tv_nsec);
}

// Both clocks at one moment: the closest of several readings, as any may be interrupted.
Reading read_both() {
    Reading best;
    std::uint64_t narrowest = UINT64_MAX;
    for (int i = 0; i < kReadings; ++i) {
        const std::uint64_t before = __rdtsc();
        const std::uint64_t ns = now_ns();
        const std::uint64_t after = __rdtsc();
        if (after - before >= narrowest) continue;
        narrowest = after - before;
        best = {before + narrowest / 2, ns};
    }
    return best;
}

}  // namespace

std::uint64_t measure_tsc_khz() {
    const Reading first = read_both();
    const timespec pause{0, kMeasureNs};
    ::nanosleep(&pause, nullptr);
    const Reading last = read_both();
    if (last.ns <= first.ns || last.tsc <= first.tsc) return 0;
    return (last.tsc - first.tsc) * 1'000'000 / (last.ns - first.ns);
}

}  // namespace smig
