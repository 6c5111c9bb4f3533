// SPDX-License-Identifier: Apache-2.0
// tsc_rate: prints the rate of this machine's time stamp counter, in kHz.
#include <x86intrin.h>

#include <cstdio>

#include "monotonic.hpp"

namespace {

struct Look {
    std::int64_t ns;
    std::uint64_t ticks;
};

// The quickest of a few: one that was not interrupted between clock and counter.
Look look() {
    Look best{};
    std::int64_t shortest = lab::kSecond;
    for (int attempt = 0; attempt < 20; ++attempt) {
        const std::int64_t before = lab::now_ns();
        const std::uint64_t ticks = __rdtsc();
        const std::int64_t took = lab::now_ns() - before;
        if (took >= shortest) continue;
        shortest = took;
        best = {before + took / 2, ticks};
    }
    return best;
}

}  // namespace

int main() {
    const Look first = look();
    lab::sleep_until(first.ns + 200 * lab::kMillisecond);
    const Look last = look();
    const auto ticks = static_cast<double>(last.ticks - first.ticks);
    std::printf("%.0f\n", ticks * 1e6 / static_cast<double>(last.ns - first.ns));
    return 0;
}
