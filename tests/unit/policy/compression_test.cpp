// SPDX-License-Identifier: Apache-2.0
#include "agent/policy/compression.hpp"

#include <doctest/doctest.h>

using namespace smig;

namespace {

constexpr double kFrame = 1 << 20;

// How many of `frames` frames are packed when packing runs at `pack_rate`, leaves `ratio` and the link takes
// `link_rate`; bytes a second.
int packed(CompressionPolicy& policy, int frames, double pack_rate, double ratio, double link_rate) {
    int count = 0;
    for (int i = 0; i < frames; ++i) {
        const bool pack = policy.pack_next();
        const double pack_ns = pack ? kFrame / pack_rate * 1e9 : 0;
        const double send_ns = kFrame * (pack ? ratio : 1) / link_rate * 1e9;
        if (pack) ++count;
        policy.sent(1 << 20, static_cast<std::uint64_t>(pack_ns),
                    static_cast<std::uint64_t>(pack_ns + send_ns));
    }
    return count;
}

}  // namespace

TEST_CASE("a slow link gets packed pages, a fast one plain ones") {
    CompressionPolicy slow(Compress::automatic);
    CHECK(packed(slow, 1000, 500e6, 0.5, 50e6) > 900);
    CompressionPolicy fast(Compress::automatic);
    CHECK(packed(fast, 1000, 500e6, 0.5, 3000e6) < 20);
}

TEST_CASE("pages that hardly get shorter are sent plain, but for a trial now and then") {
    CompressionPolicy policy(Compress::automatic);
    const int count = packed(policy, 1000, 500e6, 0.98, 100e6);
    CHECK(count > 0);
    CHECK(count < 100);
}

TEST_CASE("that the first pages do not get shorter is soon forgotten") {
    CompressionPolicy policy(Compress::automatic);
    CHECK(packed(policy, 30, 100e6, 1, 25e6) <= 8);
    CHECK(packed(policy, 70, 100e6, 0.5, 25e6) > 35);
}

TEST_CASE("when link or contents change the choice follows") {
    CompressionPolicy policy(Compress::automatic);
    (void)packed(policy, 300, 500e6, 0.4, 50e6);
    CHECK(policy.pack_next());
    (void)packed(policy, 300, 500e6, 0.4, 5000e6);
    CHECK(packed(policy, 300, 500e6, 0.4, 5000e6) < 30);
    (void)packed(policy, 300, 500e6, 0.4, 50e6);
    CHECK(packed(policy, 300, 500e6, 0.4, 50e6) > 250);
}

TEST_CASE("a link that only seemed fast while buffers on the way filled is judged again") {
    CompressionPolicy policy(Compress::automatic);
    CHECK(packed(policy, 12, 100e6, 0.4, 1000e6) == 2);
    CHECK(packed(policy, 60, 100e6, 0.4, 20e6) > 40);
}

TEST_CASE("a first packed frame that took long says nothing of the next") {
    CompressionPolicy policy(Compress::automatic);
    CHECK(packed(policy, 8, 100e6, 0.4, 25e6) == 0);
    CHECK(packed(policy, 1, 20e6, 0.4, 25e6) == 1);
    CHECK(packed(policy, 100, 100e6, 0.4, 25e6) > 90);
}

TEST_CASE("a pacer's waits count as the link's time") {
    CompressionPolicy policy(Compress::automatic);
    int count = 0;
    for (int i = 0; i < 500; ++i) {
        const bool pack = policy.pack_next();
        if (pack) ++count;
        policy.sent(1 << 20, pack ? 2'000'000 : 0, pack ? 2'100'000 : 200'000);
        policy.waited(pack ? 25'000'000 : 50'000'000);
    }
    CHECK(count > 400);
    policy.restart();
    CHECK_FALSE(policy.pack_next());
}

TEST_CASE("on is on and off is off") {
    CompressionPolicy on(Compress::on);
    CHECK(packed(on, 50, 1e6, 1, 1e12) == 50);
    CompressionPolicy off(Compress::off);
    CHECK(packed(off, 50, 1e12, 0.01, 1e6) == 0);
    CHECK(compress_named("auto") == Compress::automatic);
    CHECK_FALSE(compress_named("maybe").has_value());
}
