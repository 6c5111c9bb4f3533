// SPDX-License-Identifier: Apache-2.0
#include "agent/policy/pacing.hpp"

#include <doctest/doctest.h>

using namespace smig;

TEST_CASE("rates are bits or bytes a second") {
    CHECK(parse_rate("500mbit").value() == 62'500'000);
    CHECK(parse_rate("2.5gbit").value() == 312'500'000);
    CHECK(parse_rate("20MB").value() == 20'000'000);
    CHECK(parse_rate("300KiB").value() == 300 * 1024);
    CHECK(parse_rate("1000000").value() == 1'000'000);
    CHECK(parse_rate("0").value() == 0);
    for (const char* bad :
         {"", "fast", "mbit", "-1mbit", "10 mbit", "10mbit ", "10mb/s", "nan", "inf", "1e9999"})
        CHECK_FALSE_MESSAGE(parse_rate(bad).ok(), bad);
    CHECK_FALSE(parse_rate("1kbit").ok());
    CHECK_FALSE(parse_rate("99999999GB").ok());
}

TEST_CASE("a paced sender keeps its rate over time, and its burst after a pause") {
    constexpr std::uint64_t kSecond = 1'000'000'000;
    Pacer pacer(10'000'000, 1'000'000);
    std::uint64_t now = 100 * kSecond;
    std::uint64_t sent = 0;
    while (now < 110 * kSecond) {
        now += pacer.wait_ns(now);
        pacer.sent(500'000, now);
        sent += 500'000;
    }
    CHECK(sent >= 100'000'000);
    CHECK(sent <= 102'500'000);
    now += 1000 * kSecond;
    std::uint64_t burst = 0;
    while (pacer.wait_ns(now) == 0) {
        pacer.sent(500'000, now);
        burst += 500'000;
    }
    CHECK(burst <= 1'500'000);
}

TEST_CASE("without a cap nobody waits") {
    Pacer pacer(0, 1);
    pacer.sent(1ull << 40, 1);
    CHECK(pacer.wait_ns(1) == 0);
}

TEST_CASE("the rate is the one of late, and outlives a short pass") {
    RateMeter meter;
    CHECK(meter.bytes_per_s() == 0);
    for (int i = 0; i < 200; ++i) meter.sent(1 << 20, 1'000'000);
    CHECK(meter.bytes_per_s() == doctest::Approx(1048.576e6).epsilon(0.01));
    for (int i = 0; i < 200; ++i) meter.sent(1 << 20, 10'000'000);
    CHECK(meter.bytes_per_s() == doctest::Approx(104.8576e6).epsilon(0.01));
    // A socket's buffer swallows a little at once.
    meter.sent(1 << 20, 100'000);
    CHECK(meter.bytes_per_s() < 115e6);
}
