// SPDX-License-Identifier: Apache-2.0
#include "agent/policy/passes.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <vector>

using namespace smig;

namespace {

constexpr double kRate = 100e6;  // bytes a second
constexpr double kPageNs = 4104 / kRate * 1e9;

struct Course {
    std::vector<PassDecision> decisions;
    std::vector<std::uint64_t> found;  // by each pass
    std::uint64_t left = 0;            // what the stop would find
};

// A guest of `all` pages of which `dirtied(seconds)` are changed within a time of being read, moved until the
// policy stops it.
Course run(const PassLimits& limits, double all, const std::function<double(double)>& dirtied) {
    Course course;
    PassPolicy policy(limits);
    double pages = all;
    std::uint64_t previous_ns = 0;
    for (std::uint64_t number = 1; number <= 1000; ++number) {
        PassSeen seen;
        seen.number = number;
        seen.pages = static_cast<std::uint64_t>(pages);
        seen.changed_pages = number == 1 ? 0 : seen.pages;
        seen.exposed_ns = mean_exposure_ns(previous_ns, previous_ns);
        seen.took_ns = static_cast<std::uint64_t>(pages * kPageNs) + 1'000'000;
        seen.payload_bytes = seen.pages * 4104;
        course.found.push_back(seen.pages);
        course.decisions.push_back(policy.after(seen, kRate));
        previous_ns = seen.took_ns;
        pages = std::min(all, dirtied(static_cast<double>(seen.took_ns) / 2 / 1e9));
        course.left = static_cast<std::uint64_t>(pages);
        if (course.decisions.back().stop) break;
    }
    return course;
}

}  // namespace

TEST_CASE("what has changed is as old as the part of the pass that it was read in") {
    constexpr std::uint64_t kMs = 1'000'000;
    // Read from 0 to 10 s, the last 5,000 pages in the last second; now it is 10.5 s.
    const ReadSpan pass{0, 10'000 * kMs, 100'000};
    const ReadSpan part{9'000 * kMs, 10'000 * kMs, 5'000};
    const std::uint64_t now = 10'500 * kMs;
    CHECK(mean_exposure_ns(pass, part, 0, now) == 1'000 * kMs);
    CHECK(mean_exposure_ns(pass, part, 5'000, now) == 1'000 * kMs);
    // Half of it from there, half from all of the pass.
    CHECK(mean_exposure_ns(pass, part, 10'000, now) == 3'250 * kMs);
    CHECK(mean_exposure_ns(pass, {}, 10'000, now) == 5'500 * kMs);
    CHECK(mean_exposure_ns(pass, pass, 10'000, now) == 5'500 * kMs);
    // One that was left was not read at all.
    CHECK(mean_exposure_ns({now, now, 9}, {now, now, 9}, 4, now) == 0);
}

TEST_CASE("a guest that writes little is stopped when the rest fits the limit") {
    const Course course = run({}, 1e6, [](double s) { return 1000 * s; });
    CHECK(course.decisions.back().stop == SMIG_STOP_WITHIN_LIMIT);
    CHECK(course.decisions.size() <= 4);
    CHECK(static_cast<double>(course.left) * kPageNs <= 300e6);
}

TEST_CASE("the stop that was promised is not far from the one that comes") {
    for (const double power : {0.0, 0.3, 0.6, 1.0}) {
        const Course course = run({}, 1e6, [&](double s) { return 12000 * std::pow(s, power); });
        const auto expected = static_cast<double>(course.decisions.back().expected_pages);
        CHECK(static_cast<double>(course.left) < 1.3 * expected + 100);
    }
}

TEST_CASE("a hot set that is too large is not taken for a small one because the pass was short") {
    const Course course = run({}, 1e6, [](double) { return 20000.0; });
    CHECK(course.decisions.back().stop == SMIG_STOP_NO_GAIN);
    CHECK(course.decisions.size() <= 5);
    CHECK(course.decisions.back().expected_stop_ms > 700);
}

TEST_CASE("a guest that writes faster than the link is stopped, not sent for ever") {
    const Course course = run({}, 1e6, [](double s) { return 80000 * s; });
    CHECK(course.decisions.back().stop == SMIG_STOP_NO_GAIN);
    CHECK(course.decisions.size() <= 4);
}

TEST_CASE(
    "a guest that writes less than twice what the link takes converges: half of it is read as written") {
    const Course course = run({}, 1e6, [](double s) { return 40000 * s; });
    CHECK(course.decisions.back().stop == SMIG_STOP_WITHIN_LIMIT);
}

TEST_CASE("the number of passes is limited") {
    PassLimits limits;
    limits.max_passes = 3;
    limits.downtime_limit_ms = 1;
    const Course course = run(limits, 1e6, [](double s) { return 15000 * s; });
    CHECK(course.decisions.back().stop == SMIG_STOP_MAX_PASSES);
    CHECK(course.decisions.size() == 3);
}

TEST_CASE("a guest so small that all of it fits the limit needs one pass") {
    CHECK(run({}, 500, [](double) { return 1.0; }).decisions.size() == 1);
}

TEST_CASE("pages that turned out to be the same cost no bytes in the forecast") {
    PassPolicy policy({});
    (void)policy.after({1, 1'000'000, 0, 0, 40'000'000'000, 4'000'000'000, 0}, kRate);
    // 100000 suspects, of which 1000 were sent; reading takes 1 us each.
    const auto decision =
        policy.after({2, 100'000, 100'000, 40'000'000'000, 200'000'000, 4'100'000, 100'000'000}, kRate);
    CHECK(decision.expected_stop_ms == 141);
    CHECK(decision.stop == SMIG_STOP_WITHIN_LIMIT);
    CHECK(decision.dirty_pages_per_s == doctest::Approx(2500));
}

TEST_CASE(
    "without a known rate a pass is its own measure, and the fixed cost is only added to the forecast") {
    PassLimits limits;
    limits.fixed_stop_ms = 1000;
    PassPolicy policy(limits);
    const auto decision = policy.after({1, 100, 0, 0, 200'000'000, 1, 1}, 0);
    CHECK(decision.expected_stop_ms == 1200);
    CHECK(decision.stop == SMIG_STOP_WITHIN_LIMIT);
}

TEST_CASE("a pass that finds nothing ends the passes") {
    PassPolicy policy({});
    CHECK_FALSE(policy.after({1, 1'000'000, 0, 0, 40'000'000'000, 4'000'000'000, 0}, kRate).stop.has_value());
    CHECK(policy.after({2, 0, 0, 40'000'000'000, 1'000'000, 0, 0}, kRate).stop == SMIG_STOP_WITHIN_LIMIT);
}

TEST_CASE("every reason has a name") {
    CHECK(std::string(stop_reason_name(SMIG_STOP_ASKED)) == "asked");
    CHECK(std::string(stop_reason_name(0)) == "none");
    CHECK(std::string(stop_reason_name(99)) == "none");
}
