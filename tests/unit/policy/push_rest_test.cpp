// SPDX-License-Identifier: Apache-2.0
#include "agent/policy/push_rest.hpp"

#include <doctest/doctest.h>

using namespace smig;

namespace {

constexpr std::uint64_t kRest = PushRest::kRestNs;

}  // namespace

TEST_CASE("push rests while who was served runs, and for no longer") {
    PushRest rest;
    CHECK(rest.left_ns(5) == 0);
    rest.served(false, 100);
    CHECK(rest.left_ns(100) == kRest);
    CHECK(rest.left_ns(100 + kRest - 1) == 1);
    CHECK(rest.left_ns(100 + kRest) == 0);
}

TEST_CASE("push does not rest when others wait as one is served") {
    PushRest rest;
    rest.served(true, 100);
    CHECK(rest.left_ns(100) == 0);
    rest.served(false, 200);
    CHECK(rest.left_ns(200) == kRest);
}

TEST_CASE("however many are served, what is pushed has its turn between two rests") {
    PushRest rest;
    std::uint64_t now = 1'000;
    std::uint64_t looks = 0;
    for (int turn = 0; turn < 100; ++turn, now += 2 * kRest / 3) {
        rest.served(false, now);
        if (rest.left_ns(now + 1) > 0) continue;
        rest.looked();
        ++looks;
    }
    CHECK(looks >= 33);
    CHECK(looks <= 67);
}
