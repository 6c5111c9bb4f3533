// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "agent/machine/cpu_features.hpp"
#include "agent/machine/tsc.hpp"

using namespace smig;

TEST_CASE("this CPU accepts itself, and an empty one is refused by the features it lacks") {
    const CpuFeatures here = read_cpu_features();
    CHECK(compare_cpus(here, here).empty());
    CpuFeatures none;
    none.vendor = here.vendor;
    none.hypervisor = here.hypervisor;
    const auto reasons = compare_cpus(here, none);
    const auto names = [&](const char* name) {
        return std::any_of(reasons.begin(), reasons.end(),
                           [&](const std::string& reason) { return reason.find(name) != std::string::npos; });
    };
    CHECK(names("sse4_2"));
    CHECK(names("syscall"));
    CHECK(names("physical address bits"));
    CHECK(compare_cpus(none, here).empty());
}

TEST_CASE("bits that the kernel sets or that only count threads are no features") {
    CpuFeatures source;
    source.leaves[{1, 0}] = {0, 0, 1u << 27 | 1u << 31, 1u << 28};
    source.leaves[{7, 0}] = {0, 1u << 6 | 1u << 13, 1u << 4, 0};
    CHECK(compare_cpus(source, CpuFeatures{}).empty());
}

TEST_CASE("a feature without a name is told by its place") {
    CpuFeatures source;
    source.leaves[{7, 0}] = {0, 0, 0, 1};
    const auto reasons = compare_cpus(source, CpuFeatures{});
    REQUIRE(reasons.size() == 1);
    CHECK(reasons.front().find("CPUID 0x7.0 EDX bit 0") != std::string::npos);
}

TEST_CASE("two measures of the TSC agree closely") {
    const auto first = static_cast<double>(measure_tsc_khz());
    const auto second = static_cast<double>(measure_tsc_khz());
    CHECK(first > 100'000);
    CHECK(std::abs(first - second) / first < 0.0005);
}
