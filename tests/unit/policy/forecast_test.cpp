// SPDX-License-Identifier: Apache-2.0
#include "agent/policy/forecast.hpp"

#include <doctest/doctest.h>

namespace {

using smig::forecast;
using smig::ForecastSample;
using smig::PassLimits;

// A quarter of 100,000 pages in 2.5 s: 100 us a page.
ForecastSample sample(std::uint64_t early_changed, std::uint64_t late_changed) {
    return {.in_use_pages = 100'000,
            .read_pages = 25'000,
            .took_ns = 2'500'000'000,
            .payload_bytes = 25'000ull * 4096,
            .read_ns = 500'000'000,
            .early_ns = 2'500'000'000,
            .early_changed_pages = early_changed,
            .late_ns = 5'000'000'000,
            .late_changed_pages = late_changed};
}

}  // namespace

TEST_CASE("an idle guest is forecast one or two passes, and a stop that sends next to nothing") {
    const auto result = forecast(sample(0, 0), PassLimits{}, 40e6);
    CHECK(result.stop_reason == SMIG_STOP_WITHIN_LIMIT);
    CHECK(result.passes <= 2);
    CHECK(result.first_pass_ms == 10'000);
    CHECK(result.stop_pages == 0);
    CHECK(result.stop_send_ms == 0);
}

TEST_CASE("what is written is scaled up from the share that was sent") {
    // a hot set: the same pages again and again, 500 of the quarter, so 2000 of all
    const auto result = forecast(sample(500, 500), PassLimits{}, 40e6);
    CHECK(result.stop_pages == 2000);
    CHECK(result.stop_send_ms == 200);
    CHECK(result.stop_reason == SMIG_STOP_WITHIN_LIMIT);
}

TEST_CASE("a guest that writes faster than the link sends does not converge") {
    // a line: 8,000 of the quarter in 1.25 s, which they have been there in the mean, thrice as many in
    // thrice the time
    const auto result = forecast(sample(8'000, 24'000), PassLimits{}, 40e6);
    CHECK(result.stop_reason == SMIG_STOP_NO_GAIN);
    CHECK(result.stop_pages > 50'000);
    CHECK(result.stop_pages <= 100'000);
    CHECK(result.passes_ms > 2 * result.first_pass_ms);
}

TEST_CASE("the limits of the passes are kept") {
    PassLimits limits;
    limits.max_passes = 1;
    CHECK(forecast(sample(12'000, 24'000), limits, 40e6).passes == 1);
    limits.max_passes = 1000;
    limits.downtime_limit_ms = 1'000'000;
    CHECK(forecast(sample(12'000, 24'000), limits, 40e6).stop_reason == SMIG_STOP_WITHIN_LIMIT);
}

TEST_CASE("without a page there is no forecast") {
    CHECK(forecast(ForecastSample{}, PassLimits{}, 1e6).stop_reason == 0);
}
